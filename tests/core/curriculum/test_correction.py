"""Correction: what is kept, moved and dropped, and which boxes are candidates."""

import numpy as np
import pytest

from projects.clip_vg_core.curriculum import correction
from projects.clip_vg_core.curriculum.correction import (
    DROPPED,
    KEPT,
    MOVED,
    candidate_boxes,
    correct_labels,
    votes_of,
)

LEFT, RIGHT, FAR = [0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]
# IoU with RIGHT 0.68 and 0.6; with nothing else.
NEAR, NEARER = [20, 0, 26, 10], [20, 0, 26.8, 10]
NONE = [np.nan] * 4


def iou(one, other):
    """Of two boxes, as one writes it down."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if not (width > 0 and height > 0):
        return 0.0
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)]
    return width * height / (sum(areas) - width * height)


def slow_correction(boxes, votes, candidates, images, candidate_images, threshold):
    """Label by label."""
    outcome, after = [], []
    for label, own in enumerate(boxes):
        mine = [vote[label] for vote in votes]
        needed = max(2, sum(np.isfinite(v).all() for v in mine) // 2 + 1)
        fits = [sum(iou(v, own) >= threshold for v in mine)]
        targets = [own]
        rank = [0.0]
        for place, box in enumerate(candidates):
            if candidate_images[place] == images[label]:
                fits.append(sum(iou(v, box) >= threshold for v in mine))
                targets.append(box)
                rank.append(sum(iou(v, box) for v in mine))
        if fits[0] >= needed:
            best, kind = 0, KEPT
        elif max(fits) >= needed:
            best = max(range(1, len(fits)), key=lambda i: (fits[i], rank[i]))
            kind = MOVED
        else:
            best, kind = 0, DROPPED
        outcome.append(kind)
        after.append(targets[best])
    return outcome, np.array(after)


def world(seed, images=60, labels=5, measurers=2):
    """Labels at objects of their image, and measurers that are often right."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 60, (images, 4, 2))
    objects = np.concatenate([corners, corners + rng.uniform(15, 40, corners.shape)], 2)
    index = np.repeat(np.arange(images), labels)
    boxes = objects[index, rng.integers(0, 4, len(index))]
    meant = objects[index, rng.integers(0, 4, len(index))]
    votes = []
    for _ in range(measurers):
        vote = meant + rng.normal(0, 3, boxes.shape)
        wrong = rng.random(len(index)) < 0.3
        vote[wrong] = objects[index, rng.integers(0, 4, len(index))][wrong]
        vote[rng.random(len(index)) < 0.1] = np.nan
        votes.append(vote)
    return boxes, votes, objects.reshape(-1, 4), index, np.repeat(np.arange(images), 4)


@pytest.mark.parametrize('measurers', [2, 3, 4, 5])
@pytest.mark.parametrize('threshold', [0.3, 0.5, 0.8])
def test_equals_the_slow_reference(measurers, threshold):
    given = world(measurers, measurers=measurers)
    found = correct_labels(*given, threshold)
    outcome, after = slow_correction(*given, threshold)
    assert found.outcome.tolist() == outcome
    assert found.boxes == pytest.approx(after, abs=1e-4)
    assert {KEPT, MOVED, DROPPED} == set(outcome)  # or the test tests little


@pytest.mark.parametrize(
    ('votes', 'outcome', 'box'),
    [
        ([LEFT, LEFT], KEPT, LEFT),
        ([RIGHT, RIGHT], MOVED, RIGHT),
        ([NEAR, NEARER], MOVED, RIGHT),
        ([LEFT, RIGHT], DROPPED, LEFT),
        ([LEFT, NONE], DROPPED, LEFT),  # one alone is not enough
        ([RIGHT, NONE], DROPPED, LEFT),
        ([FAR, FAR], DROPPED, LEFT),  # they agree, but no label of the image is there
        ([LEFT, LEFT, NONE], KEPT, LEFT),
        ([NONE, RIGHT, RIGHT], MOVED, RIGHT),
        ([LEFT, RIGHT, NONE], DROPPED, LEFT),
        ([LEFT, RIGHT, RIGHT], MOVED, RIGHT),
        ([LEFT, LEFT, RIGHT, RIGHT], DROPPED, LEFT),  # no majority
        ([LEFT, LEFT, RIGHT, FAR], DROPPED, LEFT),
        ([LEFT, LEFT, LEFT, RIGHT], KEPT, LEFT),
        ([LEFT, RIGHT, RIGHT, RIGHT], MOVED, RIGHT),
        ([LEFT, LEFT, RIGHT, NONE], KEPT, LEFT),  # three vote
    ],
)
def test_a_majority_of_at_least_two_decides(votes, outcome, box):
    # FAR is a box of another image.
    found = correct_labels(
        np.array([LEFT]),
        [np.array([vote]) for vote in votes],
        np.array([RIGHT, LEFT, FAR]),
        np.array([7]),
        np.array([7, 7, 8]),
    )
    assert found.outcome.tolist() == [outcome] and found.boxes.tolist() == [box]


def test_of_two_candidates_that_fit_the_nearer_is_taken():
    found = correct_labels(
        np.array([LEFT]),
        [np.array([RIGHT])] * 2,
        np.array([NEAR, NEARER]),
        np.array([0]),
        np.array([0, 0]),
    )
    assert found.boxes == pytest.approx(np.array([NEARER]))


def test_order_and_numbers_of_images_change_nothing():
    boxes, votes, candidates, index, candidate_index = world(1)
    expected = correct_labels(boxes, votes, candidates, index, candidate_index)
    rng = np.random.default_rng(0)
    labels, places = rng.permutation(len(boxes)), rng.permutation(len(candidates))
    numbers = rng.permutation(1000)[: candidate_index.max() + 1]
    found = correct_labels(
        boxes[labels],
        [vote[labels] for vote in reversed(votes)],
        candidates[places],
        numbers[index[labels]],
        numbers[candidate_index[places]],
    )
    assert np.array_equal(found.outcome, expected.outcome[labels])
    assert np.array_equal(found.boxes, expected.boxes[labels])


def test_corrected_labels_are_confirmed_by_the_same_votes():
    boxes, votes, *rest = world(2)
    once = correct_labels(boxes, votes, *rest)
    twice = correct_labels(once.boxes, votes, *rest)
    assert np.array_equal(twice.outcome == DROPPED, once.outcome == DROPPED)
    assert not (twice.outcome == MOVED).any()
    assert np.array_equal(twice.boxes, once.boxes)


@pytest.mark.parametrize('pairs', [1, 7, 100])
def test_parts_that_fit_in_memory_change_nothing(monkeypatch, pairs):
    given = world(3)
    expected = correct_labels(*given)
    candidates = candidate_boxes(given[0], given[3])
    monkeypatch.setattr(correction, '_PAIRS', pairs)
    found = correct_labels(*given)
    assert np.array_equal(found.outcome, expected.outcome)
    assert np.array_equal(found.boxes, expected.boxes)
    for one, other in zip(candidate_boxes(given[0], given[3]), candidates, strict=True):
        assert np.array_equal(one, other)


def slow_candidates(boxes, images, overlap):
    """Box by box, the most frequent first."""
    stays = []
    for image in sorted(set(images.tolist())):
        mine = [tuple(box) for box in boxes[images == image].tolist()]
        chosen = []
        for box in sorted(set(mine), key=lambda box: (-mine.count(box), box)):
            if all(iou(box, other) <= overlap for other in chosen):
                chosen.append(box)
        stays += [(image, *box) for box in chosen]
    return stays


@pytest.mark.parametrize('overlap', [0.3, 0.7, 0.99])
def test_candidates_equal_the_slow_reference_in_any_order(overlap):
    rng = np.random.default_rng(4)
    corners = rng.integers(0, 12, (400, 2))
    boxes = np.concatenate([corners, corners + rng.integers(8, 20, (400, 2))], 1)
    images = rng.integers(-3, 6, 400)
    found, index = candidate_boxes(boxes, images, overlap)
    rows = [(image, *box) for image, box in zip(index, found.tolist(), strict=True)]
    assert rows == slow_candidates(boxes, images, overlap)
    order = rng.permutation(400)
    shuffled, again = candidate_boxes(boxes[order], images[order], overlap)
    assert np.array_equal(shuffled, found) and np.array_equal(again, index)


def test_candidates_of_nothing_and_boxes_that_are_none():
    for boxes in (np.empty((0, 4)), np.array([NONE])):
        found, index = candidate_boxes(boxes, np.zeros(len(boxes), int))
        assert found.shape == (0, 4) and len(index) == 0
    found, index = candidate_boxes(np.array([NONE, RIGHT]), np.array([1, 2]))
    assert found.tolist() == [RIGHT] and index.tolist() == [2]
    nothing = correct_labels(
        np.array([LEFT]),
        [np.array([RIGHT])] * 2,
        np.empty((0, 4)),
        np.array([0]),
        np.array([]),
    )
    assert nothing.outcome.tolist() == [DROPPED]


@pytest.mark.parametrize(
    ('change', 'value'),
    [
        (dict(votes=[np.zeros((3, 4))]), '1 '),
        (dict(threshold=0.0), '0.0'),
        (dict(threshold=1.5), '1.5'),
        (dict(votes=[np.zeros((3, 4)), np.zeros((2, 4))]), r'votes\[1\].*\(2, 4\)'),
        (dict(boxes=np.zeros((3, 2))), r'boxes.*\(3, 2\)'),
        (dict(candidate_index=np.zeros(4)), '5.*4'),
    ],
)
def test_arguments_that_do_not_belong_together(change, value):
    given = dict(
        boxes=np.zeros((3, 4)),
        votes=[np.zeros((3, 4))] * 2,
        candidates=np.zeros((5, 4)),
        image_index=np.zeros(3, int),
        candidate_index=np.zeros(5, int),
    )
    correct_labels(**given)
    with pytest.raises(ValueError, match=value):
        correct_labels(**{**given, **change})


def test_a_vote_without_a_box_is_the_labels_own_or_none():
    own = np.arange(12, dtype=np.float32).reshape(3, 4)
    boxes = np.full((3, 4), np.nan, np.float32)
    boxes[2] = 7
    votes = votes_of(boxes, np.array([0.5, 0.4, 0.0]), own)
    np.testing.assert_array_equal(votes[0], own[0])
    assert np.isnan(votes[1]).all() and (votes[2] == 7).all()
