"""What predictions that have learnt nothing reach, and whether others exceed it."""

import math
import re
from dataclasses import dataclass

import numpy as np

from ..metrics.accuracy import aligned_ious

__all__ = ['Agreement', 'Chance', 'chance_of', 'iou_threshold', 'measure_agreement']

# Labels that rates are taken of, and constant boxes that are tried: seconds at most.
_LABELS, _CONSTANTS = 20_000, 256
_PAIRS = 1 << 20  # boxes compared at once: 100 MB
# Standard errors from which on a measurer is clearly above chance.
_CLEARLY = 2.0


def iou_threshold(metric: str) -> float | None:
    """IoU from which on a metric counts a prediction as right; None: its mean counts.

    Args:
        metric (str): E.g. ``grounding/acc_0.5`` or ``grounding/miou``.

    Raises:
        ValueError: It is another metric.
    """
    if metric.endswith('miou'):
        return None
    match = re.search(r'acc_(0?\.\d+)$', metric)
    if match is None:
        raise ValueError(f'{metric!r}; expected a metric such as grounding/acc_0.5.')
    return float(match[1])


@dataclass(frozen=True)
class Chance:
    """Scores without any knowledge of the expressions.

    Args:
        constant (float): Of the best box that is the same in every image, relative to
            the image's size; NaN where no size is known.
        candidate (float): Expected score of a random candidate, over the labels whose
            image has several; NaN where none has.
    """

    constant: float
    candidate: float

    @property
    def best(self) -> float:
        """The better of the two; 0 where neither is known."""
        return float(np.nanmax([self.constant, self.candidate, 0.0]))

    def __str__(self) -> str:
        parts = [
            f'{what} {value:.4f}'
            for what, value in (
                ('best constant box', self.constant),
                ('random candidate box', self.candidate),
            )
            if not math.isnan(value)
        ]
        return ', '.join(parts)


@dataclass(frozen=True)
class Agreement:
    """How often a measurer's predictions are the labels of a source.

    Args:
        rate (float): Score of its predictions against the labels' boxes.
        count (int): Labels that it is of.
        chance (Chance): Score of predictions that have learnt nothing, on these.
    """

    rate: float
    count: int
    chance: Chance

    @property
    def margin(self) -> float:
        """How far the measurer is above chance; NaN where it predicts nothing."""
        return self.rate - self.chance.best

    @property
    def is_clear(self) -> bool:
        """Whether the measurer is clearly above chance."""
        if not self.count:
            return False
        chance = self.chance.best
        error = math.sqrt(chance * (1 - chance) / self.count)
        return self.rate > chance + _CLEARLY * error


def _score(ious: np.ndarray, threshold: float | None) -> np.ndarray:
    return ious if threshold is None else (ious >= threshold).astype(np.float64)


def chance_of(
    boxes: np.ndarray,
    sizes: np.ndarray,
    image_index: np.ndarray,
    candidates: np.ndarray,
    candidate_index: np.ndarray,
    threshold: float | None = 0.5,
) -> Chance:
    """Scores of the best constant box and of a random candidate of the image.

    Args:
        boxes (np.ndarray): The labels' boxes, xyxy in pixels, of shape (N, 4).
        sizes (np.ndarray): Height and width of each label's image, -1 where unknown,
            of shape (N, 2).
        image_index (np.ndarray): Image of each label, integers of shape (N, ).
        candidates (np.ndarray): Boxes that could be meant, xyxy, of shape (M, 4); see
            :func:`.correction.candidate_boxes`.
        candidate_index (np.ndarray): Image of each candidate, of shape (M, ).
        threshold (float, optional): IoU from which on a prediction is right. Defaults
            to 0.5; None: the mean IoU.

    Returns:
        Chance: Of a random sample of labels where these are many.
    """
    boxes, image_index = np.asarray(boxes, np.float32), np.asarray(image_index)
    labels = np.flatnonzero(np.isfinite(boxes).all(1))
    rng = np.random.default_rng(0)
    if len(labels) > _LABELS:
        labels = np.sort(rng.choice(labels, _LABELS, replace=False))
    boxes, image_index = boxes[labels], image_index[labels]
    return Chance(
        _constant(boxes, np.asarray(sizes)[labels], threshold, rng),
        _random(boxes, image_index, candidates, candidate_index, threshold),
    )


def _constant(
    boxes: np.ndarray,
    sizes: np.ndarray,
    threshold: float | None,
    rng: np.random.Generator,
) -> float:
    """Score of the best of the labels' own boxes, and of their median."""
    known = (sizes > 0).all(1)
    if not known.any():
        return math.nan
    # The IoU of two boxes of an image is the same in shares of its sides.
    relative = boxes[known] / np.tile(sizes[known][:, ::-1], 2).astype(np.float32)
    tried = np.unique(relative, axis=0)
    if len(tried) > _CONSTANTS:
        tried = tried[rng.choice(len(tried), _CONSTANTS, replace=False)]
    tried = np.concatenate([tried, np.median(relative, 0)[None]])
    return max(
        float(
            _score(
                aligned_ious(np.broadcast_to(box, relative.shape), relative), threshold
            ).mean()
        )
        for box in tried
    )


def _random(
    boxes: np.ndarray,
    image_index: np.ndarray,
    candidates: np.ndarray,
    candidate_index: np.ndarray,
    threshold: float | None,
) -> float:
    """Expected score of a random candidate, of labels whose image has several."""
    order = np.argsort(candidate_index, kind='stable')
    candidates, images = np.asarray(candidates)[order], candidate_index[order]
    first, last = (np.searchsorted(images, image_index, s) for s in ('left', 'right'))
    counts = last - first
    labels = np.flatnonzero(counts > 1)
    if not len(labels):
        return math.nan
    total = 0.0
    # Parts of about so many pairs.
    parts = int(counts[labels].sum()) // _PAIRS + 1
    for part in np.array_split(labels, min(parts, len(labels))):
        own = np.repeat(part, counts[part])
        within = np.arange(len(own)) - np.repeat(
            counts[part].cumsum() - counts[part], counts[part]
        )
        ious = aligned_ious(candidates[first[own] + within], boxes[own])
        total += float((_score(ious, threshold) / counts[own]).sum())
    return total / len(labels)


def measure_agreement(
    predicted: np.ndarray,
    boxes: np.ndarray,
    sizes: np.ndarray,
    image_index: np.ndarray,
    candidates: np.ndarray,
    candidate_index: np.ndarray,
    threshold: float | None = 0.5,
) -> Agreement:
    """Agreement of a measurer with labels, beside that of chance on the same labels.

    Images with one candidate tell nothing: where others have several, theirs count.

    Args:
        predicted (np.ndarray): Predicted boxes, xyxy, of shape (N, 4); NaN where the
            measurer predicts none.
        boxes (np.ndarray): As of :func:`chance_of`, as all that follow.
        sizes (np.ndarray): Height and width of each label's image, of shape (N, 2).
        image_index (np.ndarray): Image of each label, of shape (N, ).
        candidates (np.ndarray): Boxes that could be meant, of shape (M, 4).
        candidate_index (np.ndarray): Image of each candidate, of shape (M, ).
        threshold (float, optional): IoU from which on a prediction is right. Defaults
            to 0.5; None: the mean IoU.

    Returns:
        Agreement: Of the labels with a prediction.
    """
    counts = np.bincount(
        candidate_index, minlength=int(np.max(image_index, initial=-1)) + 1
    )
    is_known = np.isfinite(predicted).all(1)
    several = is_known & (counts[image_index] > 1)
    labels = np.flatnonzero(several if several.any() else is_known)
    if not len(labels):
        return Agreement(math.nan, 0, Chance(math.nan, math.nan))
    ious = aligned_ious(predicted[labels], np.asarray(boxes)[labels])
    return Agreement(
        float(_score(ious, threshold).mean()),
        len(labels),
        chance_of(
            np.asarray(boxes)[labels],
            np.asarray(sizes)[labels],
            np.asarray(image_index)[labels],
            candidates,
            candidate_index,
            threshold,
        ),
    )
