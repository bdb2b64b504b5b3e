"""Accuracy of each way to use wrong labels against its cost, in one figure.

    python benchmarks/curriculum_figure.py work_dirs/curriculum correction.svg

Reads the rows that ``benchmarks/curriculum.py`` has written into the folder.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from curriculum_table import LOWER, UPPER
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from projects.clip_vg_core.utils.atomic import replacing

__all__ = ['draw_costs']

_TITLES = {'correction': 'one source', 'sources': 'three sources'}
_COLORS = {'correction': '#1565c0', 'other': '#757575'}


def draw_costs(rows: Sequence[dict]) -> Figure:
    """Accuracy over cost, a panel for each part, between its two ends.

    Args:
        rows (Sequence[dict]): ``part``, ``name``, ``seed``, ``accuracy``, ``cost``.

    Returns:
        Figure: To be saved by the caller.
    """
    parts = [part for part in _TITLES if any(row['part'] == part for row in rows)]
    figure, panels = plt.subplots(
        1, len(parts), figsize=(5.5 * len(parts), 4.2), squeeze=False
    )
    for part, axes in zip(parts, panels[0], strict=True):
        _draw_part(axes, [row for row in rows if row['part'] == part])
        axes.set_title(f'{_TITLES[part]}, 40 % of the labels wrong')
        axes.set_xlabel('cost, in training runs')
    panels[0][0].set_ylabel('accuracy on clean test expressions')
    figure.tight_layout()
    return figure


def _draw_part(axes: Axes, rows: Sequence[dict]) -> None:
    """Mean and spread of each way; the two ends as lines."""
    for name in dict.fromkeys(row['name'] for row in rows):
        same = [row for row in rows if row['name'] == name]
        values = np.array([row['accuracy'] for row in same])
        mean, cost = values.mean(), np.mean([row['cost'] for row in same])
        if name in (*LOWER, *UPPER):
            axes.axhline(mean, color='#bdbdbd', linestyle='--', zorder=0)
            axes.annotate(
                name, (1, mean), xycoords=('axes fraction', 'data'), ha='right'
            )
            continue
        kind = 'correction' if name.startswith('correction') else 'other'
        color = _COLORS[kind]
        axes.errorbar(cost, mean, values.std(), fmt='o', color=color, capsize=3)
        axes.annotate(
            name.removeprefix('correction, '),
            (cost, mean),
            xytext=(6, 4),
            textcoords='offset points',
            color=color,
            fontsize=8,
        )
    axes.set_xlim(left=0)
    axes.spines[['top', 'right']].set_visible(False)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the rows, write the figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', type=Path, help='output folder of the benchmark')
    parser.add_argument('out', type=Path, help='path of the figure')
    args = parser.parse_args(argv)
    rows = [
        row
        for path in sorted(args.folder.glob('rows*.json'))
        for row in json.loads(path.read_text(encoding='utf-8'))
    ]
    if not any(row['part'] in _TITLES for row in rows):
        raise SystemExit(
            f'{args.folder}: no rows of {", ".join(_TITLES)}. Run '
            'benchmarks/curriculum.py first.'
        )
    # The same rows give the same bytes.
    plt.rcParams.update({'svg.hashsalt': 'curriculum', 'svg.fonttype': 'none'})
    with replacing(args.out) as partial:
        draw_costs(rows).savefig(partial, metadata={'Date': None})


if __name__ == '__main__':
    main()
