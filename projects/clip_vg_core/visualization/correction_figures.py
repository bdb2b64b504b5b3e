"""Figures of a correction: outcomes of each round, and labels before and after."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ..curriculum.corrected_files import OUTCOMES
from ..curriculum.correction import DROPPED, MOVED
from ..curriculum.reliability_file import (
    read_boxes,
    read_outcomes,
    reliability_path,
)
from ..utils.file_names import file_name
from .page import PageImage, png, shorten
from .result_grid import draw_corrections

__all__ = ['correction_figures']

_EXAMPLES = 8  # of each outcome of a source
_COLORS = dict(kept='#2e7d32', moved='#1e88e5', dropped='#b0bec5')
_CAPTIONS = dict(
    kept='Two measurers confirm the box.',
    moved='Two measurers point to the same other box of the image.',
    dropped='No two measurers agree. What each voted for is drawn.',
)


def correction_figures(
    trials: Sequence[Mapping[str, Any]],
    final: str,
    dataset: Any,
    folder: Path,
    out: Path,
) -> list[PageImage]:
    """Draw the outcomes of all rounds, and examples of the final one.

    Args:
        trials (Sequence[Mapping]): Of ``curriculum.json``, one for each round.
        final (str): Name of the trial whose labels are drawn.
        dataset (RefExpDataset): The labels before the correction.
        folder (Path): Of the reliability files.
        out (Path): Folder for the figures.

    Returns:
        list[PageImage]: Counts, then kept, moved and dropped labels of each source.
    """
    figure = _draw_outcomes(trials)
    figures = [('Corrected labels', '', png(figure, out / 'outcomes.png'))]
    trial = next(trial for trial in trials if trial['name'] == final)
    for row in trial['corrections']:
        figures += _examples(trial, row, dataset, folder, out)
    return figures


def _examples(
    trial: Mapping[str, Any],
    row: Mapping[str, Any],
    dataset: Any,
    folder: Path,
    out: Path,
) -> list[PageImage]:
    """Random labels of each outcome of a source, on their images."""
    source = row['source']
    (file,) = (f for f in dataset.label_files if f.source == source)
    path = reliability_path(folder, trial['outcomes'], source)
    # By the rows of the file: a label that could not be read has no index.
    outcomes, after = read_outcomes(path, file), read_boxes(path, file)
    votes = [
        read_boxes(reliability_path(folder, measurer, source), file)
        for measurer in row['measurers']
    ]
    indices, rows = dataset.indices_and_rows(file)
    figures = []
    for code, what in OUTCOMES.items():
        labels = np.flatnonzero(outcomes[rows] == code)
        if not len(labels):
            continue
        rng = np.random.default_rng(0)
        chosen = np.sort(rng.choice(labels, min(_EXAMPLES, len(labels)), replace=False))
        results = [
            _result(
                dataset,
                int(indices[label]),
                after[rows[label]] if code == MOVED else None,
                [vote[rows[label]] for vote in votes] if code == DROPPED else [],
            )
            for label in chosen
        ]
        name = f'{source}: {what} labels'
        figure = draw_corrections(
            results, f'{name}, {len(chosen)} of {len(labels):,} at random'
        )
        path = out / f'{file_name(trial["name"])}_{file_name(source)}_{what}.png'
        figures.append((name, _CAPTIONS[what], png(figure, path)))
    return figures


def _result(
    dataset: Any, label: int, after: np.ndarray | None, votes: Sequence[np.ndarray]
) -> dict[str, Any]:
    info = dataset.table[label]
    return dict(
        image=dataset.image_path(info['image']),
        text=info['text'],
        before=info['bbox'],
        after=None if after is None else after.tolist(),
        votes=[vote.tolist() for vote in votes if np.isfinite(vote).all()],
        upright=dataset.upright,
    )


def _draw_outcomes(trials: Sequence[Mapping[str, Any]]) -> Figure:
    """Shares of kept, moved and dropped labels, a bar for each round and source."""
    rows = [(trial['name'], row) for trial in trials for row in trial['corrections']]
    figure, axes = plt.subplots(figsize=(8, 0.6 * len(rows) + 1.6))
    for place, (_, row) in enumerate(rows):
        total = max(1, sum(row[what] for what in _COLORS))
        left = 0.0
        for what, color in _COLORS.items():
            share = row[what] / total
            label = what if not place else None
            axes.barh(place, share, left=left, color=color, label=label)
            if share > 0.06:
                text = f'{row[what]:,} ({share:.0%})'
                axes.annotate(
                    text,
                    (left + share / 2, place),
                    ha='center',
                    va='center',
                    fontsize=8,
                    color='black' if what == 'dropped' else 'white',
                )
            left += share
    axes.set_yticks(
        range(len(rows)),
        [f'{shorten(name, 24)}: {shorten(row["source"], 20)}' for name, row in rows],
        parse_math=False,
    )
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel('share of the labels')
    axes.spines[['top', 'right']].set_visible(False)
    figure.legend(loc='upper left', ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.93))
    return figure
