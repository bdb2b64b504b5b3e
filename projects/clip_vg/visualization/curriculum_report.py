"""One page that shows which labels are trusted, and why."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset

from projects.clip_vg_core.curriculum.reliability_file import (
    AGREEMENT,
    read_reliability,
    reliability_path,
)
from projects.clip_vg_core.curriculum.selection import otsu_valley, select_reliable
from projects.clip_vg_core.utils.file_names import file_name
from projects.clip_vg_core.visualization.page import Picture, png, write_page

from .curriculum_figures import (
    draw_examples,
    draw_histograms,
    draw_kept,
    draw_walks,
)

__all__ = ['write_report', 'write_scoring_report']

_EXAMPLES = 8  # of the kept and of the dropped labels of a source
_PAGE = """{% extends 'page' %}{% block body %}
{% if record %}
<p>Strategy {{ record.settings.strategy }}, criterion {{ record.settings.criterion }}
({{ record.metric }}). Final model: <b>{{ record.final.trial }}</b>,
{{ number(record.final.score) }}.</p>
{% endif %}
{{ pictures(figures) }}
{% if record %}
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
</table>
{% endif %}
{% endblock %}"""


def _number(value: float | None) -> str:
    return 'too few labels' if value is None else f'{value:.4f}'


def _spread(labels: np.ndarray, count: int) -> np.ndarray:
    """Some of the labels, the same every time."""
    rng = np.random.default_rng(0)
    return np.sort(rng.choice(labels, min(count, len(labels)), replace=False))


def _example_figures(
    dataset: BaseDataset, folder: Path, pick: Mapping[str, Any], out: Path
) -> list[Picture]:
    """Kept and dropped labels of a source."""
    (file,) = (f for f in dataset.label_files if f.source == pick['source'])
    path = reliability_path(folder, pick['measurer'], pick['source'])
    indices = dataset.indices_of(file)
    values = dataset.read_reliability(path)[indices]
    boxes = dataset.read_predicted_boxes(path)[indices]
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
        path = out / f'examples_{file_name(pick["source"])}_{what}.png'
        made.append((name, 'Dashed: the label. Solid: the answer.', png(figure, path)))
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
    measurers = [] if online else names
    if record['settings'].get('agreement'):
        measurers = [AGREEMENT]
    measurers = measurers + ['online'] * online
    reliability = {
        (source, measurer): np.asarray(
            read_reliability(reliability_path(folder, measurer, source))
        )
        for source in names
        for measurer in measurers
    }
    picks = _final_picks(record)
    chosen = {(p['source'], p['measurer']): p['threshold'] for p in picks}
    figures = [
        (
            'Reliability',
            'Rows: sources. Columns: measurers. On the diagonal each model scores what '
            'it was trained on (SR), elsewhere what another source says (CR); '
            "'agreement' is CLIP's own.",
            png(draw_histograms(reliability, chosen), out / 'histograms.png'),
        )
    ]
    if record['decisions'] and record['settings']['strategy'] != 'valley':
        figures.append(
            (
                'Search',
                'Every point is a training on the labels above the threshold. Arrows: '
                'the walk, in order. Star: the threshold that was taken.',
                png(
                    draw_walks(record['decisions'], record['trials']),
                    out / 'search.png',
                ),
            )
        )
    totals = {source['name']: source['labels'] for source in record['sources']}
    if picks:
        kept = {p['source']: (p['labels'], totals[p['source']]) for p in picks}
        kept.update({n: (0, totals[n]) for n in names if n not in kept})
        figures.append(('Kept labels', '', png(draw_kept(kept), out / 'kept.png')))
    for pick in picks:
        figures += _example_figures(dataset, folder, pick, out)
    title = f'Self-paced adapting: {", ".join(names)}'
    return _write_page(root / 'report.html', title, figures, record)


def _write_page(
    path: Path,
    title: str,
    figures: Sequence[Picture],
    record: Mapping[str, Any] | None = None,
) -> Path:
    return write_page(
        path, _PAGE, title=title, record=record, figures=figures, number=_number
    )


def write_scoring_report(
    folder: str | Path,
    measurer: str,
    dataset: BaseDataset,
    sources: Sequence[str],
    threshold: float | None = None,
) -> Path:
    """Draw what one measurer says of some sources.

    Args:
        folder (str or Path): Of the reliability files.
        measurer (str): Its name in them.
        dataset (BaseDataset): The labels.
        sources (Sequence[str]): Whose labels.
        threshold (float, optional): Above which labels count as kept. Defaults to
            None: the valley of each source.

    Returns:
        Path: ``<folder>/<measurer>.html``; the pictures are in ``<measurer>/*.png``.
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
    kept = {
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
            png(draw_histograms(values, chosen), out / 'histograms.png'),
        ),
        ('Kept labels', '', png(draw_kept(kept), out / 'kept.png')),
    ]
    for (source, name), cut in chosen.items():
        pick = dict(source=source, measurer=name, threshold=cut)
        figures += _example_figures(dataset, folder, pick, out)
    return _write_page(
        folder / f'{file_name(measurer)}.html', f'Reliability by {measurer}', figures
    )
