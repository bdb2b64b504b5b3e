"""Attributes: the surest if it is sure, said once, and copied to the same object."""

from dataclasses import replace

import pytest

from projects.clip_vg_core.pseudo_labels.cleaning import (
    best_attribute,
    copy_attributes,
    use_attribute,
)
from projects.clip_vg_core.pseudo_labels.detection import Detection, iou

from ...helpers.scenes import VOCABULARY, at, scattered, shuffled

BOX = (0, 0, 100, 100)


def named(name, attribute, sure=0.9, box=BOX):
    return Detection(name, box, 0.5, attribute, sure)


@pytest.mark.parametrize('best', ['red', 'blue', 'old'])
def test_the_attribute_of_the_largest_score_is_the_best(best):
    scores = dict(red=0.2, blue=0.2, old=0.2)
    scores[best] = 0.21
    assert best_attribute(scores) == (best, 0.21)


def test_no_scores_no_attribute():
    assert best_attribute({}) == (None, 0)


@pytest.mark.parametrize(
    ('sure', 'phrase'),
    [(0.3001, 'red cup'), (1.0, 'red cup'), (0.3, 'cup'), (0.2, 'cup'), (0.0, 'cup')],
)
def test_an_attribute_is_said_only_above_the_least_score(sure, phrase):
    assert use_attribute(named('cup', 'red', sure)).phrase == phrase


@pytest.mark.parametrize('least', [0.0, 0.5, 0.9])
def test_the_least_score_is_an_option(least):
    said = [s for s in (0, 0.1, 0.5, 0.6, 0.9, 0.95) if s > least]
    items = [named('cup', 'red', s) for s in (0, 0.1, 0.5, 0.6, 0.9, 0.95)]
    found = [use_attribute(item, least) for item in items]
    assert [f.attribute_score for f in found if f.attribute] == said


@pytest.mark.parametrize(
    ('name', 'attribute', 'rest'),
    [
        ('wooden table', 'wooden', 'table'),
        ('old wooden table', 'wooden', 'old table'),
        ('old wooden table', 'old', 'wooden table'),
        ('table', 'wooden', 'table'),
        ('redhead', 'red', 'redhead'),  # a part of a word is no part of the name
        pytest.param(
            *('light blue shirt', 'light blue', 'shirt'),
        ),
    ],
)
def test_an_attribute_in_the_name_is_said_once(name, attribute, rest):
    found = use_attribute(named(name, attribute))
    assert (found.name, found.phrase) == (rest, f'{attribute} {rest}')


@pytest.mark.parametrize('sure', [0.3, 0.1])
def test_an_attribute_that_is_not_said_stays_in_the_name(sure):
    assert use_attribute(named('wooden table', 'wooden', sure)).phrase == 'wooden table'


def test_a_class_that_is_its_attribute_keeps_its_name():
    assert use_attribute(named('orange', 'orange')).phrase == 'orange'


@pytest.mark.parametrize(
    ('name', 'attribute'), [('wine glass', 'glass'), ('traffic light', 'light')]
)
def test_the_noun_of_a_class_is_not_taken_for_an_attribute(name, attribute):
    assert use_attribute(named(name, attribute)).name == name


def test_the_object_is_otherwise_as_it_was():
    item = named('wooden table', 'wooden', 0.7)
    assert replace(use_attribute(item), name=item.name) == item
    plain = at(50, 50, 'table')
    assert use_attribute(plain) == plain


def copied(item, *described):
    (found,) = copy_attributes([item], described, VOCABULARY)
    assert replace(found, attribute=None, attribute_score=0) == item
    return found.attribute, found.attribute_score


# Of (0, 0, 75, 100): 50 / (75 + 75 - 50) is 0.5.
HALF, MORE = (25, 0, 100, 100), (24.9, 0, 99.9, 100)


@pytest.mark.parametrize(
    ('name', 'box', 'got'),
    [
        ('cup', MORE, 'red'),
        ('cup', HALF, None),
        ('cup', (200, 0, 275, 100), None),
        ('mug', MORE, None),  # a synonym is not the same class
        ('woman', MORE, None),
        ('cap', MORE, None),
    ],
)
def test_an_attribute_is_copied_to_the_same_class_at_the_same_place(name, box, got):
    item = Detection('cup', (0, 0, 75, 100))
    other = named(name, 'red', 0.8, box)
    assert copied(item, other) == ((got, 0.8) if got else (None, 0))


def test_the_least_iou_is_an_option():
    item, other = at(50, 50), at(60, 50, attribute='red', attribute_score=0.8)
    overlap = iou(item.box, other.box)
    for least, got in ((overlap - 1e-9, 'red'), (overlap, None)):
        found = copy_attributes([item], [other], VOCABULARY, least)
        assert [f.attribute for f in found] == [got]


def test_the_attribute_of_the_largest_overlap_is_copied():
    others = [
        at(50 + shift, 50, attribute=word, attribute_score=0.5)
        for shift, word in ((12, 'red'), (3, 'blue'), (-8, 'old'), (0, None))
    ]
    for seed in range(6):
        assert copied(at(50, 50), *shuffled(others, seed)) == ('blue', 0.5)


def test_each_object_gets_its_own_attribute_and_none_is_lost():
    described = scattered(0, ['cup', 'dog', 'man'], 10)
    words = [f'colour{i}' for i in range(len(described))]
    described = [
        replace(item, attribute=word, attribute_score=0.6)
        for item, word in zip(described, words, strict=True)
    ]
    plain = [replace(item, attribute=None, attribute_score=0) for item in described]
    found = copy_attributes(plain, shuffled(described, 1), VOCABULARY)
    assert found == described


def test_an_unsure_attribute_does_not_replace_a_sure_one():
    item = named('cup', 'red', 0.9)
    (found,) = copy_attributes([item], [named('cup', 'blue', 0.1)], VOCABULARY)
    assert use_attribute(found).phrase == 'red cup'


def test_an_unsure_attribute_does_not_hide_a_sure_one():
    unsure, sure = named('cup', 'blue', 0.1), named('cup', 'red', 0.9, (0, 0, 90, 100))
    (found,) = copy_attributes([Detection('cup', BOX)], [unsure, sure], VOCABULARY)
    assert use_attribute(found).phrase == 'red cup'
