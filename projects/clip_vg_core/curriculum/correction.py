"""Correction of pseudo-labels: which are kept, moved to another box, or dropped."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..metrics.accuracy import aligned_ious

__all__ = [
    'DROPPED',
    'KEPT',
    'MOVED',
    'Correction',
    'candidate_boxes',
    'correct_labels',
    'votes_of',
]

# What becomes of a label.
KEPT, MOVED, DROPPED = 0, 1, 2
# Fewest measurers that must agree: the mistakes of a single one would be repeated.
_QUORUM = 2
# Reliability from which on a measurer that predicts no box confirms a label.
_CONFIRMS = 0.5
# Pairs of a label and a candidate that are compared at once, about 100 MB.
_PAIRS = 1 << 20


@dataclass(frozen=True)
class Correction:
    """Labels after a correction.

    Args:
        boxes (np.ndarray): xyxy, of shape (N, 4): a moved label's new box, the old box
            of every other.
        outcome (np.ndarray): int8 (N, ), :data:`KEPT`, :data:`MOVED` or
            :data:`DROPPED`.
    """

    boxes: np.ndarray
    outcome: np.ndarray


def correct_labels(
    boxes: np.ndarray,
    votes: Sequence[np.ndarray],
    candidates: np.ndarray,
    image_index: np.ndarray,
    candidate_index: np.ndarray,
    threshold: float = 0.5,
) -> Correction:
    """Keep, move or drop every label by a majority of its measurers.

    A vote fits a box where their IoU reaches the threshold. What counts is a majority:
    more than half of the measurers that vote on the label, and at least two. A label
    whose own box a majority fits is kept. Otherwise it moves to the candidate of its
    image that a majority fits; of several to the one that most votes fit, then to the
    one of the largest summed IoU. The rest is dropped. A vote that fits no candidate
    counts as one for no box.

    Measured on labels whose truth is known (docs/benchmarks.md): of four votes, three
    are right for 0.99 of the labels, two against two for 0.3 (its own box) and 0.7 (the
    other); a label that one of two measurers confirms while the other points nowhere is
    right in 0.5; the mean of two predictions that agree where no candidate is, in 0.9.

    Args:
        boxes (np.ndarray): The labels' boxes, xyxy in pixels, of shape (N, 4).
        votes (Sequence[np.ndarray]): Predicted boxes of each measurer, xyxy, of shape
            (N, 4); NaN where it does not vote.
        candidates (np.ndarray): Boxes that labels can move to, xyxy, of shape (M, 4);
            see :func:`candidate_boxes`.
        image_index (np.ndarray): Image of each label, integers of shape (N, ).
        candidate_index (np.ndarray): Image of each candidate, integers of shape (M, ).
        threshold (float): IoU in (0, 1]. Defaults to 0.5, as a prediction counts as
            right.

    Returns:
        Correction: Of shape (N, ), in the order of the labels.

    Raises:
        ValueError: Fewer than two measurers vote, shapes differ, or the threshold is
            out of range.
    """
    boxes = np.asarray(boxes, np.float32)
    candidates = np.asarray(candidates, np.float32).reshape(-1, 4)
    predicted = [np.asarray(vote, np.float32) for vote in votes]
    image_index, candidate_index = np.asarray(image_index), np.asarray(candidate_index)
    _check(boxes, predicted, candidates, image_index, candidate_index, threshold)
    voted = np.sum([np.isfinite(vote).all(1) for vote in predicted], 0)
    needed = np.maximum(voted // 2 + 1, _QUORUM)  # a majority
    own = _fitting([aligned_ious(vote, boxes) for vote in predicted], threshold)
    outcome = np.where(own >= needed, KEPT, DROPPED).astype(np.int8)
    after = boxes.copy()
    order = np.argsort(candidate_index, kind='stable')
    undecided = np.flatnonzero((own < needed) & (voted >= needed))
    for labels, places in _pairs(undecided, image_index, candidate_index[order]):
        chosen = order[places]
        ious = [aligned_ious(vote[labels], candidates[chosen]) for vote in predicted]
        fits = _fitting(ious, threshold)
        # Almost no pair is left, so the sort costs nothing.
        left = np.flatnonzero(fits >= needed[labels])
        labels, chosen, fits = labels[left], chosen[left], fits[left]
        best = np.lexsort((chosen, -np.sum(ious, 0)[left], -fits, labels))
        moved, firsts = np.unique(labels[best], return_index=True)
        outcome[moved] = MOVED
        after[moved] = candidates[chosen[best[firsts]]]
    return Correction(after, outcome)


def _check(
    boxes: np.ndarray,
    votes: Sequence[np.ndarray],
    candidates: np.ndarray,
    image_index: np.ndarray,
    candidate_index: np.ndarray,
    threshold: float,
) -> None:
    """Refuse arguments that do not belong together."""
    if len(votes) < _QUORUM:
        raise ValueError(
            f'{len(votes)} measurer(s) vote; expected at least {_QUORUM}, as one alone '
            'would repeat its own mistakes.'
        )
    if not 0 < threshold <= 1:
        raise ValueError(f'threshold={threshold}; expected an IoU in (0, 1].')
    shapes = {f'votes[{i}]': vote.shape for i, vote in enumerate(votes)}
    for name, shape in {'boxes': boxes.shape, **shapes}.items():
        if shape != (len(image_index), 4):
            raise ValueError(
                f'{name} has shape {shape}; expected ({len(image_index)}, 4), one row '
                'for each label of image_index.'
            )
    if len(candidates) != len(candidate_index):
        raise ValueError(
            f'{len(candidates)} candidates have {len(candidate_index)} images in '
            'candidate_index; expected one for each.'
        )


def _fitting(ious: Sequence[np.ndarray], threshold: float) -> np.ndarray:
    """How many of the votes reach the threshold, of the shape of each."""
    return np.sum([iou >= threshold for iou in ious], 0)


def _pairs(
    labels: np.ndarray, image_index: np.ndarray, candidate_index: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every pair of a label and a candidate of its image, in parts that fit in memory.

    Args:
        labels (np.ndarray): Indices of the labels to pair, of shape (K, ).
        image_index (np.ndarray): Image of each label, of shape (N, ).
        candidate_index (np.ndarray): Image of each candidate, ascending, (M, ).

    Yields:
        tuple: Labels and places of candidates, both of shape (P, ).
    """
    starts = np.searchsorted(candidate_index, image_index[labels], 'left')
    counts = np.searchsorted(candidate_index, image_index[labels], 'right') - starts
    ends = counts.cumsum()
    begin = 0
    while begin < len(labels):
        done = ends[begin] - counts[begin]
        end = max(begin + 1, int(np.searchsorted(ends, done + _PAIRS, 'right')))
        part = slice(begin, end)
        within = np.arange(ends[end - 1] - done)
        shift = starts[part] - (ends[part] - counts[part] - done)
        yield (
            np.repeat(labels[part], counts[part]),
            within + np.repeat(shift, counts[part]),
        )
        begin = end


def candidate_boxes(
    boxes: np.ndarray, image_index: np.ndarray, overlap: float = 0.7
) -> tuple[np.ndarray, np.ndarray]:
    """The distinct boxes of each image, which a label of it can move to.

    Boxes of one image that overlap are of one object. The one that most labels have
    stays (of equally many the first by its coordinates), so the result does not depend
    on the order of the labels.

    Args:
        boxes (np.ndarray): Of labels (of all sources) or detections, xyxy, of shape
            (N, 4).
        image_index (np.ndarray): Image of each, integers of shape (N, ).
        overlap (float): IoU above which two boxes are of one object. Defaults to 0.7.

    Returns:
        tuple: The boxes, float32 (M, 4), and their image_index (M, ), sorted by image;
        of one image the most frequent box first.
    """
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    image_index = np.asarray(image_index)
    finite = np.isfinite(boxes).all(1)
    boxes, image_index = boxes[finite], image_index[finite]
    order = np.lexsort((*boxes.T[::-1], image_index))
    boxes, image_index = boxes[order], image_index[order]
    is_new = np.ones(len(boxes), bool)
    is_new[1:] = image_index[1:] != image_index[:-1]
    is_new[1:] |= (boxes[1:] != boxes[:-1]).any(1)
    firsts = np.flatnonzero(is_new)
    times = np.diff(np.r_[firsts, len(boxes)])
    firsts = firsts[np.lexsort((firsts, -times, image_index[firsts]))]
    boxes, image_index = boxes[firsts], image_index[firsts]
    pairs = [(np.empty(0, np.int64),) * 2]
    for one, other in _pairs(np.arange(len(boxes)), image_index, image_index):
        same = (one < other) & (aligned_ious(boxes[one], boxes[other]) > overlap)
        pairs.append((one[same], other[same]))
    before, after = (np.concatenate(p) for p in zip(*pairs, strict=True))
    # A box goes if one that stays comes before it. This ends: every round decides
    # the next box of each chain of overlapping ones.
    stays = np.ones(len(boxes), bool)
    while True:
        decided = np.ones(len(boxes), bool)
        decided[after[stays[before]]] = False
        if (decided == stays).all():
            return boxes[stays], image_index[stays]
        stays = decided


def votes_of(boxes: np.ndarray, reliability: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Boxes that a measurer votes for.

    Args:
        boxes (np.ndarray): Predicted, xyxy, of shape (N, 4); NaN where it predicts
            none, as a verifier that says right or wrong.
        reliability (np.ndarray): Its scores of the labels, of shape (N, ).
        own (np.ndarray): The labels' boxes, of shape (N, 4).

    Returns:
        np.ndarray: float32 (N, 4): without a prediction the label's own box, where the
        score is 0.5 or more; NaN where it does not vote.
    """
    confirmed = np.where((reliability >= _CONFIRMS)[:, None], own, np.nan)
    return np.where(np.isfinite(boxes), boxes, confirmed).astype(np.float32)
