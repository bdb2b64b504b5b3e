"""The table of the curriculum benchmark."""

import math
from collections.abc import Sequence

import numpy as np

__all__ = ['make_table', 'selection_quality']

_COLUMNS = ('accuracy', 'share', 'precision', 'recall', 'auroc', 'cost')


def selection_quality(selected: np.ndarray, clean: np.ndarray) -> dict[str, float]:
    """Share of the labels that a selection has, its precision and its recall.

    Args:
        selected (np.ndarray): Indices of the selected labels.
        clean (np.ndarray): Bool, of shape (N, ): which labels are right.

    Returns:
        dict[str, float]: ``share``, and ``precision`` and ``recall`` of the clean ones.
    """
    hits = int(clean[selected].sum())
    return dict(
        share=len(selected) / len(clean),
        precision=hits / len(selected) if len(selected) else math.nan,
        recall=hits / int(clean.sum()) if clean.any() else math.nan,
    )


def _cell(values: list[float | None], scale: float = 1.0) -> str:
    known = np.array([v for v in values if v is not None]) * scale
    if not len(known):
        return ''
    return f'{known.mean():.3f} ± {known.std():.3f}'


def make_table(rows: Sequence[dict]) -> str:
    """Mean and spread over seeds, in Markdown.

    Args:
        rows (Sequence[dict]): ``part``, ``name``, ``seed`` and the columns.

    Returns:
        str: One table for each part.
    """
    lines = []
    for part in dict.fromkeys(row['part'] for row in rows):
        lines += [
            f'\n| {part} | accuracy | share kept | precision | recall | AUROC | cost |',
            '|---|---|---|---|---|---|---|',
        ]
        mine = [row for row in rows if row['part'] == part]
        for name in dict.fromkeys(row['name'] for row in mine):
            same = [row for row in mine if row['name'] == name]
            cells = [_cell([row.get(column) for row in same]) for column in _COLUMNS]
            lines.append(f'| {name} | {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'
