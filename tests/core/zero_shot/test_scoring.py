"""Which of hand-made boxes expressions mean."""

import itertools

import numpy as np
import pytest

from projects.clip_vg_core.zero_shot.expression import parse_expression
from projects.clip_vg_core.zero_shot.scoring import (
    GeometryWeights,
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


def test_overlaps():
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]], float)
    expected = [[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 1]]
    np.testing.assert_allclose(overlaps(boxes), expected)
