"""Calibration and ranking of confidence scores, as functions of scores and IoUs.

A score is calibrated if predictions of a score s reach s on average: the IoU that was
expected, or the share of hits. It ranks if good predictions score higher than bad ones.
"""

import math
from dataclasses import dataclass

import numpy as np

__all__ = [
    'ReliabilityBins',
    'auroc',
    'expected_calibration_error',
    'reliability_bins',
    'risk_coverage',
    'roc_curve',
]


@dataclass(frozen=True)
class ReliabilityBins:
    """A reliability diagram: predictions by their score, in bins of equal width.

    Args:
        edges (np.ndarray): Of shape (K + 1, ), from 0 to 1.
        counts (np.ndarray): Predictions in each bin, (K, ).
        scores (np.ndarray): Their mean score, (K, ); NaN where there is none.
        values (np.ndarray): What they reach on average, (K, ); NaN likewise.
    """

    edges: np.ndarray
    counts: np.ndarray
    scores: np.ndarray
    values: np.ndarray


def _checked(scores: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64; raises where a mistake would give a number all the same."""
    scores, values = np.asarray(scores, float), np.asarray(values, float)
    if scores.ndim != 1 or scores.shape != values.shape or not len(scores):
        raise ValueError(
            f'Scores of shape {scores.shape}, values of shape {values.shape}; expected '
            'one of each for every prediction, (N, ) with N >= 1.'
        )
    for name, given in (('score', scores), ('value', values)):
        wrong = given[~((given >= 0) & (given <= 1))]
        if len(wrong):
            raise ValueError(f'A {name} of {wrong[0]}; expected numbers in [0, 1].')
    return scores, values


def reliability_bins(
    scores: np.ndarray, values: np.ndarray, number: int = 10
) -> ReliabilityBins:
    """Sort predictions into bins of their score.

    Args:
        scores (np.ndarray): In [0, 1], of shape (N, ).
        values (np.ndarray): IoU of each prediction, or whether it hits, (N, ).
        number (int): Of bins; the last one includes a score of 1. Defaults to 10.

    Returns:
        ReliabilityBins: Counts and means.

    Raises:
        ValueError: The shapes differ, or a number is outside of [0, 1].
    """
    scores, values = _checked(scores, values)
    # A score of 1 belongs to the last bin, not to one of its own.
    place = np.minimum((scores * number).astype(int), number - 1)
    counts = np.bincount(place, minlength=number)
    with np.errstate(invalid='ignore'):  # empty bins: NaN, as documented
        means = [
            np.bincount(place, weights=given, minlength=number) / counts
            for given in (scores, values)
        ]
    return ReliabilityBins(np.linspace(0, 1, number + 1), counts, *means)


def expected_calibration_error(
    scores: np.ndarray, values: np.ndarray, number: int = 10
) -> float:
    """Distance of scores from what they promise, averaged over predictions (Guo, 2017).

    Args:
        scores (np.ndarray): In [0, 1], of shape (N, ).
        values (np.ndarray): IoU or hit of each prediction, in [0, 1], of shape (N, ).
        number (int): Of bins. Defaults to 10.

    Returns:
        float: In [0, 1]; 0 where every bin reaches its mean score.
    """
    bins = reliability_bins(scores, values, number)
    filled = bins.counts > 0
    gaps = np.abs(bins.scores - bins.values)[filled]
    return float((gaps * bins.counts[filled]).sum() / bins.counts.sum())


def _last_of_ties(ordered: np.ndarray) -> np.ndarray:
    """Where a run of equal numbers ends: no threshold lies within it."""
    return np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Probability that a positive scores higher than a negative; ties are half.

    Args:
        scores (np.ndarray): Scores of shape (N, ); NaN is left out.
        positive (np.ndarray): Bool, of shape (N, ).

    Returns:
        float: In [0, 1]; NaN where one side is empty.
    """
    known = ~np.isnan(scores)
    scores, positive = scores[known], positive[known]
    ordered = np.sort(scores[~positive])
    wins = np.searchsorted(ordered, scores[positive], 'left')
    not_lost = np.searchsorted(ordered, scores[positive], 'right')
    pairs = len(ordered) * int(positive.sum())
    return float((wins + not_lost).sum() / 2 / pairs) if pairs else math.nan


def roc_curve(
    scores: np.ndarray, positive: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rates at every threshold; the area under them is :func:`auroc`.

    Args:
        scores (np.ndarray): In [0, 1], of shape (N, ).
        positive (np.ndarray): Bool, of shape (N, ).

    Returns:
        tuple[np.ndarray, np.ndarray]: False and true positive rates, both ascending
        from 0 to 1.

    Raises:
        ValueError: There is no positive, or no negative.
    """
    scores, positive = _checked(scores, positive)
    if not 0 < positive.sum() < len(positive):
        raise ValueError(
            f'{int(positive.sum())} of {len(positive)} are positive; a ROC needs both '
            'kinds.'
        )
    order = np.argsort(-scores, kind='stable')
    ends = _last_of_ties(scores[order])
    # From the origin, where the threshold is above every score.
    hits = np.r_[0, positive[order].cumsum()[ends]]
    alarms = np.r_[0, (1 - positive[order]).cumsum()[ends]]
    return alarms / alarms[-1], hits / hits[-1]


def risk_coverage(
    scores: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Risk if only predictions above a threshold are given, at every threshold.

    Args:
        scores (np.ndarray): In [0, 1], of shape (N, ).
        values (np.ndarray): IoU or hit of each prediction, in [0, 1], of shape (N, ).

    Returns:
        tuple[np.ndarray, np.ndarray]: Share of predictions given, ascending to 1, and
        one minus what these reach on average.
    """
    scores, values = _checked(scores, values)
    order = np.argsort(-scores, kind='stable')
    ends = _last_of_ties(scores[order])
    given = ends + 1
    return given / len(scores), 1 - values[order].cumsum()[ends] / given
