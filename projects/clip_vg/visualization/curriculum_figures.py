"""Pictures of reliability: histograms, walks, kept labels, examples."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from mmengine.dataset import BaseDataset

from projects.clip_vg_core.curriculum.selection import BINS
from projects.clip_vg_core.visualization.result_grid import draw_grid

__all__ = ['draw_examples', 'draw_histograms', 'draw_kept', 'draw_walks']

_KEPT, _DROPPED, _LINE = '#2e7d32', '#b0bec5', '#c62828'


def draw_histograms(
    reliability: Mapping[tuple[str, str], np.ndarray],
    chosen: Mapping[tuple[str, str], float],
) -> Figure:
    """Reliability of every source (row) under every measurer (column).

    As in the paper: labels with r in (0, 1]; those of r = 0 are said in the title.

    Args:
        reliability (Mapping): Arrays by (source, measurer).
        chosen (Mapping): The chosen threshold, by (source, measurer).

    Returns:
        Figure: SR on the diagonal, CR beside it.
    """
    sources = list(dict.fromkeys(source for source, _ in reliability))
    measurers = list(dict.fromkeys(measurer for _, measurer in reliability))
    figure, grid = plt.subplots(
        len(sources),
        len(measurers),
        figsize=(4.2 * len(measurers), 2.9 * len(sources)),
        squeeze=False,
    )
    for row, source in enumerate(sources):
        for column, measurer in enumerate(measurers):
            axes = grid[row][column]
            values = reliability.get((source, measurer))
            if values is None:
                axes.set_axis_off()
                continue
            values = values[~np.isnan(values)]
            counts, edges = np.histogram(values[values > 0], BINS, (0.0, 1.0))
            # A thousand bins as the paper's, shown ten at a time.
            axes.stairs(counts.reshape(-1, 10).sum(1), edges[::10], fill=True)
            missed = (values <= 0).mean() if len(values) else 0.0
            kind = ''
            if measurer in sources:
                kind = ' (SR)' if source == measurer else ' (CR)'
            axes.set_title(
                f'{source} by {measurer}{kind}\n{len(values):,} labels, r = 0: '
                f'{missed:.0%}',
                fontsize=9,
            )
            axes.set_xlim(0, 1)
            if (source, measurer) in chosen:
                threshold = chosen[source, measurer]
                axes.axvline(threshold, color=_LINE, label=f'h = {threshold:g}')
                axes.legend(fontsize=8, frameon=False)
    figure.supxlabel('reliability r')
    figure.supylabel('labels')
    figure.tight_layout()
    return figure


def draw_walks(
    decisions: Sequence[Mapping[str, Any]], trials: Sequence[Mapping[str, Any]]
) -> Figure:
    """Score against threshold for each source, with the walk drawn in.

    Args:
        decisions (Sequence[Mapping]): Of ``curriculum.json``.
        trials (Sequence[Mapping]): Of the same.

    Returns:
        Figure: One curve for each source.
    """
    figure, grid = plt.subplots(
        1, len(decisions), figsize=(5.2 * len(decisions), 3.8), squeeze=False
    )
    for axes, decision in zip(grid[0], decisions, strict=True):
        scores = {}
        for trial in trials:
            last = trial['picks'][-1] if trial['picks'] else {}
            if (last.get('source'), last.get('measurer')) == (
                decision['source'],
                decision['measurer'],
            ):
                scores[last['threshold']] = trial['score']
        path = [h for h in decision['walk']['path'] if scores.get(h) is not None]
        known = sorted(h for h, score in scores.items() if score is not None)
        axes.plot(known, [scores[h] for h in known], 'o-', color=_DROPPED)
        for step, other in enumerate(path[1:], 1):
            # Steps go out from what was scored before and lies nearest.
            one = min(path[:step], key=lambda h: abs(h - other))  # noqa: B023
            axes.annotate(
                '',
                (other, scores[other]),
                (one, scores[one]),
                arrowprops=dict(arrowstyle='->', color=_LINE),
            )
            middle = (one + other) / 2, (scores[one] + scores[other]) / 2
            axes.annotate(str(step), middle, color=_LINE, fontsize=8)
        best = decision['walk']['threshold']
        if scores.get(best) is not None:
            axes.plot([best], [scores[best]], '*', color=_KEPT, markersize=16)
        note = '' if decision['kept'] else ' (skipped: it helps nothing)'
        axes.set_title(
            f'{decision["source"]} by {decision["measurer"]}: h = {best:g}{note}',
            fontsize=10,
        )
        axes.set_xlabel('threshold h')
        axes.set_ylabel('score')
    figure.tight_layout()
    return figure


def draw_kept(kept: Mapping[str, tuple[int, int]]) -> Figure:
    """How many labels of each source are kept.

    Args:
        kept (Mapping[str, tuple[int, int]]): (kept, all) of each source.

    Returns:
        Figure: Bars.
    """
    figure, axes = plt.subplots(figsize=(7, 0.6 * len(kept) + 1.2))
    for name, (count, total) in kept.items():
        axes.barh(name, count, color=_KEPT)
        axes.barh(name, total - count, left=count, color=_DROPPED)
        share = count / total if total else 0.0
        axes.annotate(
            f' {count:,} of {total:,} ({share:.0%})', (total, name), va='center'
        )
    axes.invert_yaxis()
    axes.margins(x=0.35)
    axes.set_xlabel('labels')
    axes.spines[['top', 'right']].set_visible(False)
    figure.tight_layout()
    return figure


def draw_examples(
    dataset: BaseDataset,
    labels: np.ndarray,
    values: np.ndarray,
    boxes: np.ndarray,
    title: str,
) -> Figure:
    """Labels on their images, with the measurer's answers.

    Args:
        dataset (BaseDataset): A :obj:`RefExpDataset`.
        labels (np.ndarray): Which labels, indices into the data set.
        values (np.ndarray): Their reliability.
        boxes (np.ndarray): The measurer's boxes, xyxy in pixels of the image.
        title (str): Above the pictures.

    Returns:
        Figure: A grid.
    """
    results = []
    for label, value, box in zip(labels, values, boxes, strict=True):
        info = dataset.table[int(label)]
        results.append(
            dict(
                image=str(Path(dataset.data_prefix['img'], info['image'])),
                text=info['text'],
                iou=float(value),
                bbox=np.nan_to_num(box).tolist(),
                gt_bbox=info['bbox'],
                upright=dataset.upright,
            )
        )
    # Of CLIP's probabilities, or of several snapshots, it is not the answer's IoU.
    names = ("measurer's answer", 'label')
    return draw_grid(results, title, names=names, measure='reliability')
