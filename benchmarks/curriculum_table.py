"""The table of the curriculum benchmark."""

import math
from collections.abc import Sequence

import numpy as np

__all__ = ['LOWER', 'UPPER', 'add_gaps', 'make_table', 'selection_quality']

# Of the rows between whose accuracies a gap is.
LOWER, UPPER = ('no selection', 'naive merge'), ('oracle',)

_COLUMNS = {
    'accuracy': 'accuracy',
    'gap': 'gap recovered',
    'share': 'share used',
    'precision': 'precision',
    'recall': 'recall',
    'moved': 'moved',
    'moved_right': 'right of these',
    'auroc': 'AUROC',
    'cost': 'cost',
}


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


def add_gaps(rows: Sequence[dict]) -> list[dict]:
    """Rows with the share ``gap`` that each recovers of its part's gap.

    Args:
        rows (Sequence[dict]): ``part``, ``name``, ``seed``, ``accuracy``. The gap of a
            seed lies between its rows without selection and of the oracle.

    Returns:
        list[dict]: Copies, with ``gap`` where both rows are there.
    """
    ends: dict = {}
    for row in rows:
        for end, names in enumerate((LOWER, UPPER)):
            if row['name'] in names:
                ends.setdefault((row['part'], row['seed']), {})[end] = row['accuracy']
    found = []
    for row in rows:
        known = ends.get((row['part'], row['seed']), {})
        if len(known) == 2 and row['name'] not in (*LOWER, *UPPER):
            gain = row['accuracy'] - known[0]
            row = dict(row, gap=gain / (known[1] - known[0]))
        found.append(row)
    return found


def _cell(values: list[float | None]) -> str:
    known = np.array([v for v in values if v is not None])
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
    rows = add_gaps(rows)
    for part in dict.fromkeys(row['part'] for row in rows):
        mine = [row for row in rows if row['part'] == part]
        columns = [c for c in _COLUMNS if any(row.get(c) is not None for row in mine)]
        heads = [part, *(_COLUMNS[column] for column in columns)]
        lines += [f'\n| {" | ".join(heads)} |', '|---' * len(heads) + '|']
        for name in dict.fromkeys(row['name'] for row in mine):
            same = [row for row in mine if row['name'] == name]
            cells = [_cell([row.get(column) for row in same]) for column in columns]
            lines.append(f'| {name} | {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'
