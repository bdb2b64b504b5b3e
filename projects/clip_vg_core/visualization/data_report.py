"""One page that shows what annotation files hold, with labels on their images."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ..data.image_roots import ImageRoots
from ..data.inspection import Inspection
from ..data.inspection_text import by_weight, facts_of, split_table
from ..data.label_checks import Problem
from ..data.label_table import LabelTable
from .boxes import color_of, draw_box
from .page import write_page
from .result_grid import UNREADABLE, read_reduced

__all__ = ['write_data_report']

_SHEETS = 24  # images of each file
_OBJECTS, _TEXTS = 4, 3  # of each image, and expressions of each
_SIDE = 480  # pixels, of which a phone shows most
_LINE, _HALO = 3, 1
_PAGE = """{% extends 'page' %}{% block body %}
<style>
h2, p, li, dd, figcaption { overflow-wrap: anywhere }
.grid { display: grid; gap: 1rem; grid-template-columns:
        repeat(auto-fill, minmax(min(100%, 17rem), 1fr)) }
.grid figure { margin: 0 } .grid img { width: 100% }
.grid figcaption { font-size: .9rem }
.wide th, .wide td { padding: .3rem .45rem }
.grid ul { list-style: none; margin: .2rem 0 0; padding: 0; color: #1a1a1a }
.chip { display: inline-block; width: .8em; height: .8em; margin-right: .4em }
.wide { overflow-x: auto } th { text-align: right } th:first-child { text-align: left }
dt { font-weight: 600 } dd { margin: 0 0 .5rem }
pre { overflow-x: auto; background: #f6f6f6; padding: .8rem; font-size: .85rem }
.error, .warning { border-left: 4px solid #c62828; padding-left: .6rem }
.warning { border-color: #f9a825 }
</style>
{% macro listed(problems) %}
{% for problem in problems %}
<p class="{{ 'error' if problem.spoils_training else 'warning' }}">
<b>{{ problem.kind }}</b>: {{ problem.text }}</p>
{% endfor %}
{% endmacro %}
{% for file in files %}
<h2>{{ file.name }}</h2>
{{ listed(file.problems) }}
{% if not file.problems %}<p>No problems found.</p>{% endif %}
{% if file.rows %}<div class="wide"><table><tr>
{% for head in file.heads %}<th>{{ head }}</th>{% endfor %}</tr>
{% for row in file.rows %}
<tr><td>{{ row[0] }}</td>
{% for cell in row[1:] %}<td class="n">{{ cell }}</td>{% endfor %}
</tr>{% endfor %}</table></div>
<dl>{% for name, text in file.facts %}<dt>{{ name }}</dt><dd>{{ text }}</dd>
{% endfor %}</dl>{% endif %}
{% if file.sheet %}<div class="grid">
{% for card in file.sheet %}
<figure><img alt="{{ card.name }}" src="data:image/jpeg;base64,{{ card.image }}">
<figcaption>{{ card.name }}<ul>
{% for color, text in card.labels %}
<li><span class="chip" style="background:rgb{{ color }}"></span>{{ text }}</li>
{% endfor %}</ul></figcaption></figure>
{% endfor %}</div>{% endif %}
{% endfor %}
{% if leaks %}<h2>Between the files</h2>{{ listed(leaks) }}{% endif %}
{% if config %}<h2>Train on it</h2><pre>{{ config }}</pre>{% endif %}
{% endblock %}"""


def write_data_report(
    out: Path,
    inspections: Sequence[Inspection],
    leaks: Sequence[Problem] = (),
    config: str = '',
    roots: ImageRoots | None = None,
) -> Path:
    """Write what was found in annotation files, with a sheet of labels.

    Args:
        out (Path): The HTML page, which needs no other file.
        inspections (Sequence[Inspection]): Of the files.
        leaks (Sequence[Problem]): Between them. Defaults to ().
        config (str): That trains on them. Defaults to '': left out.
        roots (ImageRoots, optional): Folders of the images. Defaults to None: no
            images are shown.

    Returns:
        Path: ``out``.
    """
    files = [_content(found, roots) for found in inspections]
    title = 'Sanity check of annotations'
    return write_page(out, _PAGE, title=title, files=files, leaks=leaks, config=config)


def _content(found: Inspection, roots: ImageRoots | None) -> dict[str, Any]:
    """What the page shows of a file."""
    content: dict[str, Any] = dict(name=found.name, problems=by_weight(found.problems))
    if found.table is not None:
        heads, rows = split_table(found)
        content.update(heads=heads, rows=rows, facts=facts_of(found))
        if roots is not None and found.boxes['format']:
            content['sheet'] = _sheet(found, found.table, roots)
    return content


def _sheet(
    found: Inspection, table: LabelTable, roots: ImageRoots
) -> list[dict[str, Any]]:
    """Images drawn by chance, the same every time, with some of their labels."""
    rng = np.random.default_rng(0)
    cards: list[dict[str, Any]] = []
    for image in rng.permutation(np.unique(table.image_index)).tolist():
        name = table.images[image]
        upright = bool(found.images.get('upright'))
        try:
            drawn, scale = read_reduced(Path(roots.path(name)), upright, _SIDE)
        except UNREADABLE:
            continue
        labels = _draw(drawn, scale, table, image)
        with io.BytesIO() as file:
            drawn.save(file, 'JPEG', quality=80)
            content = base64.b64encode(file.getvalue()).decode()
        cards.append(dict(name=name, image=content, labels=labels))
        if len(cards) == _SHEETS:
            break
    return cards


def _draw(
    drawn: Image.Image, scale: float, table: LabelTable, image: int
) -> list[tuple[tuple[int, int, int], str]]:
    """Draw the objects of an image; their colours and expressions."""
    pen = ImageDraw.Draw(drawn)
    objects: dict[bytes, list[int]] = {}
    for label in np.flatnonzero(table.image_index == image).tolist():
        objects.setdefault(table.targets(label).tobytes(), []).append(label)
    legend = []
    for number, labels in enumerate(list(objects.values())[:_OBJECTS]):
        targets = table.targets(labels[0])
        for box in targets[np.isfinite(targets).all(1)]:
            draw_box(pen, (box * scale).tolist(), color_of(number), _LINE, halo=_HALO)
        different = dict.fromkeys(table.texts[label] for label in labels)
        texts = ' / '.join([*different][:_TEXTS])
        split = table.split_names[table.splits[labels[0]]]
        count = '' if len(targets) == 1 else f', {len(targets) or "no"} targets'
        legend.append((color_of(number), f'{texts} [{split}{count}]'))
    return legend
