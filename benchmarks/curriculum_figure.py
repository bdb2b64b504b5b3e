"""Accuracy of each way to use wrong labels against its cost, in one figure.

    python benchmarks/curriculum_figure.py work_dirs/curriculum correction.svg

Reads the rows that ``benchmarks/curriculum.py`` has written into the folder.
"""

import argparse
import json
import re
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

# Parts of the table in each panel.
_PANELS = {
    'one source': ('correction', 'selection'),
    'three sources': ('sources', 'msa'),
}


def draw_costs(rows: Sequence[dict]) -> Figure:
    """Accuracy over cost, a panel for each part, between its two ends.

    Args:
        rows (Sequence[dict]): ``part``, ``name``, ``seed``, ``accuracy``, ``cost``.

    Returns:
        Figure: To be saved by the caller.
    """
    drawn = {
        title: [row for row in rows if row['part'] in parts]
        for title, parts in _PANELS.items()
    }
    drawn = {title: own for title, own in drawn.items() if own}
    figure, panels = plt.subplots(
        1, len(drawn), figsize=(5.5 * len(drawn), 4.2), squeeze=False
    )
    for (title, own), axes in zip(drawn.items(), panels[0], strict=True):
        _draw_part(axes, own)
        seeds = len({row['seed'] for row in own})
        axes.set_title(f'{title}, 40 % wrong, {seeds} seed' + 's' * (seeds > 1))
        axes.set_xlabel('cost, in training runs')
    panels[0][0].set_ylabel('accuracy on clean test expressions')
    figure.tight_layout()
    return figure


def _draw_part(axes: Axes, rows: Sequence[dict]) -> None:
    """Mean and spread of each way, its rounds as one line; the two ends as lines."""
    ways: dict[str, list[tuple[float, float, float]]] = {}
    for name in dict.fromkeys(row['name'] for row in rows):
        same = [row for row in rows if row['name'] == name]
        values = np.array([row['accuracy'] for row in same])
        mean, cost = values.mean(), np.mean([row['cost'] for row in same])
        if name in (*LOWER, *UPPER):
            axes.axhline(mean, color='#bdbdbd', linestyle='--', zorder=0)
            place = dict(xycoords=('axes fraction', 'data'), ha='right', va='bottom')
            axes.annotate(name, (1, mean), color='#757575', fontsize=9, **place)
        else:
            way = re.sub(r', \d rounds?$', '', name)
            ways.setdefault(way, []).append((cost, mean, values.std()))
    for way, points in ways.items():
        color = '#1565c0' if way.startswith('correction') else '#757575'
        cost, mean, spread = zip(*points, strict=True)
        axes.errorbar(cost, mean, spread, fmt='o-', color=color, capsize=3)
        place = dict(xytext=(7, -3), textcoords='offset points')
        rounds = ', 1 and 2 rounds' if len(points) > 1 else ''
        axes.annotate(way + rounds, points[-1][:2], color=color, fontsize=8, **place)
    axes.set_xlim(0, 1.7 * axes.get_xlim()[1])  # names stand to the right
    axes.spines[['top', 'right']].set_visible(False)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', type=Path, help='output folder of the benchmark')
    parser.add_argument('out', type=Path, help='path of the figure')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the rows, write the figure."""
    args = parse_args(argv)
    rows = [
        row
        for path in sorted(args.folder.glob('rows*.json'))
        for row in json.loads(path.read_text(encoding='utf-8'))
    ]
    if not any(row['part'] in sum(_PANELS.values(), ()) for row in rows):
        raise SystemExit(
            f'{args.folder}: no rows of a part in {_PANELS}. Run '
            'benchmarks/curriculum.py first.'
        )
    # The same rows give the same bytes.
    plt.rcParams.update({'svg.hashsalt': 'curriculum', 'svg.fonttype': 'none'})
    with replacing(args.out) as partial:
        figure = draw_costs(rows)
        figure.savefig(partial, bbox_inches='tight', metadata={'Date': None})


if __name__ == '__main__':
    main()
