"""Relation labels: sure, real, different triplets, the surest first."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from projects.clip_vg_core.pseudo_labels.detection import Detection, Triplet, iou
from projects.clip_vg_core.pseudo_labels.relation import (
    RelationOptions,
    relation_labels,
)

from ...helpers.scenes import SIZE, VOCABULARY, at, scene, shuffled

NAN = float('nan')
MAN, CUP = at(200, 240, 'man'), at(400, 240, 'cup')
GOOD = Triplet(MAN, 'holding', CUP)


def make(*triplets, dropped=None, **options):
    return relation_labels(
        scene(triplets=triplets), VOCABULARY, RelationOptions(**options), dropped
    )


def edges(seed, count=40):
    """Random triplets of different words, so that none is a double."""
    rng = np.random.default_rng(seed)
    return [
        Triplet(
            at(*(rng.uniform(100, 300, 2).tolist()), f'man{i}', score=scores[0]),
            'holding',
            at(*(rng.uniform(100, 300, 2).tolist()), f'cup{i}', score=scores[1]),
            scores[2],
        )
        for i, scores in enumerate(rng.uniform(0.1, 1, (count, 3)).tolist())
    ]


def product(triplet):
    return triplet.subject.score * triplet.object.score * triplet.score


def said(triplet):
    return f'{triplet.subject.name} {triplet.predicate} {triplet.object.name}'


def test_a_label_is_subject_predicate_object_with_the_box_of_the_subject():
    (label,) = make(GOOD)
    assert (label.text, label.box) == ('man holding cup', MAN.box)
    assert (label.entities, label.words) == (2, {'relation'})
    assert label.rule == 'holding'


@pytest.mark.parametrize('part', ['subject', 'object', 'predicate'])
@pytest.mark.parametrize(
    ('score', 'kept'), [(0.201, True), (0.2, False), (0.1, False), (0.0, False)]
)
def test_subject_object_and_predicate_must_each_be_sure(part, score, kept):
    edge = {
        'subject': replace(GOOD, subject=replace(MAN, score=score)),
        'object': replace(GOOD, object=replace(CUP, score=score)),
        'predicate': replace(GOOD, score=score),
    }[part]
    assert [label.text for label in make(edge)] == ['man holding cup'] * kept


@pytest.mark.parametrize('least', [0.0, 0.2, 0.5])
@pytest.mark.parametrize('most', [1, 10, 100])
@pytest.mark.parametrize('seed', range(3))
def test_the_surest_by_the_product_of_their_scores_are_kept(least, most, seed):
    items = edges(seed)
    sure = [t for t in items if all(s > least for s in (t.score, t.subject.score))]
    sure = [t for t in sure if t.object.score > least]
    best = sorted(sure, key=product, reverse=True)[:most]
    found = make(*items, min_score=least, expressions=most)
    assert [label.text for label in found] == [said(t) for t in best]
    assert [label.box for label in found] == [t.subject.box for t in best]
    assert [label.score for label in found] == pytest.approx([product(t) for t in best])


def test_by_default_at_most_ten_above_two_tenths():
    items = edges(0)
    assert make(*items) == make(*items, min_score=0.2, expressions=10)
    assert relation_labels(scene(triplets=tuple(items)), VOCABULARY) == make(*items)
    assert len(make(*items)) == 10


def test_of_equally_sure_ones_the_earlier_are_kept():
    items = [replace(GOOD, predicate=f'p{i}') for i in range(12)]
    assert [label.rule for label in make(*items)] == [f'p{i}' for i in range(10)]


@pytest.mark.parametrize('seed', range(5))
def test_the_order_of_the_triplets_does_not_matter(seed):
    items = edges(0)
    assert make(*shuffled(items, seed)) == make(*items)


@pytest.mark.parametrize(
    'nothing',
    [
        *('__background__', 'background', 'n/a', '__no_relation__', 'no relation'),
        *('no-relation', 'no_relation'),
    ],
)
def test_background_and_no_relation_give_no_label(nothing):
    bad = [
        replace(GOOD, subject=replace(MAN, name=nothing)),
        replace(GOOD, object=replace(CUP, name=nothing)),
        replace(GOOD, predicate=nothing),
    ]
    dropped = Counter()
    assert make(*bad, GOOD, dropped=dropped) == make(GOOD)
    assert dropped['background'] == 3


def test_what_is_background_is_a_word_list():
    own = replace(VOCABULARY, background=['holding'])
    assert relation_labels(scene(triplets=(GOOD,)), own) == []


@pytest.mark.parametrize(
    'box',
    [
        (300, 100, 100, 300),
        (100, 300, 300, 100),
        (100, 100, 100, 300),
        (NAN, 100, 300, 300),
        (100, 100, 300, NAN),
        (640, 100, 900, 300),
        (-50, -50, 0, 0),
    ],
)
@pytest.mark.parametrize('part', ['subject', 'object'])
def test_a_triplet_with_an_invalid_box_gives_no_label(box, part):
    bad = replace(GOOD, **{part: Detection('dog', box)})
    dropped = Counter()
    assert make(bad, GOOD, dropped=dropped) == make(GOOD)
    assert sum(dropped.values()) == 1


def test_a_box_is_cut_at_the_border_of_the_image():
    (label,) = make(replace(GOOD, subject=Detection('man', (-5, -7, 900, 700))))
    assert label.box == (0, 0, *SIZE)


@pytest.mark.parametrize('copies', [2, 5, 20])
def test_a_double_is_said_once_and_takes_no_place(copies):
    items = edges(3)
    doubles = [t for t in items for _ in range(copies)]
    assert make(*doubles) == make(*items)


def test_of_doubles_the_surest_is_kept():
    unsure = replace(GOOD, score=0.5)
    near = replace(GOOD, subject=replace(MAN, box=at(203, 240).box), score=0.7)
    for order in ((unsure, near, GOOD), (GOOD, near, unsure)):
        assert make(*order) == make(GOOD)


@pytest.mark.parametrize(
    'other',
    [
        replace(GOOD, subject=replace(MAN, box=at(500, 240).box)),  # another man
        replace(GOOD, subject=replace(MAN, name='woman')),
        replace(GOOD, object=replace(CUP, name='ball')),
        replace(GOOD, predicate='near'),
    ],
)
def test_other_words_or_another_subject_make_no_double(other):
    assert len(make(GOOD, other)) == 2


def test_from_which_overlap_subjects_are_one_is_an_option():
    near = replace(GOOD, subject=replace(MAN, box=at(230, 240).box))
    overlap = iou(MAN.box, near.subject.box)
    assert len(make(GOOD, near, max_iou=overlap)) == 2
    assert len(make(GOOD, near, max_iou=overlap - 1e-9)) == 1


def test_texts_that_fit_several_subjects_can_be_left_out():
    other = replace(GOOD, subject=replace(MAN, box=at(500, 240).box), score=0.9)
    near = replace(GOOD, predicate='near')
    assert len(make(GOOD, other, near)) == 3
    assert make(GOOD, other, near, unique=True) == make(near)
    assert make(GOOD, GOOD, unique=True) == make(GOOD)


def test_what_is_left_out_is_counted():
    items = [*edges(0), *edges(0), replace(GOOD, predicate='background')]
    items += [replace(GOOD, subject=at(-99, -99)), replace(GOOD, score=0.2)]
    dropped = Counter()
    labels = make(*items, dropped=dropped)
    assert sum(dropped.values()) == len(items) - len(labels)
    assert dropped['background'] == 1
    unsure = [t for t in items if t.score <= 0.2 or t.subject.score <= 0.2]
    assert dropped['not sure'] >= len(unsure) > 0
    assert dropped['double'] > 0 and dropped['beyond the surest'] > 0


def test_nothing_comes_of_nothing():
    assert make() == []
