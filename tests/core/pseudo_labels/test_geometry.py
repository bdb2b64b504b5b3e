"""Geometric relations: fixed rules that hold however the image is turned and scaled."""

import itertools
from collections import Counter
from dataclasses import replace

import pytest

from projects.clip_vg_core.pseudo_labels.detection import intersection
from projects.clip_vg_core.pseudo_labels.geometry import (
    GeometryOptions,
    geometry_labels,
    predicates,
    relation_word,
)

from ...helpers.scenes import VOCABULARY, at, scattered, scene, shuffled

# Specification 2.
ALL = {'left of', 'right of', 'above', 'below', 'on', 'inside', 'next to'}
CONVERSE = {
    'left of': 'right of',
    'right of': 'left of',
    'above': 'below',
    'below': 'above',
    'next to': 'next to',
}
BOX = (100, 100, 200, 200)
SAID = {'inside': 'in front of'}  # of classes that hold nothing


def how(subject, other=BOX):
    return set(predicates(subject, other))


@pytest.mark.parametrize(
    ('subject', 'expected'),
    [
        ((0, 100, 40, 200), {'left of'}),  # 60 away: more than half of 40
        ((0, 100, 80, 200), {'left of', 'next to'}),
        ((60, 100, 80, 200), {'left of'}),  # half of 20 is 10
        ((60, 100, 90, 200), {'left of', 'next to'}),
        ((220, 100, 300, 200), {'right of', 'next to'}),
        ((200, 150, 300, 250), {'right of', 'next to'}),  # half beside it
        ((200, 151, 300, 251), set()),  # less than half, and not below
        ((0, 0, 90, 400), {'left of', 'next to'}),  # of the lower one
        ((100, 0, 200, 90), {'above'}),
        ((150, 0, 250, 90), {'above'}),
        ((151, 0, 251, 90), set()),
        ((100, 210, 200, 300), {'below'}),
        ((120, 0, 180, 110), {'on'}),  # a cup on a table
        ((120, 0, 180, 150), {'on'}),
        ((120, 0, 180, 151), set()),  # too deep
        ((150, 0, 250, 110), {'on'}),  # half above it
        ((151, 0, 251, 110), set()),
        ((160, 110, 230, 140), set()),  # not above it
        ((120, 100, 180, 150), {'inside'}),
        ((120, 110, 180, 140), {'inside'}),
        ((120, 92, 160, 172), {'inside'}),  # 72 of 80 rows: 90 %
        ((120, 91, 160, 171), set()),
        ((100, 100, 200, 150), {'inside'}),  # half as large
        ((100, 100, 200, 151), set()),
        ((0, 0, 300, 300), set()),  # around it
        (BOX, set()),
    ],
)
def test_how_a_box_lies_to_another(subject, expected):
    assert how(subject) == expected


def test_what_stands_exactly_on_top_is_on_it():
    assert 'on' in how((120, 0, 180, 100))


def pairs(count=14):
    """Pairs of boxes of all kinds: far, near, overlapping and nested."""
    near = [item.box for item in scattered(0, ['dog'], count)]
    small = [item.box for item in scattered(1, ['dog'], count, size=(100, 100))]
    return list(itertools.permutations([*near, *small, BOX], 2))


def test_every_predicate_occurs_and_no_other():
    found = Counter(p for pair in pairs() for p in predicates(*pair))
    assert set(found) == ALL
    assert found['left of'] == found['right of'] and found['above'] == found['below']


def test_seen_from_the_other_side_the_converse_holds():
    for one, other in pairs():
        converse = {CONVERSE[p] for p in how(one, other) if p in CONVERSE}
        assert converse == how(other, one) & set(CONVERSE)


def test_nothing_holds_twice_or_with_its_contrary():
    for one, other in pairs():
        found = list(predicates(one, other))
        assert len(found) == len(set(found))
        assert not {'left of', 'right of'} <= set(found)
        assert not {'above', 'below'} <= set(found)
        assert not {'on', 'inside'} <= set(found)
        # One thing is in or on another, not the other way round as well.
        assert not {'on', 'inside'} & set(found) & how(other, one)


def test_apart_or_together():
    for one, other in pairs():
        together = bool(intersection(one, other))
        assert not how(one, other) & (set(CONVERSE) if together else {'on', 'inside'})


def mapped(box, function):
    """The box around two corners that a function moves."""
    xs, ys = zip(*(function(*box[i : i + 2]) for i in (0, 2)), strict=True)
    return min(xs), min(ys), max(xs), max(ys)


@pytest.mark.parametrize(
    ('function', 'renamed', 'same'),
    [
        (lambda x, y: (4 * x + 64, 4 * y - 32), {}, ALL),
        (
            lambda x, y: (-x, y),
            {'left of': 'right of', 'right of': 'left of'},
            ALL,
        ),
        (
            lambda x, y: (x, -y),
            {'above': 'below', 'below': 'above'},
            ALL - {'on'},
        ),
        (
            lambda x, y: (y, x),
            {
                **{'left of': 'above', 'above': 'left of'},
                **{'right of': 'below', 'below': 'right of'},
            },
            ALL - {'on', 'next to'},
        ),
    ],
    ids=['scaled and moved', 'mirrored', 'upside down', 'transposed'],
)
def test_relations_follow_the_image(function, renamed, same):
    for one, other in pairs():
        expected = {renamed.get(p, p) for p in how(one, other) & same}
        assert how(mapped(one, function), mapped(other, function)) & same == expected


MAN = at(100, 240, 'man', (100, 200), score=0.9)
DOG = at(300, 300, 'dog', (100, 100), score=0.8)
CUP = at(500, 300, 'cup', (80, 80), score=0.7)


def make(*items, describe=None, dropped=None, **options):
    return geometry_labels(
        scene(*items), VOCABULARY, GeometryOptions(**options), describe, dropped
    )


def texts(*items, **options):
    return [label.text for label in make(*items, **options)]


def test_every_pair_is_said_both_ways_with_the_box_of_the_first():
    found = make(MAN, DOG)
    assert {(label.text, label.box) for label in found} == {
        ('man left of dog', MAN.box),
        ('dog right of man', DOG.box),
    }
    assert [label.score for label in found] == pytest.approx([0.9 * 0.8] * 2)
    assert all((x.entities, x.words) == (2, {'relation'}) for x in found)


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('man', {'cup in front of man'}),
        ('tv', {'cup in front of tv'}),
        ('bowl', {'cup inside bowl'}),
        ('cardboard box', {'cup inside cardboard box'}),
        ('dining table', {'cup on dining table'}),
        ('bus', set()),  # a driver, or who waits for it
    ],
)
def test_a_box_within_another_is_inside_of_containers_alone(name, expected):
    inner, outer = at(300, 240, 'cup', (100, 100)), at(300, 240, name, (300, 400))
    dropped = Counter()
    assert {label.text for label in make(inner, outer, dropped=dropped)} == expected
    assert dropped['boxes do not tell how they lie'] == (name == 'bus')


def test_an_attribute_does_not_make_another_class_of_an_object():
    red = dict(attribute='red', attribute_score=0.9)
    inner, bowl = at(300, 240, 'cup', (90, 90)), at(300, 240, 'bowl', (300, 300), **red)
    assert texts(inner, bowl) == ['cup inside red bowl']


def test_other_predicates_are_said_as_they_are():
    for predicate, name in itertools.product(ALL - {'inside'}, ('bus', 'bowl', 'bed')):
        assert relation_word(predicate, 'cup', name, VOCABULARY) == predicate


@pytest.mark.parametrize(
    ('subject', 'name', 'expected'),
    [
        ('man', 'horse', {'man on horse'}),
        ('man', 'woman', {'man behind woman'}),  # not on her
        ('elephant', 'elephant', {'elephant behind elephant'}),
        ('laptop', 'man', set()),
    ],
)
def test_nothing_is_on_a_person_or_on_its_like(subject, name, expected):
    upper, lower = at(300, 150, subject, (120, 200)), at(300, 300, name, (300, 200))
    assert 'on' in how(upper.box, lower.box)
    assert {label.text for label in make(upper, lower)} == expected


@pytest.mark.parametrize('seed', range(5))
def test_labels_are_the_relations_between_all_objects(seed):
    items = scattered(seed, ['man'], 8)
    items = [replace(item, name=f'thing{i}') for i, item in enumerate(items)]
    found = {(x.text, x.box) for x in make(*items, expressions=999, max_iou=1.0)}
    assert found and found == {
        (f'{one.name} {SAID.get(predicate, predicate)} {other.name}', one.box)
        for one, other in itertools.permutations(items, 2)
        for predicate in predicates(one.box, other.box)
    }


@pytest.mark.parametrize('most', [1, 4, 10])
def test_those_of_the_surest_objects_are_kept(most):
    items = [
        at(60 + 70 * i, 240, f'thing{i}', (60, 90), score=0.3 + i / 10)
        for i in range(7)
    ]
    everything = make(*items, expressions=999)
    found = make(*items, expressions=most)
    assert len(found) == most and len(everything) == 2 * 7 * 3 + 2 * 6
    assert found == everything[:most]
    scores = [label.score for label in everything]
    assert scores == sorted(scores, reverse=True)
    assert make(*items) == make(*items, expressions=10)


@pytest.mark.parametrize(('score', 'kept'), [(0.2, False), (0.21, True)])
def test_both_objects_must_be_sure(score, kept):
    unsure = replace(DOG, score=score)
    assert bool(make(MAN, unsure)) is kept
    assert make(MAN, unsure, min_object_score=score) == []


def test_clothes_have_no_relations():
    cap, boots = at(300, 100, 'cap'), at(420, 300, 'boots')
    assert make(MAN, DOG, cap, boots) == make(MAN, DOG)


def test_the_rules_of_cleaning_apply():
    small, double = at(500, 100, 'cup', (40, 40)), at(302, 300, 'cat', (100, 100))
    double = replace(double, score=0.5)
    assert make(MAN, DOG, small, double) == make(MAN, DOG)
    assert len(make(MAN, DOG, small, double, min_area=0, max_iou=1)) > 2


@pytest.mark.parametrize(('sure', 'noun'), [(0.9, 'red cup'), (0.3, 'cup')])
def test_attributes_are_said(sure, noun):
    cup = replace(CUP, attribute='red', attribute_score=sure)
    assert f'man left of {noun}' not in texts(DOG, cup)
    assert {f'dog left of {noun}', f'{noun} right of dog'} <= set(texts(DOG, cup))
    assert 'dog left of cup' in texts(DOG, cup, min_attribute_score=0.95)


def test_attributes_may_come_from_elsewhere():
    def describe(known, items):
        assert known.image_id == 1 and items == [MAN, DOG]
        return [replace(i, attribute='old', attribute_score=0.9) for i in items]

    found = texts(DOG, MAN, describe=describe)
    assert set(found) == {'old man left of old dog', 'old dog right of old man'}
    assert texts(describe=describe) == []


def test_texts_that_fit_several_subjects_are_left_out():
    cups = [at(x, 300, 'cup', (80, 80), score=0.7) for x in (400, 500)]
    clear = {'man left of cup', 'cup left of cup', 'cup right of cup'}
    assert clear <= set(texts(MAN, *cups))
    # Both cups are right of the man.
    assert 'cup right of man' not in texts(MAN, *cups)
    assert texts(MAN, *cups, unique=False).count('cup right of man') == 2


def test_red_and_blue_make_a_text_clear():
    cups = [
        at(x, 300, 'cup', (80, 80), attribute=word, attribute_score=0.9)
        for x, word in ((400, 'red'), (500, 'blue'))
    ]
    assert {'red cup right of man', 'blue cup right of man'} <= set(texts(MAN, *cups))


@pytest.mark.parametrize('seed', range(5))
def test_the_order_of_the_detections_does_not_matter(seed):
    items = scattered(seed, ['man', 'dog', 'cup'], 10)
    mixed = shuffled(items, seed)
    assert set(make(*mixed, expressions=999)) == set(make(*items, expressions=999))


def test_the_order_of_the_detections_does_not_matter_at_the_limit_either():
    for seed in range(30):
        items = scattered(seed, ['man', 'dog', 'cup'], 12)
        assert set(make(*items[::-1])) == set(make(*items))


def test_what_is_left_out_is_counted():
    dropped = Counter()
    items = [*scattered(2, ['man', 'cup'], 10), at(9, 9, size=(9, 9))]
    found = make(*items, dropped=dropped, expressions=2)
    everything = make(*items, expressions=999)
    assert dropped['beyond the surest'] == len(everything) - len(found) > 0
    assert dropped['too small'] == 1
    several = make(*items, expressions=999, unique=False)
    assert dropped['text of several subjects'] == len(several) - len(everything) > 0


@pytest.mark.parametrize('items', [(), (MAN,)])
def test_fewer_than_two_objects_have_no_relation(items):
    assert make(*items) == []
