"""Plots of a run's predictions, or of two runs beside each other."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .page import shorten

__all__ = ['draw_calibration', 'draw_groups', 'draw_ious', 'draw_risk_coverage']

_COLORS = ('#1565c0', '#ef6c00')  # of the first and of the second run
_BINS = 20


def draw_ious(runs: Mapping[str, np.ndarray]) -> Figure:
    """Histogram of IoUs, and the accuracy at every threshold.

    Args:
        runs (Mapping[str, np.ndarray]): IoUs by the name of the run, one or two.

    Returns:
        Figure: To be saved by the caller.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.5, 3.9))
    thresholds = np.linspace(0, 1, 201)[1:]
    for place, ((name, ious), color) in enumerate(
        zip(runs.items(), _COLORS, strict=False)
    ):
        counts, edges = np.histogram(ious, _BINS, (0.0, 1.0))
        # The second run as a line, so that both are seen.
        left.stairs(counts, edges, fill=not place, color=color, linewidth=2, alpha=0.8)
        reached = len(ious) - np.searchsorted(np.sort(ious), thresholds, 'left')
        right.plot(thresholds, reached / len(ious), color=color, lw=2, label=name)
    left.set_ylabel('predictions')
    left.set_xlabel('IoU with the true box')
    right.set_ylabel('share of predictions at or above it')
    right.set_xlabel('IoU threshold')
    right.set_ylim(0, 1)
    for axes in (left, right):
        axes.set_xlim(0, 1)
        axes.axvline(0.5, color='#757575', linestyle=':')
        _plain(axes)
    right.grid(alpha=0.3)
    if len(runs) > 1:
        _literal(right.legend(frameon=False))
    figure.tight_layout()
    return figure


def _plain(axes: Axes) -> None:
    axes.spines[['top', 'right']].set_visible(False)


def _literal(legend: Any) -> None:
    """Names of runs are no mathematics."""
    for text in legend.get_texts():
        text.set_parse_math(False)


def draw_groups(
    runs: Mapping[str, Mapping[str, Mapping[str, Any]]],
    whole: Sequence[float],
) -> Figure:
    """Accuracy of each group as a bar, with its interval and its predictions.

    Args:
        runs (Mapping): A ``breakdown`` by the name of the run, one or two with the
            same groups.
        whole (Sequence[float]): Accuracy of all predictions of each run: a dotted line.

    Returns:
        Figure: To be saved by the caller.
    """
    groups = list(next(iter(runs.values())))
    each = 0.8 / len(runs)
    figure, axes = plt.subplots(
        figsize=(5.5, 0.34 * len(groups) * (1 + len(runs)) / 2 + 0.9)
    )
    for place, (name, parts) in enumerate(runs.items()):
        share, low, high = (
            np.array([parts[group][key] for group in groups])
            for key in ('accuracy', 'low', 'high')
        )
        axes.barh(
            np.arange(len(groups)) + (place - (len(runs) - 1) / 2) * each,
            share,
            each * 0.92,
            # At a share of 0 or 1 the interval's end may pass it by rounding.
            xerr=np.maximum([share - low, high - share], 0),
            color=_COLORS[place],
            alpha=0.85,
            error_kw=dict(ecolor='#212121', elinewidth=1.2, capsize=2.5),
            label=name,
        )
        axes.axvline(whole[place], color=_COLORS[place], linestyle=':')
    labels = [shorten(group, 28) for group in groups]
    axes.set_yticks(range(len(groups)), labels, parse_math=False)
    _counts(axes, [next(iter(runs.values()))[group]['count'] for group in groups])
    if len(runs) > 1:
        # Above the bars: beside them it would cover some. Long names do not fit
        # beside each other.
        columns = 2 if sum(map(len, runs)) <= 36 else 1
        _literal(
            axes.legend(
                frameon=False,
                ncols=columns,
                loc='lower left',
                bbox_to_anchor=(0, 1),
            )
        )
    axes.set_xlim(0, 1)
    axes.set_xlabel('accuracy at IoU 0.5')
    axes.invert_yaxis()
    _plain(axes)
    figure.tight_layout()
    return figure


def _counts(axes: Axes, counts: Sequence[int]) -> None:
    """The number of predictions, at the right of each group."""
    for place, count in enumerate(counts):
        axes.annotate(
            f'n = {count:,}',
            (1, place),
            xytext=(8, 0),
            xycoords=axes.get_yaxis_transform(),
            textcoords='offset points',
            va='center',
            fontsize=8,
            color='#555555',
            annotation_clip=False,
        )


def draw_calibration(runs: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw what predictions of each score reach.

    Args:
        runs (Mapping): A ``calibration`` by the name of the run, one or two.

    Returns:
        Figure: To be saved by the caller.
    """
    figure, axes = plt.subplots(figsize=(5.6, 4.4))
    axes.plot([0, 1], [0, 1], ':', color='#757575')
    for (name, scored), color in zip(runs.items(), _COLORS, strict=False):
        of = f' of {name}' if len(runs) > 1 else ''
        scores = scored['scores']
        axes.plot(scores, scored['ious'], 'o-', color=color, label=f'mean IoU{of}')
        axes.plot(
            scores, scored['accuracies'], 's--', color=color, label=f'accuracy{of}'
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel('score')
    _literal(axes.legend(frameon=False))
    _plain(axes)
    figure.tight_layout()
    return figure


def draw_risk_coverage(
    runs: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> Figure:
    """Draw the risk of showing only predictions above a score, at every score.

    Args:
        runs (Mapping[str, tuple]): ``risk_coverage`` by the name of the run, one or
            two.

    Returns:
        Figure: To be saved by the caller.
    """
    figure, axes = plt.subplots(figsize=(5.6, 4.0))
    for (name, (coverage, risk)), color in zip(runs.items(), _COLORS, strict=False):
        # A step: between two thresholds nothing changes.
        axes.step(coverage, risk, where='post', color=color, lw=2, label=name)
        axes.plot(coverage[-1:], risk[-1:], 'o', color=color)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(bottom=0)
    axes.set_xlabel('coverage: share of predictions that are shown')
    axes.set_ylabel('risk: share of misses among them')
    axes.grid(alpha=0.3)
    if len(runs) > 1:
        _literal(axes.legend(frameon=False))
    _plain(axes)
    figure.tight_layout()
    return figure
