"""Why these thresholds: pictures and one page of a self-paced search."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from jinja2 import Environment
from matplotlib.figure import Figure
from mmengine.dataset import BaseDataset

from ..curriculum.reliability_file import read_reliability
from ..curriculum.selection import BINS, select_reliable
from .result_grid import draw_grid

__all__ = [
    'draw_examples',
    'draw_histograms',
    'draw_kept',
    'draw_walks',
    'write_report',
]

_KEPT, _DROPPED, _LINE = '#2e7d32', '#b0bec5', '#c62828'
_EXAMPLES = 8  # of the kept and of the dropped labels of a source
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<meta name="viewport" content="width=device-width">
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto;
       padding: 0 1rem; color: #1a1a1a }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: left }
td.n { text-align: right; font-variant-numeric: tabular-nums }
tr.best { background: #e8f5e9 } img { max-width: 100% } figure { margin: 1rem 0 }
figcaption { color: #555 }
</style></head><body>
<h1>{{ title }}</h1>
<p>Strategy {{ record.settings.strategy }}, criterion {{ record.settings.criterion }}
({{ record.metric }}). Final model: <b>{{ record.final.trial }}</b>,
{{ number(record.final.score) }}.</p>
{% for name, caption, image in figures %}
<h2>{{ name }}</h2>
<figure><img alt="{{ name }}" src="data:image/png;base64,{{ image }}">
<figcaption>{{ caption }}</figcaption></figure>
{% endfor %}
<h2>Measurers</h2><table>
<tr><th>model</th><th>labels</th><th>score</th><th>seconds</th></tr>
{% for m in record.measurers %}
<tr><td>{{ m.name }}</td><td class="n">{{ m.labels }}</td>
<td class="n">{{ number(m.score) }}</td><td class="n">{{ m.seconds }}</td></tr>
{% endfor %}
</table>
<h2>Trials</h2><table>
<tr><th>trial</th><th>labels</th><th>score</th><th>seconds</th></tr>
{% for t in record.trials %}
<tr{% if t.name == record.final.trial %} class="best"{% endif %}><td>{{ t.name }}</td>
<td class="n">{{ t.labels }}</td><td class="n">{{ number(t.score) }}</td>
<td class="n">{{ t.seconds }}</td></tr>{% endfor %}
</table></body></html>
"""


def _number(value: float | None) -> str:
    return 'too few labels' if value is None else f'{value:.4f}'


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
            kind = 'SR' if source == measurer else 'CR'
            axes.set_title(
                f'{source} by {measurer} ({kind})\n{len(values):,} labels, r = 0: '
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
        for step, (one, other) in enumerate(zip(path, path[1:], strict=False), 1):
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
            )
        )
    return draw_grid(results, title, names=("measurer's answer", 'label'))


def _png(figure: Figure, path: Path) -> str:
    """Save a figure; its bytes for the page."""
    figure.savefig(path, dpi=90)
    plt.close(figure)
    return base64.b64encode(path.read_bytes()).decode()


def _spread(labels: np.ndarray, count: int) -> np.ndarray:
    """Some of the labels, the same every time."""
    rng = np.random.default_rng(0)
    return np.sort(rng.choice(labels, min(count, len(labels)), replace=False))


def _example_figures(
    dataset: BaseDataset, folder: Path, pick: Mapping[str, Any], out: Path
) -> list[tuple[str, str, str]]:
    """Kept and dropped labels of a source."""
    (file,) = (f for f in dataset.label_files if f.source == pick['source'])
    path = folder / f'{pick["measurer"]}__{pick["source"]}.npy'
    indices, places = dataset.places(file)
    values = read_reliability(path, file)[places]
    boxes = np.load(path.with_suffix('.boxes.npy'), mmap_mode='r')[places]
    kept = select_reliable(values, pick['threshold'])
    scored = np.flatnonzero(~np.isnan(values))
    made = []
    for what, some in (('kept', kept), ('dropped', np.setdiff1d(scored, kept))):
        if not len(some):
            continue
        some = _spread(some, _EXAMPLES)
        name = f'{pick["source"]}: {what} labels'
        figure = draw_examples(
            dataset, indices[some], values[some], boxes[some], f'{name}, by chance'
        )
        path = out / f'examples_{pick["source"]}_{what}.png'
        made.append((name, 'Dashed: the label. Solid: the answer.', _png(figure, path)))
    return made


def _final_picks(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    name = record['final']['trial']
    trial = next(trial for trial in record['trials'] if trial['name'] == name)
    return trial['picks']


def write_report(record_path: str | Path, dataset: BaseDataset) -> Path:
    """Draw what a search found.

    Args:
        record_path (str or Path): ``curriculum.json``; ``reliability`` lies beside
            it.
        dataset (BaseDataset): The labels.

    Returns:
        Path: ``report.html``, one page that needs no other file; the same pictures
        are in ``report/*.png``.
    """
    record_path = Path(record_path)
    record = json.loads(record_path.read_text())
    root = record_path.parent
    out = root / 'report'
    out.mkdir(exist_ok=True)
    folder = root / 'reliability'
    names = [source['name'] for source in record['sources']]
    online = record['settings']['strategy'] == 'online'
    reliability = {
        (source, measurer): np.asarray(
            read_reliability(folder / f'{measurer}__{source}.npy')
        )
        for source in names
        for measurer in (['online'] if online else names)
    }
    picks = _final_picks(record)
    chosen = {(p['source'], p['measurer']): p['threshold'] for p in picks}
    figures = [
        (
            'Reliability',
            'Rows: sources. Columns: measurers. On the diagonal each model scores what '
            'it was trained on (SR), elsewhere what another source says (CR).',
            _png(draw_histograms(reliability, chosen), out / 'histograms.png'),
        )
    ]
    if record['decisions'] and record['settings']['strategy'] != 'valley':
        figures.append(
            (
                'Search',
                'Every point is a training on the labels above the threshold. Arrows: '
                'the walk, in order. Star: the threshold that was taken.',
                _png(
                    draw_walks(record['decisions'], record['trials']),
                    out / 'search.png',
                ),
            )
        )
    totals = {source['name']: source['labels'] for source in record['sources']}
    if picks:
        kept = {p['source']: (p['labels'], totals[p['source']]) for p in picks}
        kept.update({n: (0, totals[n]) for n in names if n not in kept})
        figures.append(('Kept labels', '', _png(draw_kept(kept), out / 'kept.png')))
    for pick in picks:
        figures += _example_figures(dataset, folder, pick, out)
    page = (
        Environment(autoescape=True)
        .from_string(_PAGE)
        .render(
            title=f'Self-paced adapting: {", ".join(names)}',
            record=record,
            figures=figures,
            number=_number,
        )
    )
    path = root / 'report.html'
    path.write_text(page, encoding='utf-8')
    return path
