"""One page with the reliability of pseudo-labels, the search, and what was selected."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..curriculum.reliability_file import (
    AGREEMENT,
    ZERO_SHOT,
    read_reliability,
    reliability_path,
)
from ..curriculum.selection import BINS, otsu_valley, select_reliable
from ..utils.file_names import file_name
from .correction_figures import correction_figures
from .page import PageImage, png, shorten, write_page
from .result_grid import draw_grid

__all__ = ['write_report', 'write_scoring_report']

_EXAMPLES = 8  # of the selected and of the dropped labels of a source
_SELECTED, _DROPPED, _LINE = '#2e7d32', '#b0bec5', '#c62828'
_PAGE = """{% extends 'page' %}{% block body %}
{% if record %}
<p>{% if record.settings.correct %}Correction{% else
%}Strategy {{ record.settings.strategy }}{% endif %}, criterion
{{ record.settings.criterion }}
({{ record.metric }}). Final model: <b>{{ record.final.trial }}</b>,
{{ number(record.final.score) }}.</p>
{% if record.validation %}<p>A score is the {{ record.validation.unit }}. Without any
expression: best constant box {{ rate(record.validation.constant_box) }}, random
candidate box {{ rate(record.validation.random_candidate) }}.</p>{% endif %}
{% endif %}
{{ images(figures) }}
{% if record %}
<h2>Measurers</h2><table>
<tr><th>model</th><th>labels</th><th>score</th><th>seconds</th></tr>
{% for m in record.measurers %}
<tr><td>{{ m.name }}</td><td class="n">{{ m.labels }}</td>
<td class="n">{{ number(m.score) }}</td><td class="n">{{ m.seconds }}</td></tr>
{% endfor %}
</table>
{% if record.agreements %}
<h2>Agreement with pseudo-labels at IoU 0.5</h2><table>
<tr><th>measurer</th><th>source</th><th>labels</th><th>agreement</th>
<th>best constant box</th><th>random candidate box</th></tr>
{% for a in record.agreements %}
<tr><td>{{ a.measurer }}</td><td>{{ a.source }}</td><td class="n">{{ a.labels }}</td>
<td class="n">{{ rate(a.agreement) }}</td><td class="n">{{ rate(a.constant_box) }}</td>
<td class="n">{{ rate(a.random_candidate) }}</td></tr>{% endfor %}
</table>
{% endif %}
<h2>Trials</h2><table>
<tr><th>trial</th><th>labels</th><th>score</th><th>seconds</th></tr>
{% for t in record.trials %}
<tr{% if t.name == record.final.trial %} class="best"{% endif %}><td>{{ t.name }}</td>
<td class="n">{{ t.labels }}</td><td class="n">{{ number(t.score) }}</td>
<td class="n">{{ t.seconds }}</td></tr>{% endfor %}
</table>
{% if record.settings.correct %}
<h2>Corrections</h2><table>
<tr><th>round</th><th>source</th><th>votes</th><th>kept</th><th>moved</th>
<th>dropped</th></tr>
{% for t in record.trials %}{% for c in t.corrections %}
<tr{% if t.name == record.final.trial %} class="best"{% endif %}><td>{{ t.name }}</td>
<td>{{ c.source }}</td><td>{{ c.measurers|join(', ') }}</td>
<td class="n">{{ c.kept }}</td><td class="n">{{ c.moved }}</td>
<td class="n">{{ c.dropped }}</td></tr>{% endfor %}{% endfor %}
</table>
{% endif %}
{% endif %}
{% endblock %}"""


def _number(value: float | None) -> str:
    return 'too few labels' if value is None else f'{value:.4f}'


def _rate(value: Any) -> str:
    # Undefined where a record has none, None where it could not be measured.
    return f'{value:.4f}' if isinstance(value, float) else '-'


def _sample(labels: np.ndarray, count: int) -> np.ndarray:
    """Random labels, the same every time, ascending."""
    rng = np.random.default_rng(0)
    return np.sort(rng.choice(labels, min(count, len(labels)), replace=False))


def _example_figures(
    dataset: Any, folder: Path, pick: Mapping[str, Any], out: Path
) -> list[PageImage]:
    """Random selected and dropped labels of a source, on their images."""
    (file,) = (f for f in dataset.label_files if f.source == pick['source'])
    path = reliability_path(folder, pick['measurer'], pick['source'])
    indices = dataset.indices_of(file)
    values = dataset.read_reliability(path)[indices]
    boxes = dataset.read_predicted_boxes(path)[indices]
    selected = select_reliable(values, pick['threshold'])
    scored = np.flatnonzero(~np.isnan(values))
    caption = 'Dashed: the label. Solid: the prediction.'
    figures = []
    for what, suffix, labels in (
        ('selected', 'kept', selected),
        ('dropped', 'dropped', np.setdiff1d(scored, selected)),
    ):
        if not len(labels):
            continue
        labels = _sample(labels, _EXAMPLES)
        name = f'{pick["source"]}: {what} labels'
        figure = _draw_examples(
            dataset,
            indices[labels],
            values[labels],
            boxes[labels],
            f'{name}, at random',
        )
        path = out / f'examples_{file_name(pick["source"])}_{suffix}.png'
        figures.append((name, caption, png(figure, path)))
    return figures


def _correcting(record: Mapping[str, Any]) -> list[str]:
    """Measurers of a correction, in their order, whether they voted or not."""
    return list(dict.fromkeys(row['measurer'] for row in record['agreements']))


def _final_picks(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    name = record['final']['trial']
    trial = next(trial for trial in record['trials'] if trial['name'] == name)
    return trial['picks']


def write_report(record_path: str | Path, dataset: Any) -> Path:
    """Draw the result of a search.

    Args:
        record_path (str or Path): ``curriculum.json``, beside ``reliability``.
        dataset (RefExpDataset): The labels.

    Returns:
        Path: ``report.html``, one page that needs no other file; the same figures
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
    measurers = [] if online else names
    if record['settings'].get('agreement'):
        measurers = [AGREEMENT]
    others = {'zero-shot': [ZERO_SHOT], 'file': ['file'], 'mean': ['mean']}
    measurers = others.get(record['settings'].get('measurer', ''), measurers)
    measurers = measurers + ['online'] * online
    if record['settings'].get('correct'):
        measurers = _correcting(record)
    reliability = {
        (source, measurer): np.asarray(
            read_reliability(reliability_path(folder, measurer, source))
        )
        for source in names
        for measurer in measurers
    }
    picks = _final_picks(record)  # none of a correction
    chosen = {(p['source'], p['measurer']): p['threshold'] for p in picks}
    figures = [
        (
            'Reliability',
            'Rows: sources. Columns: measurers. On the diagonal each model scores what '
            'it was trained on (SR), elsewhere the labels of another source (CR); '
            "'agreement' is zero-shot CLIP matching.",
            png(_draw_histograms(reliability, chosen), out / 'histograms.png'),
        )
    ]
    if record['decisions'] and record['settings']['strategy'] != 'valley':
        figures.append(
            (
                'Search',
                'Every point is a training run on the labels above the threshold. '
                'Arrows: the walk, in order. Star: the selected threshold.',
                png(
                    _draw_walks(record['decisions'], record['trials']),
                    out / 'search.png',
                ),
            )
        )
    totals = {source['name']: source['labels'] for source in record['sources']}
    if picks:
        counts = {name: (0, totals[name]) for name in names}
        counts.update({p['source']: (p['labels'], totals[p['source']]) for p in picks})
        figure = _draw_selected(counts)
        caption = 'Green: selected. Grey: dropped.'
        figures.append(('Selected labels', caption, png(figure, out / 'kept.png')))
    for pick in picks:
        figures += _example_figures(dataset, folder, pick, out)
    if record['settings'].get('correct'):
        figures += correction_figures(
            record['trials'], record['final']['trial'], dataset, folder, out
        )
    title = f'Self-paced adapting: {", ".join(names)}'
    return _write_page(root / 'report.html', title, figures, record)


def _write_page(
    path: Path,
    title: str,
    figures: Sequence[PageImage],
    record: Mapping[str, Any] | None = None,
) -> Path:
    return write_page(
        path,
        _PAGE,
        title=title,
        record=record,
        figures=figures,
        number=_number,
        rate=_rate,
    )


def write_scoring_report(
    folder: str | Path,
    measurer: str,
    dataset: Any,
    sources: Sequence[str],
    threshold: float | None = None,
) -> Path:
    """Draw the scores of one measurer.

    Args:
        folder (str or Path): Folder of the reliability files.
        measurer (str): Name of the measurer in them.
        dataset (RefExpDataset): The labels.
        sources (Sequence[str]): Sources of the scored labels.
        threshold (float, optional): Threshold that the page shows. Defaults to None:
            the valley of each source.

    Returns:
        Path: ``<folder>/<measurer>.html``; the figures are in ``<measurer>/*.png``.
    """
    folder = Path(folder)
    out = folder / file_name(measurer)
    out.mkdir(exist_ok=True)
    values = {
        (source, measurer): np.asarray(
            read_reliability(reliability_path(folder, measurer, source))
        )
        for source in sources
    }
    chosen = {
        key: otsu_valley(v).threshold if threshold is None else threshold
        for key, v in values.items()
    }
    counts = {
        source: (
            len(select_reliable(values[source, measurer], chosen[source, measurer])),
            len(values[source, measurer]),
        )
        for source in sources
    }
    figures = [
        (
            'Reliability',
            'The line is the threshold.',
            png(_draw_histograms(values, chosen), out / 'histograms.png'),
        ),
        (
            'Selected labels',
            'Green: selected. Grey: dropped.',
            png(_draw_selected(counts), out / 'kept.png'),
        ),
    ]
    for (source, name), value in chosen.items():
        pick = dict(source=source, measurer=name, threshold=value)
        figures += _example_figures(dataset, folder, pick, out)
    return _write_page(
        folder / f'{file_name(measurer)}.html', f'Reliability by {measurer}', figures
    )


def _draw_histograms(
    reliability: Mapping[tuple[str, str], np.ndarray],
    chosen: Mapping[tuple[str, str], float],
) -> Figure:
    """Reliability of every source (row) under every measurer (column).

    As in the paper, of labels with r in (0, 1]; the share of r = 0 is in the title.

    Args:
        reliability (Mapping): Arrays of shape (N, ) by (source, measurer).
        chosen (Mapping): The selected threshold, by (source, measurer).

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
                f'{shorten(source, 20)} by {shorten(measurer, 20)}{kind}\n'
                f'{len(values):,} labels, r = 0: {missed:.0%}',
                fontsize=9,
                parse_math=False,
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


def _draw_walks(
    decisions: Sequence[Mapping[str, Any]], trials: Sequence[Mapping[str, Any]]
) -> Figure:
    """Score against threshold for each source, with the walk drawn in.

    Args:
        decisions (Sequence[Mapping]): ``decisions`` of ``curriculum.json``.
        trials (Sequence[Mapping]): ``trials`` of the same.

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
        for step, end in enumerate(path[1:], 1):
            # The path has no origin of a step: it is the nearest one scored before,
            # which also holds for the two neighbours of the start.
            start = min(path[:step], key=lambda h: abs(h - end))  # noqa: B023
            axes.annotate(
                '',
                (end, scores[end]),
                (start, scores[start]),
                arrowprops=dict(arrowstyle='->', color=_LINE),
            )
            middle = (start + end) / 2, (scores[start] + scores[end]) / 2
            axes.annotate(str(step), middle, color=_LINE, fontsize=8)
        best = decision['walk']['threshold']
        if scores.get(best) is not None:
            axes.plot([best], [scores[best]], '*', color=_SELECTED, markersize=16)
        note = '' if decision['kept'] else ' (skipped: it helps nothing)'
        source, measurer = (
            shorten(decision[key], 24) for key in ('source', 'measurer')
        )
        axes.set_title(
            f'{source} by {measurer}\nh = {best:g}{note}',
            fontsize=10,
            parse_math=False,
        )
        axes.set_xlabel('threshold h')
        axes.set_ylabel('score')
    figure.tight_layout()
    return figure


def _draw_selected(counts: Mapping[str, tuple[int, int]]) -> Figure:
    """Number of selected labels of each source.

    Args:
        counts (Mapping[str, tuple[int, int]]): (selected, all) of each source.

    Returns:
        Figure: Bars.
    """
    figure, axes = plt.subplots(figsize=(7, 0.6 * len(counts) + 1.2))
    for place, (count, total) in enumerate(counts.values()):
        axes.barh(place, count, color=_SELECTED)
        axes.barh(place, total - count, left=count, color=_DROPPED)
        share = count / total if total else 0.0
        # Beside the axes, where no bar is and nothing is cut.
        axes.annotate(
            f'{count:,} of {total:,} ({share:.0%})',
            (1, place),
            xytext=(8, 0),
            xycoords=axes.get_yaxis_transform(),
            textcoords='offset points',
            va='center',
            annotation_clip=False,
        )
    names = [shorten(name) for name in counts]
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter('{x:,.0f}')
    axes.set_xlabel('labels')
    axes.spines[['top', 'right']].set_visible(False)
    figure.tight_layout()
    return figure


def _draw_examples(
    dataset: Any,
    labels: np.ndarray,
    values: np.ndarray,
    boxes: np.ndarray,
    title: str,
) -> Figure:
    """Labels on their images, with the measurer's predictions.

    Args:
        dataset (RefExpDataset): The labels.
        labels (np.ndarray): Indices into the data set, of shape (N, ).
        values (np.ndarray): Their reliability, of shape (N, ).
        boxes (np.ndarray): Predicted boxes, xyxy in pixels of the original image, of
            shape (N, 4).
        title (str): Title of the figure.

    Returns:
        Figure: A grid of images.
    """
    results = []
    for label, value, box in zip(labels, values, boxes, strict=True):
        info = dataset.table[int(label)]
        results.append(
            dict(
                image=dataset.image_path(info['image']),
                text=info['text'],
                iou=float(value),
                bbox=np.nan_to_num(box).tolist(),
                gt_bboxes=dataset.table.targets(int(label)).tolist(),
                upright=dataset.upright,
            )
        )
    # Not called IoU: from CLIP's probabilities, or as the mean of several snapshots,
    # the reliability is not the IoU of the drawn prediction.
    names = ("measurer's prediction", 'label')
    return draw_grid(results, title, names=names, measure='reliability')
