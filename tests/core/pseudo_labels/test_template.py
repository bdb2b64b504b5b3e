"""Template labels: who is meant, every way to say it, and which of them are drawn."""

import itertools
import re
from collections import Counter
from dataclasses import replace

import pytest

from projects.clip_vg_core.pseudo_labels.template import (
    PRESETS,
    TemplateOptions,
    phrases,
    template_labels,
)

from ...helpers.scenes import VOCABULARY, at, scattered, scene, shuffled

PREPOSITIONS = {  # specification 1.8, but for its "in the behind"
    **{place: f'on the {place}' for place in ('left', 'right')},
    **{place: f'in the {place}' for place in ('front', 'middle', 'center')},
    'behind': 'in the back',
    **dict.fromkeys(('top', 'bottom')),
}
EVERYTHING = dict(objects=10**6, expressions=10**6)


def make(*detections, image_id=1, describe=None, **options):
    return template_labels(
        scene(*detections, image_id=image_id),
        VOCABULARY,
        TemplateOptions(**options),
        describe,
    )


def texts(*detections, **options):
    """All texts of a scene, or as many as the options say."""
    return [label.text for label in make(*detections, **(EVERYTHING | options))]


def spec_texts(noun, places, clothes):
    """1.8, as it stands there."""
    found = [noun]
    for place in places:
        found += [f'{noun} {place}', f'{place} {noun}']
        if PREPOSITIONS[place]:
            found += [f'{noun} {PREPOSITIONS[place]}']
    for cloth in clothes:
        found += [f'{noun} {cloth}', f'{cloth} {noun}']
    for cloth, place in itertools.product(clothes, places):
        for order in itertools.permutations((noun, cloth, place)):
            found.append(' '.join(order))
            # A preposition needs its noun before it: three of the six.
            if PREPOSITIONS[place] and order.index(noun) < order.index(place):
                said = PREPOSITIONS[place]
                found.append(' '.join(said if w == place else w for w in order))
    return found


@pytest.mark.parametrize('places', [[], *([place] for place in PREPOSITIONS)])
@pytest.mark.parametrize('clothes', [[], ['hat'], ['red hat', 'blue jeans']])
def test_every_template_is_there_once(places, clothes):
    found = [text for _, text in phrases('old man', places, clothes)]
    assert sorted(found) == sorted(spec_texts('old man', places, clothes))


def test_templates_of_several_places_and_clothes_are_those_of_each_pair():
    places, clothes = ['left', 'top', 'front'], ['red hat', 'jeans', 'boots']
    found = [text for _, text in phrases('man', places, clothes)]
    assert sorted(found) == sorted(spec_texts('man', places, clothes))
    pairs = itertools.product(places, clothes)
    alone = {
        text for place, cloth in pairs for _, text in phrases('man', [place], [cloth])
    }
    assert set(found) == alone


def test_the_number_of_templates_is_the_papers():
    # n; n s, s n, n on the s; n c, c n; six orders and three with the preposition.
    assert len(list(phrases('man', ['left'], ['hat']))) == 1 + 3 + 2 + 6 + 3
    assert len(list(phrases('man', ['top'], ['hat']))) == 1 + 2 + 2 + 6


def test_the_name_of_a_template_is_its_pattern():
    parts = dict(n='old man', s='left', c='red hat')
    for rule, text in phrases(parts['n'], [parts['s']], [parts['c']]):
        assert ' '.join(parts.get(word, word) for word in rule.split()) == text


def crowd(seed=0):
    """A scene of everything: people, things, clothes and attributes."""
    names = ['man', 'woman', 'dog', 'cup', 'jacket', 'cap', 'jeans']
    items = scattered(seed, names, 16)
    return [
        replace(item, attribute=('red', 'blue')[i % 2], attribute_score=(i % 5) / 5)
        for i, item in enumerate(items)
    ]


# Far apart, large enough, and from the least sure to the surest.
PEOPLE = [at(60 + 110 * i, 100, 'man', (60, 90), score=0.2 + i / 20) for i in range(5)]
CLOTHES = ('cap', 'jacket', 'jeans', 'boots')
THINGS = [at(60 + 110 * i, 300, 'cup', (60, 90), score=0.6 + i / 20) for i in range(5)]


@pytest.mark.parametrize('people', [0, 1, 3, 5])
@pytest.mark.parametrize('count', [1, 2, 3, 7])
def test_targets_are_the_surest_people_and_then_the_surest_things(people, count):
    mine = PEOPLE[:people]
    by_score = [sorted(group, key=lambda item: -item.score) for group in (mine, THINGS)]
    expected = [item.box for item in itertools.chain(*by_score)][:count]
    for seed in range(3):
        mixed = shuffled([*mine, *THINGS], seed)
        found = make(*mixed, objects=count, expressions=10**6)
        assert list(dict.fromkeys(label.box for label in found)) == expected
        assert all(label.score in {i.score for i in mixed} for label in found)


def test_clothes_are_never_targets():
    clothes = [at(60 + 110 * i, 300, name, (60, 90)) for i, name in enumerate(CLOTHES)]
    assert make(*clothes, **EVERYTHING) == []
    found = make(*clothes, PEOPLE[0], **EVERYTHING)
    assert {label.box for label in found} == {PEOPLE[0].box}


def test_an_object_beyond_the_first_still_places_the_others():
    alone = texts(THINGS[4], objects=1)
    beside = texts(*THINGS, objects=1)
    assert alone == ['cup'] and 'cup on the right' in beside


def test_places_are_of_the_class_whatever_the_attribute():
    red, blue = (
        replace(THINGS[i], attribute=word, attribute_score=0.9)
        for i, word in ((0, 'red'), (4, 'blue'))
    )
    found = texts(red, blue)
    assert {'red cup on the left', 'blue cup on the right'} <= set(found)
    assert set(texts(red, at(500, 300, 'bowl'))) == {'red cup', 'bowl'}


@pytest.mark.parametrize(('sure', 'noun'), [(0.9, 'red man'), (0.3, 'man')])
def test_an_object_is_called_by_its_attribute_cloth_and_place(sure, noun):
    man = at(100, 240, 'man', (100, 200), attribute='red', attribute_score=sure)
    cap = at(100, 150, 'cap', (30, 10), attribute='blue', attribute_score=0.8)
    other = at(500, 240, 'man', (100, 200), score=0.9)
    found = make(man, cap, other, **EVERYTHING)
    mine = [label.text for label in found if label.box == man.box]
    assert sorted(mine) == sorted(spec_texts(noun, ['left'], ['blue cap']))
    others = [label.text for label in found if label.box == other.box]
    assert sorted(others) == sorted(spec_texts('man', ['right'], []))


def test_the_rules_before_apply():
    # 1.2, 1.3 and 1.4 by way of labels: too small, a double, an attribute in the name.
    table = at(300, 300, 'wooden table', (200, 100), score=0.9)
    table = replace(table, attribute='wooden', attribute_score=0.8)
    small = at(60, 60, 'dog', (50, 50))
    double = at(305, 300, 'desk', (200, 100), score=0.8)
    found = make(table, small, double, **EVERYTHING)
    assert [(label.text, label.box) for label in found] == [('wooden table', table.box)]


@pytest.mark.parametrize(
    ('option', 'value'),
    [
        ('min_area', 0.05),
        ('max_iou', 0.9),
        ('min_attribute_score', 0.7),
        ('min_inside', 0.2),
        ('min_spread', 0.5),
        ('min_spread_pixels', 300),
        ('behind', 0.9),
        ('front', 0.5),
        ('use_location', False),
    ],
)
def test_every_constant_of_the_options_is_used(option, value):
    found = [texts(*crowd(seed)) for seed in range(4)]
    assert found != [texts(*crowd(seed), **{option: value}) for seed in range(4)]


def test_attributes_may_come_from_elsewhere():
    def describe(known, items):
        assert known.image_id == 1 and items == [PEOPLE[0], THINGS[4]]
        return [replace(i, attribute='old', attribute_score=0.9) for i in items]

    found = texts(PEOPLE[0], THINGS[4], at(9, 9, size=(9, 9)), describe=describe)
    assert found == ['old man', 'old cup']
    assert texts(describe=describe) == []  # nothing to describe


def spec_where(found):
    return {word for text in found for word in text.split()} & {*PREPOSITIONS, 'back'}


def test_places_can_be_left_out():
    assert spec_where(texts(*crowd())) > {'left', 'right', 'top', 'bottom'}
    without = texts(*crowd(), use_location=False)
    assert not spec_where(without)
    assert set(without) == {t for t in texts(*crowd()) if not spec_where([t])}


@pytest.mark.parametrize(
    ('name', 'objects', 'expressions', 'use_location'),
    [  # specification 1.8
        ('refcoco', 3, 6, True),
        ('refcoco+', 3, 12, False),
        ('refcocog', 2, 4, True),
        ('referit', 6, 15, True),
        ('flickr30k', 7, 28, True),
    ],
)
def test_presets_of_which_only_refcoco_is_official(
    name, objects, expressions, use_location
):
    options = TemplateOptions(**PRESETS[name])
    assert (options.objects, options.expressions) == (objects, expressions)
    assert options.use_location is use_location
    expected = TemplateOptions(objects, expressions, use_location)
    assert options == expected  # all else as by default


def test_the_constants_are_the_papers():
    # Specification 1.2 to 1.7.
    expected = dict(min_area=1 / 64, max_iou=0.4, min_attribute_score=0.3)
    expected |= dict(min_inside=0.75, min_spread=50 / 640, behind=0.4, front=0.8)
    assert TemplateOptions() == TemplateOptions(**expected)


def test_the_default_is_refcoco():
    assert TemplateOptions() == TemplateOptions(**PRESETS['refcoco'])
    plain = template_labels(scene(*crowd()), VOCABULARY)
    assert plain == make(*crowd(), **PRESETS['refcoco'])
    assert len(plain) == 6


@pytest.mark.parametrize('preset', PRESETS.values(), ids=PRESETS)
@pytest.mark.parametrize('seed', range(3))
def test_as_many_expressions_are_drawn_as_asked_without_replacement(preset, seed):
    pool = make(*crowd(seed), **(preset | dict(expressions=10**6)))
    found = make(*crowd(seed), **preset)
    assert len(found) == min(preset['expressions'], len(pool))
    assert not Counter(found) - Counter(pool)
    assert len({label.box for label in pool}) == preset['objects']


@pytest.mark.parametrize('count', [1, 12, 13, 14, 99])
def test_where_there_are_fewer_expressions_all_are_taken(count):
    pair = [THINGS[0], THINGS[4]]
    everything = make(*pair, **EVERYTHING)
    found = make(*pair, expressions=count)
    assert len(found) == min(count, len(everything))
    assert count < len(everything) or found == everything


def test_every_expression_can_be_drawn_and_all_alike():
    pair = [THINGS[0], THINGS[4]]
    pool = texts(*pair)
    drawn = Counter()
    for image_id in range(400):
        drawn.update(texts(*pair, image_id=image_id, expressions=2))
    assert set(drawn) == set(pool)
    # 800 draws: four standard deviations of a binomial are 4 * sqrt(mean).
    common, mean = Counter(pool), 800 / len(pool)
    for text, count in drawn.items():
        expected = mean * common[text]
        assert abs(count - expected) < 4 * expected**0.5


def test_an_image_draws_the_same_alone_and_among_others():
    ids = [3, 1, 'b.jpg', 2, 'a.jpg']
    alone = {i: make(*crowd(), image_id=i) for i in ids}
    for seed in range(3):
        order = shuffled(ids, seed)
        assert {i: make(*crowd(), image_id=i) for i in order} == alone
    assert len({tuple(labels) for labels in alone.values()}) == len(ids)


def test_another_seed_draws_others():
    found = {tuple(texts(*crowd(), expressions=6, seed=seed)) for seed in range(5)}
    assert len(found) == 5


@pytest.mark.parametrize('seed', range(5))
def test_the_order_of_the_detections_does_not_matter(seed):
    mixed = shuffled(crowd(seed), seed)
    assert make(*mixed) == make(*crowd(seed))
    assert make(*mixed, **EVERYTHING) == make(*crowd(seed), **EVERYTHING)


@pytest.mark.parametrize('seed', range(5))
def test_no_object_has_a_text_twice(seed):
    feet = [at(x, 230, 'boot', (20, 20)) for x in (70, 130)]
    items = [*crowd(seed), at(100, 140, 'child', (100, 200)), *feet]
    found = Counter((x.text, x.box) for x in make(*items, **EVERYTHING))
    assert 'child boot' in {text for text, _ in found}
    assert max(found.values()) == 1


def test_texts_that_fit_several_objects_can_be_left_out():
    pair = [THINGS[0], THINGS[4]]
    assert texts(*pair).count('cup') == 2  # as released
    clear = texts(*pair, unique=True)
    assert set(clear) == set(texts(*pair)) - {'cup'}
    # Also where the other one is no target.
    assert 'cup' not in texts(*pair, unique=True, objects=1)
    assert 'man' in texts(*pair, PEOPLE[0], unique=True, objects=1)


def tokens(label):
    return re.sub(r' (on|in) the ', ' ', label.text).split()


def test_a_label_says_which_kinds_of_words_it_has():
    man = at(100, 240, 'man', (100, 200), attribute='old', attribute_score=0.9)
    cap = at(100, 150, 'cap', (30, 10))
    for label in make(man, cap, at(500, 240, 'man', (100, 200)), **EVERYTHING):
        kinds = dict(attribute={'old'}, cloth={'cap'}, where={*PREPOSITIONS, 'back'})
        expected = {k for k, words in kinds.items() if words & set(tokens(label))}
        assert label.words == expected
        assert label.entities == 1 + ('cap' in tokens(label))


def test_a_label_has_the_attribute_of_its_own_cloth_alone():
    man = at(100, 240, 'man', (100, 200))
    cap = at(100, 150, 'cap', (30, 10), attribute='red', attribute_score=0.9)
    for label in make(man, cap, at(100, 220, 'shirt', (60, 60)), **EVERYTHING):
        assert ('attribute' in label.words) == ('red' in tokens(label))


@pytest.mark.parametrize('unique', [False, True])
@pytest.mark.parametrize('seed', range(3))
def test_what_is_left_out_is_counted(unique, seed):
    dropped = Counter()
    options = TemplateOptions(unique=unique)
    labels = template_labels(scene(*crowd(seed)), VOCABULARY, options, dropped=dropped)
    pool = make(*crowd(seed), expressions=10**6, unique=unique)
    everyone = make(*crowd(seed), **EVERYTHING)
    targets = len({label.box for label in everyone})
    assert dropped['text not drawn'] == len(pool) - len(labels)
    assert dropped['beyond the first objects'] == targets - 3
    clear = make(*crowd(seed), **EVERYTHING, unique=unique)
    assert dropped['text of several objects'] == len(everyone) - len(clear)


def test_nothing_comes_of_nothing():
    assert make() == []
    assert make(at(320, 240, size=(9, 9))) == []
