"""Accuracy of groups of predictions: where a run is right, and where it is wrong.

A grouping is a dict from names, in the order of display, to masks of shape (N, ).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .confidence import auroc, expected_calibration_error, reliability_bins
from .expression_words import load_categories, words_of

__all__ = [
    'Grouping',
    'breakdown',
    'by_box_size',
    'by_crowd',
    'by_length',
    'by_value',
    'by_word_category',
    'calibration',
    'summary',
    'weak_groups',
    'wilson',
]

Grouping = dict[str, np.ndarray]
HIT = 0.5  # the IoU of a hit, as in the published accuracy
# Names of bins, and where each begins.
_LENGTHS = {
    **{str(n): n for n in range(1, 6)},
    '6–7': 6,
    '8–10': 8,
    '11–15': 11,
    '≥ 16': 16,
}
_CROWDS = {'1': 1, '2': 2, '3–4': 3, '5–8': 5, '9–16': 9, '≥ 17': 17}
# Each about three times the one before.
_SHARES = {'< 1 %': 0, '1–3 %': 0.01, '3–10 %': 0.03, '10–30 %': 0.1, '≥ 30 %': 0.3}
# COCO's bounds of small and large (32, 96), and some between and beyond.
_SIDES = {
    '< 32 px': 0,
    '32–64 px': 32,
    '64–96 px': 64,
    '96–160 px': 96,
    '160–256 px': 160,
    '≥ 256 px': 256,
}
# A page with a row for each of hundreds of sources shows nothing.
_MOST_VALUES = 30


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    from scipy.stats import binomtest  # half a second of imports

    interval = binomtest(hits, count).proportion_ci(0.95, 'wilson')
    return float(interval.low), float(interval.high)


def summary(ious: np.ndarray) -> dict[str, Any]:
    """Accuracy and mean IoU of predictions.

    Args:
        ious (np.ndarray): Of shape (N, ), N > 0.

    Returns:
        dict: ``count``, ``hits`` (IoU >= 0.5), ``accuracy`` with its interval ``low``
        and ``high``, ``miou``.
    """
    count, hits = len(ious), int((ious >= HIT).sum())
    low, high = wilson(hits, count)
    return dict(
        count=count,
        hits=hits,
        accuracy=hits / count,
        low=low,
        high=high,
        miou=float(ious.mean()),
    )


def breakdown(ious: np.ndarray, grouping: Grouping) -> dict[str, dict[str, Any]]:
    """The :func:`summary` of each group."""
    return {name: summary(ious[mask]) for name, mask in grouping.items()}


def _by_bins(values: np.ndarray, begins: Mapping[str, float]) -> Grouping:
    """Each value in the last bin that begins at or below it; smaller ones in none."""
    places = np.searchsorted(np.array(list(begins.values())), values, 'right') - 1
    return _filled({name: places == i for i, name in enumerate(begins)})


def _filled(grouping: Grouping) -> Grouping:
    return {name: mask for name, mask in grouping.items() if mask.any()}


def by_length(texts: Sequence[str]) -> Grouping:
    """By the number of words of the expressions."""
    return _by_bins(np.array([max(1, len(words_of(t))) for t in texts]), _LENGTHS)


def by_box_size(gt_boxes: np.ndarray, sizes: np.ndarray) -> Grouping:
    """By the true box's share of its image; without images, by its own size.

    Args:
        gt_boxes (np.ndarray): xyxy in pixels, of shape (N, 4).
        sizes (np.ndarray): (width, height) of the images, of shape (N, 2); NaN where
            an image cannot be read.

    Returns:
        Grouping: Shares, and a group for missing images; or, where more than half are
        missing, square roots of areas in pixels.
    """
    areas = (gt_boxes[:, 2:] - gt_boxes[:, :2]).clip(0).prod(1)
    missing = np.isnan(sizes).any(1)
    # One unit for a whole page: pixels and shares in one table compare nothing.
    if missing.mean() > 0.5:
        return _by_bins(np.sqrt(areas), _SIDES)
    shares = np.where(missing, -1.0, areas / sizes.prod(1))
    return {**_by_bins(shares, _SHARES), **_filled({'image not found': missing})}


def by_value(values: Sequence[str]) -> Grouping:
    """By a name, as of splits; the most frequent first, beyond 30 together."""
    counted = Counter(values)
    names = sorted(counted, key=lambda name: (-counted[name], name))
    array = np.array(values, dtype=object)
    grouping = {name: array == name for name in names[:_MOST_VALUES]}
    if others := names[_MOST_VALUES:]:
        grouping[f'{len(others)} others'] = np.isin(array, others)
    return grouping


def by_word_category(texts: Sequence[str]) -> Grouping:
    """By the kinds of words of the expressions; one may be in several groups."""
    categories = load_categories()
    by_text = {text: categories(text) for text in set(texts)}
    grouping = {
        name: np.array([name in by_text[text] for text in texts])
        for name in categories.names
    }
    none = np.array([not by_text[text] for text in texts])
    return _filled({**grouping, 'none of these': none})


def by_crowd(images: Sequence[str | None]) -> Grouping:
    """By the number of tested expressions of the same image."""
    counted = Counter(images)
    counted[None] = 0  # unknown images are in no group
    return _by_bins(np.array([counted[image] for image in images]), _CROWDS)


def weak_groups(
    parts: Mapping[str, Mapping[str, Mapping[str, Any]]], accuracy: float
) -> list[dict[str, Any]]:
    """Groups whose accuracy is below that of all predictions beyond chance.

    Args:
        parts (Mapping): A :func:`breakdown` for each name of a grouping.
        accuracy (float): Of all predictions.

    Returns:
        list[dict]: Of those whose interval ends below ``accuracy``: ``grouping``,
        ``group``, the summary, and ``lost``, the hits that the group lacks for that
        accuracy; the most lost first.
    """
    weak = [
        dict(
            part,
            grouping=title,
            group=name,
            lost=accuracy * part['count'] - part['hits'],
        )
        for title, groups in parts.items()
        for name, part in groups.items()
        if part['high'] < accuracy
    ]
    return sorted(weak, key=lambda group: -group['lost'])


def calibration(ious: np.ndarray, scores: np.ndarray) -> dict[str, Any] | None:
    """Calibration of the scores of predictions.

    Args:
        ious (np.ndarray): Of shape (N, ).
        scores (np.ndarray): Of shape (N, ); NaN where there is none.

    Returns:
        dict, optional: In ten bins of equal width, without empty ones, ``scores``,
        ``ious`` and ``accuracies`` on average; ``error``, the calibration error as
        expected IoUs; ``auroc``, how often a hit scores higher than a miss (None
        without either). None where scores do not differ, or not all are in [0, 1].
    """
    known = ~np.isnan(scores)
    ious, scores = ious[known], scores[known]
    # A score that never differs tells nothing; other models' may be logits.
    if len(np.unique(scores)) < 2 or scores.min() < 0 or scores.max() > 1:
        return None
    hits = ious >= HIT
    bins, rates = reliability_bins(scores, ious), reliability_bins(scores, hits)
    filled = bins.counts > 0
    return dict(
        scores=bins.scores[filled],
        ious=bins.values[filled],
        accuracies=rates.values[filled],
        error=expected_calibration_error(scores, ious),
        auroc=auroc(scores, hits) if hits.any() and not hits.all() else None,
    )
