"""Caption labels: the whole caption for every box that its subject can mean."""

from collections import Counter
from dataclasses import replace

import pytest

from projects.clip_vg_core.pseudo_labels.caption import (
    CaptionOptions,
    ParsedCaption,
    caption_labels,
    named_by,
)

from ...helpers.scenes import VOCABULARY, at, scattered, scene, shuffled

# As a parser would have it; what is its own base form is left out.
LEMMAS = dict(
    dogs='dog',
    men='man',
    phones='phone',
    scissors='scissor',
    meters='meter',
    parking='park',
    houses='house',
    riding='ride',
    **{'is': 'be'},
)


def parsed(text, subject):
    """A caption whose subject has this head, parsed by hand."""
    words = tuple(text.lower().split())
    lemmas = tuple(LEMMAS.get(word, word) for word in words)
    return ParsedCaption(words, lemmas, words.index(subject), 2)


def make(items, *captions, parse=None, dropped=None, **options):
    """Labels of captions given as (text, head of the subject)."""
    parsings = {text: head and parsed(text, head) for text, head in captions}
    known = scene(*items, captions=tuple(parsings))
    options = CaptionOptions(**options)
    return caption_labels(known, VOCABULARY, parsings.get, options, dropped)


DOG, MAN, CUP = at(100, 240), at(300, 240, 'man'), at(500, 240, 'cup')
WALK = ('A dog walks beside a man', 'dog')


def test_a_label_is_the_whole_caption_with_the_box_of_its_subject():
    (label,) = make([MAN, DOG, CUP], WALK)
    assert (label.text, label.box) == ('A dog walks beside a man', DOG.box)
    assert (label.entities, label.score) == (2, DOG.score)


@pytest.mark.parametrize(
    ('text', 'head', 'name'),
    [
        ('a dog runs', 'dog', 'dog'),
        ('two dogs run', 'dogs', 'dog'),
        ('several men', 'men', 'man'),
        ('scissors on a desk', 'scissors', 'scissors'),  # whose lemma is no class
        ('a red fire hydrant', 'hydrant', 'fire hydrant'),
        ('two cell phones', 'phones', 'cell phone'),
        ('two parking meters', 'meters', 'parking meter'),
        ('two dogs houses', 'houses', 'dog house'),
        ('a hot dog on a plate', 'dog', 'hot dog'),
        ('the blue pick up truck', 'truck', 'pick up truck'),
        pytest.param(
            *('a t shirt on a bed', 'shirt', 't-shirt'),
        ),
        pytest.param(
            # Of Objects365.
            *('skating and skiing shoes lie there', 'shoes'),
            'skating and skiing shoes',
        ),
    ],
)
def test_a_class_is_meant_if_it_is_the_head_noun(text, head, name):
    assert named_by(parsed(text, head), [name, 'zebra'], VOCABULARY) == {name}


@pytest.mark.parametrize(
    ('text', 'head'),
    [
        ('a man walks a dog', 'man'),
        ('a bulldog sleeps', 'bulldog'),
        ('a dog house', 'house'),
        ('a doghouse', 'doghouse'),
        ('a house of a dog', 'house'),
    ],
)
def test_what_is_no_head_noun_is_not_meant(text, head):
    assert named_by(parsed(text, head), ['dog'], VOCABULARY) == set()
    assert make([DOG], (text, head)) == []


@pytest.mark.parametrize(
    ('text', 'head', 'name'),
    [
        ('a puppy', 'puppy', 'dog'),
        ('a boy', 'boy', 'person'),
        ('several men', 'men', 'person'),  # by its base form
        ('a person', 'person', 'girl'),
        ('a bike', 'bike', 'bicycle'),
        ('a bicycle', 'bicycle', 'bike'),
        ('a smartphone', 'smartphone', 'cell phone'),
        ('two mobile phones', 'phones', 'cell phone'),
        ('a cell phone', 'phone', 'phone'),
        ('a table', 'table', 'dining table'),
    ],
)
def test_a_synonym_of_the_head_noun_is_meant(text, head, name):
    assert named_by(parsed(text, head), [name, 'zebra'], VOCABULARY) == {name}


@pytest.mark.parametrize(
    ('text', 'head', 'name'),
    [
        ('a man', 'man', 'woman'),  # both are persons, and not the same
        ('a kitten', 'kitten', 'dog'),
        ('a puppy', 'puppy', 'hot dog'),
    ],
)
def test_a_synonym_of_a_synonym_is_not_meant(text, head, name):
    assert named_by(parsed(text, head), [name], VOCABULARY) == set()


def test_what_is_a_synonym_is_a_word_list():
    own = replace(VOCABULARY, synonyms=dict(zebra=['horse', 'striped horse']))
    for text, head in (('a horse', 'horse'), ('a striped horse', 'horse')):
        assert named_by(parsed(text, head), ['zebra'], own) == {'zebra'}
    assert named_by(parsed('a puppy', 'puppy'), ['dog'], own) == set()


@pytest.mark.parametrize(
    ('text', 'head', 'names', 'longest'),
    [
        ('a hot dog', 'dog', {'dog', 'hot dog'}, 'hot dog'),
        ('a red traffic light', 'light', {'light', 'traffic light'}, 'traffic light'),
        ('a wine glass', 'glass', {'wine', 'wine glass'}, 'wine glass'),
        ('a dog', 'dog', {'dog', 'hot dog'}, 'dog'),
    ],
)
def test_the_whole_name_is_meant_and_not_a_part_of_it(text, head, names, longest):
    assert named_by(parsed(text, head), sorted(names), VOCABULARY) == {longest}


def test_a_name_and_its_synonym_are_both_meant():
    items = [at(100, 240, 'man'), at(500, 240, 'person')]
    assert len(make(items, ('a man', 'man'))) == 2
    assert make(items, ('a man', 'man'), keep_ambiguous=False) == []


DOGS = [at(60 + 70 * i, 240, size=(60, 80), score=0.2 + i / 10) for i in range(8)]


@pytest.mark.parametrize('count', [1, 2, 3, 6])
def test_an_ambiguous_caption_is_kept_for_each_box_or_dropped(count):
    items = [*DOGS[:count], MAN, CUP]
    found = make(items, WALK, min_area=0)
    assert {label.text for label in found} == {WALK[0]}
    surest = DOGS[:count][::-1]
    assert [label.box for label in found] == [item.box for item in surest]
    clear = make(items, WALK, min_area=0, keep_ambiguous=False)
    assert clear == (found if count == 1 else [])
    assert {x.rule for x in found} == {'one box' if count == 1 else 'several boxes'}


@pytest.mark.parametrize(('most', 'count'), [(6, 6), (1, 1), (7, 7), (99, 8)])
def test_an_image_has_at_most_so_many_labels_the_surest(most, count):
    found = make(DOGS, WALK, expressions=most)
    assert [label.box for label in found] == [d.box for d in DOGS[::-1]][:count]
    assert len(make(DOGS, WALK)) == 6  # specification 3


def test_the_limit_is_for_all_captions_together():
    captions = [(f'dog number {i}', 'dog') for i in range(4)]
    found = make(DOGS[:4], *captions, captions_per_image=0)
    assert [label.text for label in found] == ['dog number 0'] * 4 + [
        'dog number 1'
    ] * 2


@pytest.mark.parametrize(('most', 'count'), [(1, 1), (2, 2), (3, 3), (9, 4), (0, 4)])
def test_the_first_captions_are_used(most, count):
    captions = [(f'dog number {i}', 'dog') for i in range(4)]
    found = make([DOG], *captions, captions_per_image=most)
    assert [label.text for label in found] == [text for text, _ in captions[:count]]
    assert make([DOG], *captions) == make([DOG], *captions, captions_per_image=1)


@pytest.mark.parametrize(
    ('text', 'head', 'reason'),
    [
        ('一只狗在跑', 'dog', 'caption not English'),
        ('собака и dog', 'dog', 'caption not English'),
        ('123 !?', 'dog', 'caption not English'),
        ('running', None, 'caption without a subject'),
        ('a zebra', 'zebra', 'subject not detected'),
    ],
)
def test_captions_of_no_use_give_no_label_and_are_counted(text, head, reason):
    dropped = Counter()
    known = scene(DOG, captions=(text,))
    parse = {text: head and ParsedCaption((head,), (head,), 0, 1)}.get
    assert caption_labels(known, VOCABULARY, parse, dropped=dropped) == []
    assert +dropped == {reason: 1}


def test_what_else_is_left_out_is_counted():
    dropped = Counter()
    captions = [(f'dog number {i}', 'dog') for i in range(3)]
    make(DOGS, *captions, dropped=dropped)
    assert +dropped == {'further captions': 2, 'beyond the first labels': 2}
    dropped = Counter()
    make(DOGS, *captions, dropped=dropped, keep_ambiguous=False)
    assert +dropped == {'further captions': 2, 'ambiguous caption': 1}


def test_the_text_is_the_caption_but_for_spaces():
    text = '  A   Dog\nand a MAN. '
    parse = {'A Dog and a MAN.': parsed('a dog and a man', 'dog')}.get
    (label,) = caption_labels(scene(DOG, captions=(text,)), VOCABULARY, parse)
    assert label.text == 'A Dog and a MAN.'


def test_the_rules_of_cleaning_apply():
    small, double = at(100, 60, size=(30, 30)), at(102, 240, score=0.5)
    assert make([DOG, small, double], WALK) == make([DOG], WALK)
    assert len(make([DOG, small, double], WALK, min_area=0, max_iou=1)) == 3


@pytest.mark.parametrize('name', ['jacket', 'cap', 'jeans', 'boots'])
def test_a_caption_may_be_about_clothes(name):
    item = at(300, 240, name, (20, 20))
    (label,) = make([item, DOG], (f'a {name} on a hook', name))
    assert label.box == item.box


def test_attributes_and_places_are_no_part_of_the_name():
    red = replace(DOG, attribute='red', attribute_score=0.9)
    (label,) = make([red], WALK)
    assert (label.text, label.box) == (WALK[0], DOG.box)


@pytest.mark.parametrize('seed', range(5))
def test_the_order_of_the_detections_does_not_matter(seed):
    items = scattered(seed, ['dog', 'cup', 'hot dog'], 14)
    found = make(items, WALK)
    assert found and make(shuffled(items, seed), WALK) == found


@pytest.mark.parametrize(('items', 'captions'), [([], [WALK]), ([DOG], []), ([], [])])
def test_nothing_comes_of_nothing(items, captions):
    assert make(items, *captions) == []
