"""One page that shows where a run is wrong, or what two runs do differently."""

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from ..metrics.breakdown import (
    HIT,
    Grouping,
    breakdown,
    by_box_size,
    by_crowd,
    by_length,
    by_value,
    by_word_category,
    calibration,
    summary,
    weak_groups,
)
from ..metrics.comparison import compare, compare_groups
from ..metrics.confidence import risk_coverage
from ..utils.image_files import open_image
from .error_figures import (
    draw_calibration,
    draw_groups,
    draw_ious,
    draw_risk_coverage,
)
from .page import png, shorten, svg, write_page
from .result_grid import UNREADABLE, draw_results

__all__ = ['find_image', 'image_sizes', 'write_error_report']

# Draws a figure into a page: to base64.
_Figures = Callable[[Figure], str]
_LOOSE = 0.25  # a miss of at least this IoU is rather near
_THRESHOLDS = (_LOOSE, 0.75, 0.9)  # beside that of a hit
_WEAK = 8
_NOTES = {
    'Kinds of words': 'By lists of words; an expression may have words of several '
    'kinds, and is counted for each.',
    'Size of the true box': 'In %: its share of the image. In px (if most images '
    'cannot be read): the square root of its area.',
    'Expressions of the same image': 'How many expressions of the image were tested.',
}

_PAGE = """{% extends 'page' %}
{% macro interval(part) %}{{ percent(part.accuracy) }}
<small>{{ '%.1f' % (100 * part.low) }}–{{ '%.1f' % (100 * part.high) }}</small>
{%- endmacro %}
{% block body %}
<style>
  small { color: #666; font-size: .8em } h2 { margin-top: 2.2rem }
  table { font-size: .92rem } th { vertical-align: bottom }
  .beside { display: flex; flex-wrap: wrap; gap: 0 1.5rem; align-items: flex-start }
  .beside img { flex: 0 1 460px; min-width: 0 } .wide { overflow-x: auto }
  .beside .wide { flex: 1 1 560px; min-width: 0 }
  th.n { text-align: right; white-space: nowrap } th, td { padding: .3rem .55rem }
  td.n { white-space: nowrap } td.name, th.name, h1 { overflow-wrap: anywhere }
  th.n.name { white-space: normal; min-width: 6rem } td.name { min-width: 8rem }
  td, th { overflow-wrap: normal } .beside td, .beside th { padding: .3rem .35rem }
  .beside table { font-size: .88rem }
  .cards { display: grid; gap: 1rem;
           grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)) }
  .card { margin: 0; font-size: .85rem; line-height: 1.35;
          overflow-wrap: anywhere }
  .card img, .card .none { display: block; width: 100%; height: 230px;
          object-fit: contain; background: #eee; margin-bottom: .3rem }
  .card .none { display: flex; align-items: center; justify-content: center;
          color: #666; text-align: center }
  nav a { margin-right: 1rem } .hit { color: #00702f } .miss { color: #c4002b }
</style>
<nav><a href="#all">All predictions</a>
{% if weak %}<a href="#weak">Where most is lost</a>{% endif %}
{% for s in sections %}<a href="#g{{ loop.index }}">{{ s.title }}</a>
{% endfor %}{% if calibration %}<a href="#score">Score</a>{% endif %}
{% for e in examples %}<a href="#e{{ loop.index }}">{{ e.title }}</a>
{% endfor %}</nav>

<p>{{ '{:,}'.format(runs[0].count) }} expressions on
{{ '{:,}'.format(image_count) }} images. A hit is a prediction of IoU 0.5 or more
with the true box; the accuracy is the share of hits, the small numbers are its 95 %
interval (Wilson).</p>
{% if missing %}<p><b>{{ '{:,}'.format(missing|length) }} images were not found or
cannot be read</b>, the first: {{ missing[0] }}. If they moved, give their folder by
<code>--images</code>.</p>{% endif %}

<div class="wide"><table>
<tr><th>run</th><th class="n">accuracy</th>
{% for t in runs[0].reached %}<th class="n">IoU ≥ {{ t }}</th>{% endfor %}
<th class="n">mean IoU</th>
<th class="n">misses</th><th class="n">of them IoU 0,<br>another place</th>
<th class="n">of them IoU 0.25<br>to 0.5, a loose box</th></tr>
{% for r in runs %}
<tr><td class="name">{{ r.name }}{% if r.whole != r.name %}<br>
<small>{{ r.whole }}</small>{% endif %}</td><td class="n">{{ interval(r) }}</td>
{% for share in r.reached.values() %}<td class="n">{{ percent(share) }}</td>{% endfor %}
<td class="n">{{ number(r.miou) }}</td><td class="n">{{ '{:,}'.format(r.misses) }}</td>
<td class="n">{% if r.misses %}{{ percent(r.apart / r.misses) }}{% endif %}</td>
<td class="n">{% if r.misses %}{{ percent(r.loose / r.misses) }}{% endif %}</td></tr>
{% endfor %}
</table></div>

{% if paired %}
<h2>From “{{ runs[0].name }}” to “{{ runs[1].name }}”</h2>
<p>{{ points(paired.difference) }} points of accuracy. If both were equally
good, a difference at least as large had the probability {{ number(paired.p) }}
(p of the exact McNemar test).</p>
<table>
<tr><th></th><th class="n">“{{ runs[1].name }}” hits</th>
<th class="n">“{{ runs[1].name }}” misses</th></tr>
<tr><th>“{{ runs[0].name }}” hits</th>
<td class="n">{{ '{:,}'.format(paired.both) }}</td>
<td class="n">{{ '{:,}'.format(paired.lost) }} lost</td></tr>
<tr><th>“{{ runs[0].name }}” misses</th>
<td class="n">{{ '{:,}'.format(paired.gained) }} gained</td>
<td class="n">{{ '{:,}'.format(paired.neither) }}</td></tr>
</table>
{% endif %}

<h2 id="all">All predictions</h2>
<figure><img alt="Histogram of IoU, and accuracy by threshold"
 src="data:image/png;base64,{{ ious }}"></figure>

{% if weak %}
<h2 id="weak">Where most is lost</h2>
<p>Groups whose interval ends below the accuracy of all predictions. Hits lost: how many
more there were, if the group were as good as all.</p>
<div class="wide"><table>
<tr>{% if paired %}<th>run</th>{% endif %}<th>by</th><th>group</th>
<th class="n">predictions</th><th class="n">accuracy</th>
<th class="n">hits lost</th></tr>
{% for g in weak %}
<tr>{% if paired %}<td>{{ g.run }}</td>{% endif %}<td>{{ g.grouping }}</td>
<td>{{ g.group }}</td><td class="n">{{ '{:,}'.format(g.count) }}</td>
<td class="n">{{ interval(g) }}</td><td class="n">{{ '%.0f' % g.lost }}</td></tr>
{% endfor %}
</table></div>
{% endif %}

{% for s in sections %}
<h2 id="g{{ loop.index }}">{{ s.title }}</h2>
{% if s.note %}<p>{{ s.note }}</p>{% endif %}
<div class="beside"><img alt="Accuracy by group: {{ s.title }}"
 src="data:image/png;base64,{{ s.image }}">
<div class="wide"><table>
<tr><th>group</th><th class="n">predictions</th>
{% for r in runs %}<th class="n name">{{ r.name if paired else 'accuracy' }}</th>
{% endfor %}
{% if paired %}<th class="n">points</th><th class="n">gained</th><th class="n">lost</th>
<th class="n">p</th>{% else %}<th class="n">mean IoU</th>{% endif %}</tr>
{% for row in s.rows %}
<tr><td>{{ row.name }}</td><td class="n">{{ '{:,}'.format(row.parts[0].count) }}</td>
{% for part in row.parts %}
<td class="n">{% if paired %}{{ percent(part.accuracy) }}
{% else %}{{ interval(part) }}{% endif %}</td>{% endfor %}
{% if paired %}<td class="n">{{ points(row.paired.difference) }}</td>
<td class="n">{{ '{:,}'.format(row.paired.gained) }}</td>
<td class="n">{{ '{:,}'.format(row.paired.lost) }}</td>
<td class="n">{% if row.paired.p < 0.05 %}<b>{{ number(row.paired.p) }}</b>
{% else %}{{ number(row.paired.p) }}{% endif %}</td>
{% else %}<td class="n">{{ number(row.parts[0].miou) }}</td>{% endif %}</tr>
{% endfor %}
</table></div></div>
{% endfor %}
{% if paired %}<p>p is not corrected for the number of groups: of twenty groups without
any difference, about one is bold.</p>{% endif %}

{% if calibration %}
<h2 id="score">Score</h2>
<p>What predictions reach, by the model's own score in ten bins; on the dotted line the
score is what to expect.
{% for name, scored in calibration.runs.items() %}
{% if paired %}“{{ name }}”: {% endif %}Mean distance of score and IoU
{{ number(scored.error) }}{% if scored.auroc is not none %}; a hit scores higher than a
miss in {{ percent(scored.auroc) }} of pairs{% endif %}.
{% endfor %}</p>
<img alt="Accuracy by score" src="data:image/png;base64,{{ calibration.image }}">
<h3>Abstention</h3>
<p>If only predictions whose score reaches a threshold are shown: how many these are,
and how many of them miss, at every threshold; the dot is all of them.
<code>tools/analysis/choose_threshold.py</code> chooses one for a wanted risk.</p>
<img alt="Risk by coverage" src="data:image/svg+xml;base64,{{ calibration.risk }}">
{% endif %}

{% for e in examples %}
<h2 id="e{{ loop.index }}">{{ e.title }}</h2>
<p>{{ e.cards|length }} of {{ '{:,}'.format(e.total) }}: {{ e.note }}. Dashed black:
the true box; <span class="hit">green</span>: a hit, <span class="miss">red</span>: a
miss{% if e.paired %}; broken line: “{{ runs[0].name }}”, solid:
“{{ runs[1].name }}”{% endif %}.</p>
<div class="cards">
{% for c in e.cards %}
<figure class="card">
{% if c.image %}<img alt="{{ c.text }}" loading="lazy"
 src="data:image/jpeg;base64,{{ c.image }}">
{% else %}<div class="none">image not found,<br>or not to be read</div>{% endif %}
<b>{{ c.text }}</b><br>
{% for p in c.predictions %}
{% if e.paired %}{{ p.name }}: {% endif %}IoU {{ '%.2f' % p.iou }}
{%- if p.score is not none %}, score {{ '%.2f' % p.score }}{% endif %}<br>
{% endfor %}
<small title="{{ c.path }}">{{ c.sample_id }} · {{ c.file }}</small>
</figure>
{% endfor %}
</div>
{% endfor %}
{% endblock %}"""


@dataclass
class _Run:
    """The results of a run.

    Args:
        whole (str): Its name.
        results (list[dict]): Of ``read_results``.
        name (str): Its name on the page, where a long one would not fit.
    """

    whole: str
    results: Sequence[Mapping[str, Any]]
    name: str
    ious: np.ndarray = field(init=False)
    scores: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.ious = np.array([result['iou'] for result in self.results])
        self.scores = np.array([result.get('score') for result in self.results], float)


def write_error_report(
    out: Path,
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    images: Path | None = None,
    examples: int = 12,
    seed: int = 0,
) -> Path:
    """Show where a run is wrong.

    Args:
        out (Path): The HTML page.
        runs (Mapping[str, Sequence[Mapping]]): Results (``read_results``) by the name
            of the run; one, or two of the same samples in the same order.
        images (Path, optional): Folder that the images moved to. Defaults to None.
        examples (int): Of each kind. Defaults to 12.
        seed (int): Which of equally good or bad ones are shown. Defaults to 0.

    Returns:
        Path: ``out``, a page that needs no other file.
    """
    # Of one run the name is in the title and the first table alone.
    names = [shorten(name) if len(runs) > 1 else name for name in runs]
    if len({*names}) < len(names):
        names = [f'{number}: {name}' for number, name in enumerate(names, 1)]
    every = [
        _Run(whole, results, name)
        for (whole, results), name in zip(runs.items(), names, strict=True)
    ]
    results = every[0].results
    sizes = image_sizes((r['image'] for r in results), images)
    groupings = _groupings(results, sizes)
    tested = sorted(image for image in sizes if image is not None)
    # Figures go into the page in base64; their files are not left behind.
    with TemporaryDirectory() as folder:
        figures = partial(png, path=Path(folder, 'figure.png'))
        return write_page(
            out,
            _PAGE,
            title='Errors: ' + ' and '.join(run.name for run in every),
            runs=[_overview(run) for run in every],
            image_count=len(tested),
            missing=[image for image in tested if np.isnan(sizes[image][0])],
            paired=_paired(every),
            ious=figures(draw_ious({run.name: run.ious for run in every})),
            weak=[group for run in every for group in _weak(run, groupings)],
            sections=[
                _section(title, grouping, every, figures)
                for title, grouping in groupings.items()
            ],
            calibration=_calibrations(every, figures),
            examples=_examples(every, examples, np.random.default_rng(seed), images),
            percent=_percent,
            number=_number,
            points=_points,
        )


def find_image(image: str | None, folder: Path | None = None) -> Path | None:
    """The file of an image.

    Args:
        image (str, optional): As the results name it.
        folder (Path, optional): Folder that the images moved to: below it, the
            longest end of ``image`` that is a file. Defaults to None: not moved.

    Returns:
        Path, optional: None where there is no such file.
    """
    if image is None:
        return None
    if folder is None:
        return Path(image) if Path(image).is_file() else None
    # No '..': an image named so would be looked for outside of the folder.
    parts = [p for p in Path(image).parts if p not in (Path(image).anchor, '..')]
    ends = (folder.joinpath(*parts[start:]) for start in range(len(parts)))
    return next((path for path in ends if path.is_file()), None)


def image_sizes(
    images: Iterable[str | None], folder: Path | None = None
) -> dict[str | None, tuple[float, float]]:
    """(width, height) of each image; NaN where it cannot be read.

    Only the heads of the files are read, once each.
    """
    return {image: _size(find_image(image, folder)) for image in set(images)}


def _size(path: Path | None) -> tuple[float, float]:
    if path is None:
        return float('nan'), float('nan')
    try:
        with open_image(path) as image:
            return image.size
    except UNREADABLE:
        return float('nan'), float('nan')


def _percent(share: float) -> str:
    """A share, to a tenth of a percent."""
    return f'{100 * share:.1f} %'


def _points(difference: float) -> str:
    """A difference of shares, with its sign."""
    return f'{100 * difference:+.1f}'.replace('-', '−')


def _number(value: float | None) -> str:
    """A number of three digits; small ones as such."""
    if value is None:
        return '–'
    return '< 0.001' if 0 <= value < 0.001 else f'{value:.3f}'


def _groupings(
    results: Sequence[Mapping[str, Any]],
    sizes: Mapping[str | None, tuple[float, float]],
) -> dict[str, Grouping]:
    """The groupings of the results that have several groups."""
    texts = [result['text'] for result in results]
    images = [result['image'] for result in results]
    boxes = np.array([result['gt_bbox'] for result in results], dtype=float)
    of_boxes = np.array([sizes[image] for image in images], dtype=float)
    groupings = {
        'Words of the expression': by_length(texts),
        'Kinds of words': by_word_category(texts),
        'Size of the true box': by_box_size(boxes, of_boxes),
        'Expressions of the same image': by_crowd(images),
        'Split': by_value([result['split'] for result in results]),
        'Source': by_value([result['source'] for result in results]),
    }
    return {
        title: grouping for title, grouping in groupings.items() if len(grouping) > 1
    }


def _overview(run: _Run) -> dict[str, Any]:
    misses = run.ious[run.ious < HIT]
    return dict(
        summary(run.ious),
        name=run.name,
        whole=run.whole,
        reached={t: float((run.ious >= t).mean()) for t in _THRESHOLDS},
        misses=len(misses),
        apart=int((misses == 0).sum()),
        loose=int((misses >= _LOOSE).sum()),
    )


def _paired(runs: Sequence[_Run]) -> dict[str, Any] | None:
    return compare(runs[0].ious, runs[1].ious) if len(runs) > 1 else None


def _weak(run: _Run, groupings: Mapping[str, Grouping]) -> list[dict[str, Any]]:
    parts = {title: breakdown(run.ious, g) for title, g in groupings.items()}
    weak = weak_groups(parts, summary(run.ious)['accuracy'])
    return [dict(group, run=run.name) for group in weak[:_WEAK]]


def _section(
    title: str, grouping: Grouping, runs: Sequence[_Run], figures: _Figures
) -> dict[str, Any]:
    """A chart of a grouping, and its table."""
    parts = {run.name: breakdown(run.ious, grouping) for run in runs}
    paired = (
        compare_groups(runs[0].ious, runs[1].ious, grouping) if len(runs) > 1 else {}
    )
    whole = [summary(run.ious)['accuracy'] for run in runs]
    return dict(
        title=title,
        note=_NOTES.get(title),
        image=figures(draw_groups(parts, whole)),
        rows=[
            dict(
                name=name,
                parts=[groups[name] for groups in parts.values()],
                paired=paired.get(name),
            )
            for name in grouping
        ],
    )


def _calibrations(runs: Sequence[_Run], figures: _Figures) -> dict[str, Any] | None:
    """Calibration of the runs whose scores differ; None without one."""
    every = {run.name: calibration(run.ious, run.scores) for run in runs}
    known = {name: value for name, value in every.items() if value is not None}
    if not known:
        return None
    curves = {
        run.name: risk_coverage(run.scores[given], run.ious[given] >= HIT)
        for run in runs
        if run.name in known
        for given in [~np.isnan(run.scores)]
    }
    return dict(
        image=figures(draw_calibration(known)),
        risk=svg(draw_risk_coverage(curves)),
        runs=known,
    )


def _examples(
    runs: Sequence[_Run], count: int, rng: np.random.Generator, images: Path | None
) -> list[dict[str, Any]]:
    """What is gained and lost, and the worst and best of each run."""
    # One number a sample, so that two runs show the same of equally bad ones.
    chance = rng.random(len(runs[0].ious))
    kinds = _changes(runs[0], runs[1], chance) if len(runs) > 1 else []
    for run in runs:
        kinds += _extremes(run, f' of {run.name}' if len(runs) > 1 else '', chance)
    return [
        dict(
            title=kind.title,
            note=kind.note,
            total=len(kind.order),
            paired=len(kind.runs) > 1,
            cards=[_card(int(i), kind.runs, images) for i in kind.order[:count]],
        )
        for kind in kinds
    ]


class _Kind(NamedTuple):
    """A kind of examples: which predictions, the most telling first, of which runs."""

    title: str
    note: str
    order: np.ndarray
    runs: Sequence[_Run]


def _changes(one: _Run, other: _Run, chance: np.ndarray) -> list[_Kind]:
    """What the second run gains and loses."""
    kinds = []
    for title, better, worse in (('Gained', other, one), ('Lost', one, other)):
        change = better.ious - worse.ious
        order = np.lexsort((chance, -change))
        order = order[((better.ious >= HIT) & (worse.ious < HIT))[order]]
        who = f'“{better.name}” hits, “{worse.name}” misses'
        note = f'{who}; the largest changes first'
        kinds.append(_Kind(title, note, order, (one, other)))
    return kinds


def _extremes(run: _Run, of: str, chance: np.ndarray) -> list[_Kind]:
    """The worst misses and the best hits."""
    surest = '' if np.isnan(run.scores).all() else 'the surest, then '
    worst = np.lexsort((chance, -np.nan_to_num(run.scores), run.ious))
    worst = worst[run.ious[worst] < HIT]
    best = np.lexsort((chance, -run.ious))
    best = best[run.ious[best] >= HIT]
    note = f'the lowest IoU; of equals, {surest}by chance'
    return [
        _Kind(f'Worst{of}', note, worst, (run,)),
        _Kind(f'Best{of}', 'the highest IoU', best, (run,)),
    ]


def _card(index: int, runs: Sequence[_Run], images: Path | None) -> dict[str, Any]:
    """One example: its image, or None where it cannot be read, and the text below."""
    results = [run.results[index] for run in runs]
    first = results[0]
    return dict(
        text=first['text'],
        sample_id=first['sample_id'],
        path=first['image'],
        file=Path(first['image'] or 'no image').name,
        image=_encoded(find_image(first['image'], images), results),
        predictions=[
            dict(
                name=run.name,
                iou=result['iou'],
                score=result.get('score'),
            )
            for run, result in zip(runs, results, strict=True)
        ],
    )


def _encoded(path: Path | None, results: Sequence[Mapping[str, Any]]) -> str | None:
    try:
        image = None if path is None else draw_results(path, results)
    except UNREADABLE:
        image = None
    if image is None:
        return None
    buffer = io.BytesIO()
    image.save(buffer, 'JPEG', quality=82)
    return base64.b64encode(buffer.getvalue()).decode()
