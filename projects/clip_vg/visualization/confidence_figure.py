"""One picture of what scores are worth: calibration, and answers to nothing."""

from collections.abc import Mapping

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from projects.clip_vg_core.metrics.confidence import (
    auroc,
    expected_calibration_error,
    reliability_bins,
    roc_curve,
)

__all__ = ['draw_confidence']

_PRESENT, _LINE = '#2e7d32', '#90a4ae'
_ABSENT = ('#c62828', '#ef6c00', '#6a1b9a')


def draw_confidence(
    scores: np.ndarray,
    ious: np.ndarray,
    present: np.ndarray,
    absent: Mapping[str, np.ndarray],
) -> Figure:
    """Draw a reliability diagram, histograms and ROC curves.

    Args:
        scores (np.ndarray): Of the answers to labelled expressions, (N, ).
        ious (np.ndarray): Their IoUs, (N, ).
        present (np.ndarray): Scores of expressions that refer to something, which
            those of ``absent`` are compared with, (M, ).
        absent (Mapping[str, np.ndarray]): Scores of expressions that refer to
            nothing, by how they were made.

    Returns:
        Figure: Three panels.
    """
    figure, panels = plt.subplots(1, 3, figsize=(14, 4.4))
    _draw_reliability(panels[0], scores, ious)
    _draw_histograms(panels[1], present, absent)
    _draw_rocs(panels[2], present, absent)
    for axes in panels:
        axes.set_xlim(0, 1)
        axes.spines[['top', 'right']].set_visible(False)
    figure.tight_layout()
    return figure


def _draw_reliability(axes: Axes, scores: np.ndarray, ious: np.ndarray) -> None:
    bins = reliability_bins(scores, ious)
    axes.plot([0, 1], [0, 1], '--', color=_LINE)
    axes.bar(
        bins.edges[:-1],
        bins.counts / bins.counts.sum(),
        np.diff(bins.edges),
        align='edge',
        color='#cfd8dc',
        label='share of answers',
    )
    axes.plot(bins.scores, bins.values, 'o-', color=_PRESENT, label='mean IoU')
    error = expected_calibration_error(scores, ious)
    axes.set_title(f'{len(scores):,} labelled expressions: ECE {error:.3f}')
    axes.set_xlabel('score')
    axes.set_ylim(0, 1)
    axes.legend(frameon=False)


def _draw_histograms(
    axes: Axes, present: np.ndarray, absent: Mapping[str, np.ndarray]
) -> None:
    edges = np.linspace(0, 1, 26)
    drawn = {'refers to an object': present, **absent}
    for (name, scores), color in zip(drawn.items(), (_PRESENT, *_ABSENT), strict=False):
        shares = np.histogram(scores, edges)[0] / len(scores)
        axes.stairs(shares, edges, color=color, linewidth=1.8, label=name)
    axes.set_title('scores')
    axes.set_xlabel('score')
    axes.set_ylabel('share of answers')
    axes.legend(frameon=False)


def _draw_rocs(
    axes: Axes, present: np.ndarray, absent: Mapping[str, np.ndarray]
) -> None:
    axes.plot([0, 1], [0, 1], '--', color=_LINE)
    for (name, others), color in zip(absent.items(), _ABSENT, strict=False):
        scores = np.r_[present, others]
        positive = np.arange(len(scores)) < len(present)
        area = auroc(scores, positive)
        axes.plot(
            *roc_curve(scores, positive), color=color, label=f'{name}: AUROC {area:.3f}'
        )
    axes.set_title('refers to an object, or to nothing')
    axes.set_xlabel('answers to nothing above the threshold')
    axes.set_ylabel('answers to an object above it')
    axes.set_ylim(0, 1)
    axes.legend(frameon=False, loc='lower right')
