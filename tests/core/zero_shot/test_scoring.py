"""Which of hand-made boxes expressions mean."""

import itertools
import math

import numpy as np
import pytest

from projects.clip_vg_core.zero_shot.expression import parse_expression
from projects.clip_vg_core.zero_shot.scoring import (
    GeometryWeights,
    between_scores,
    ground_parsed,
    overlaps,
    rank_scores,
    relation_scores,
)

SIZE = (100, 100)
# A row of three stars, the last one large, and a square below the second.
BOXES = np.array(
    [[5, 10, 15, 20], [40, 10, 50, 20], [70, 5, 95, 30], [38, 60, 52, 74]], float
)
LOGITS = {
    'star': np.array([20.0, 21.0, 19.5, 2.0]),
    'square': np.array([1.0, 0.0, 2.0, 20.0]),
}
LOGITS['stars'] = LOGITS['star']


def best(text, **options):
    weights = GeometryWeights(**options)
    return int(
        ground_parsed(parse_expression(text), BOXES, SIZE, LOGITS, weights).argmax()
    )


@pytest.mark.parametrize(
    'text, expected',
    [
        ('star', 1),
        ('square', 3),
        ('left star', 0),
        ('right star', 2),
        ('second star from the left', 1),
        ('third star from the left', 2),
        ('star in the middle', 1),
        ('biggest star', 2),
        ('tallest star', 2),
        ('smallest square', 3),
        ('lowest thing', 3),
        ('leftmost object', 0),
        ('star above the square', 1),
        ('star left of the square', 0),
        ('star right of the square', 2),
        ('thing below the star in the middle', 3),
        ('star between the left star and the right star', 1),
        ('thing between two stars', 1),
        ('star in the bottom left corner', 0),
        ('top right thing', 2),
    ],
)
def test_what_is_meant(text, expected):
    assert best(text) == expected


@pytest.mark.parametrize(
    'text, option',
    [
        ('left star', 'place'),
        ('biggest star', 'size'),
        ('star left of the square', 'relation'),
    ],
)
def test_a_signal_that_is_switched_off_does_not_count(text, option):
    parsed = parse_expression(text)
    off = GeometryWeights(**{option: 0.0})
    plain = ground_parsed(parse_expression('star'), BOXES, SIZE, LOGITS)
    assert best(text) != 1
    np.testing.assert_allclose(ground_parsed(parsed, BOXES, SIZE, LOGITS, off), plain)


@pytest.mark.parametrize('text', ['star', 'left star', 'star left of the square'])
def test_probabilities_add_up_and_follow_their_boxes(text):
    parsed = parse_expression(text)
    values = ground_parsed(parsed, BOXES, SIZE, LOGITS)
    assert np.exp(values).sum() == pytest.approx(1)
    order = [2, 0, 3, 1]
    moved = {key: value[order] for key, value in LOGITS.items()}
    np.testing.assert_allclose(
        ground_parsed(parsed, BOXES[order], SIZE, moved), values[order]
    )


def test_a_second_box_of_an_object_is_not_before_it():
    boxes = np.concatenate([BOXES, BOXES[:1] + 1])
    logits = {key: np.append(value, value[0]) for key, value in LOGITS.items()}
    parsed = parse_expression('left star')
    shares = np.exp(ground_parsed(parsed, boxes, SIZE, logits))
    assert shares[0] == pytest.approx(shares[4], rel=0.2)
    second = parse_expression('second star from the left')
    assert ground_parsed(second, boxes, SIZE, logits).argmax() == 1


def reference_rank(values, fits, rank):
    """Sums the probabilities of all subsets of boxes that fit."""
    result = np.zeros(len(values))
    for subset in itertools.product((0, 1), repeat=len(values)):
        probability = np.prod(np.where(subset, fits, 1 - np.array(fits)))
        for i, value in enumerate(values):
            before = sum(
                s for j, s in enumerate(subset) if j != i and values[j] < value
            )
            result[i] += probability * (before == rank - 1)
    return result


@pytest.mark.parametrize('rank', [1, 2, 3])
def test_ranks_are_those_of_all_subsets(rank):
    rng = np.random.default_rng(0)
    values, fits = rng.permutation(5) * 10.0, rng.random(5)
    np.testing.assert_allclose(
        rank_scores(values, fits, 1e-3, rank),
        reference_rank(values, fits, rank),
        atol=1e-12,
    )


@pytest.mark.parametrize(
    'relation, subject, anchor',
    [
        ('left of', 0, 1),
        ('right of', 2, 1),
        ('above', 1, 3),
        ('below', 3, 1),
    ],
)
def test_directions(relation, subject, anchor):
    scores = relation_scores(relation, BOXES, 2.0)
    assert scores[subject, anchor] > 0.99
    assert scores[anchor, subject] < 0.01


def test_places_to_each_other():
    table, cup, far = [20, 50, 80, 90], [40, 38, 52, 56], [1, 1, 9, 9]
    boxes = np.array([table, cup, far, [45, 60, 50, 65]], float)
    on = relation_scores('on', boxes, 2.0)
    assert on[1, 0] > 0.9 and on[0, 1] < 0.1 and on[2, 0] < 0.1
    assert relation_scores('inside', boxes, 2.0)[3, 0] == 1
    near = relation_scores('next to', boxes, 2.0)
    assert near[1, 0] == 1 and near[2, 0] < 0.5
    front = relation_scores('in front of', boxes, 2.0)
    assert front[0, 1] > 0.9 > 0.1 > relation_scores('behind', boxes, 2.0)[0, 1]


def reference_between(boxes, anchors, others, same):
    """Walks over all triples of boxes."""
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    result, total = np.zeros(len(boxes)), 0.0
    for j, k in itertools.permutations(range(len(boxes)), 2):
        if same[j, k] or not anchors[j] * others[k]:
            continue
        total += anchors[j] * others[k]
        for i in range(len(boxes)):
            if same[i, j] or same[i, k]:
                continue
            one, two = centers[j] - centers[i], centers[k] - centers[i]
            cosine = one @ two / (math.hypot(*one) * math.hypot(*two))
            result[i] += anchors[j] * others[k] * max(0.0, -cosine)
    return result / total


@pytest.mark.parametrize('seed', range(4))
def test_between_is_the_mean_over_all_pairs_of_anchors(seed):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 80, (9, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 40, (9, 2))], 1)
    boxes = np.concatenate([boxes, boxes[:2] + 1])  # doubles of two objects
    anchors, others = rng.dirichlet(np.ones(11), 2)
    same = overlaps(boxes) > 0.5
    found = between_scores(boxes, anchors, others, same)
    np.testing.assert_allclose(found, reference_between(boxes, anchors, others, same))
    np.testing.assert_allclose(found, between_scores(boxes, others, anchors, same))
    assert 0 <= found.min() < found.max() <= 1


def test_between_in_a_row_and_at_its_ends():
    boxes = np.array([[0, 0, 10, 10], [40, 0, 50, 10], [90, 0, 99, 10]], float)
    first, last = np.eye(3)[[0, 2]]
    same = np.eye(3, dtype=bool)
    assert between_scores(boxes, first, last, same) == pytest.approx(
        [0, 1, 0], abs=1e-3
    )
    one = np.array([[0, 0, 10, 10]], float)  # no two anchors
    assert between_scores(one, np.ones(1), np.ones(1), same[:1, :1]).tolist() == [0]


def test_hundreds_of_boxes_have_the_likeliest_anchors():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 400, (200, 2))
    boxes = np.concatenate([corners, corners + 20], 1)
    likely = np.full(200, 1e-9)
    likely[[3, 170]] = 0.5
    found = between_scores(boxes, likely, likely, np.eye(200, dtype=bool))
    pair = np.array([3, 170])
    only = np.zeros(200)
    only[pair] = 0.5
    np.testing.assert_allclose(
        found, reference_between(boxes, only, only, np.eye(200, dtype=bool)), atol=1e-6
    )


def test_overlaps():
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]], float)
    expected = [[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 1]]
    np.testing.assert_allclose(overlaps(boxes), expected)
