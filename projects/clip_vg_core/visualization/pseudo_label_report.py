"""One page that shows what labels a generator made, and what it left out."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from .page import PageImage, png, write_page
from .result_grid import draw_labels

__all__ = ['write_label_report']

_EXAMPLES = 12
_BARS = 25
_PAGE = """{% extends 'page' %}{% block body %}
<p>{{ made.labels }} labels for {{ made.images_with_labels }} of {{ made.images }}
images, {{ made.mean_labels_per_image }} an image; {{ made.mean_words }} words and
{{ made.mean_entities }} entities an expression; vocabulary: {{ made.vocabulary }}.</p>
{{ images(figures) }}
{% for name, rows in tables %}
<h2>{{ name }}</h2><table>
{% for key, value in rows %}
<tr><td>{{ key }}</td><td class="n">{{ value }}</td></tr>{% endfor %}
</table>
{% endfor %}
{% endblock %}"""


def _bars(parts: Mapping[str, Mapping[str, float]]) -> Figure:
    """Horizontal bars of several counts."""
    figure, grid = plt.subplots(1, len(parts), figsize=(4.6 * len(parts), 4.6))
    for axes, (name, counted) in zip(np.atleast_1d(grid), parts.items(), strict=True):
        shown = list(counted.items())[:_BARS][::-1]
        axes.barh(range(len(shown)), [value for _, value in shown])
        # A dollar in a word is no mathematics.
        names = [key for key, _ in shown]
        axes.set_yticks(range(len(shown)), names, parse_math=False)
        axes.set_title(name, fontsize=11)
        axes.tick_params(labelsize=8)
    figure.tight_layout()
    return figure


def _examples(labels: Path, count: int) -> list[dict]:
    """Lines drawn at random, the same every time, in one pass."""
    rng = np.random.default_rng(0)
    drawn: list[tuple[int, str]] = []
    with labels.open(encoding='utf-8') as file:
        for number, line in enumerate(file):
            if len(drawn) < count:
                drawn.append((number, line))
            elif (place := int(rng.integers(number + 1))) < count:
                drawn[place] = (number, line)
    return [json.loads(line) for _, line in sorted(drawn)]


def write_label_report(
    labels: Path, manifest: Mapping[str, Any], images: Path | None, out: Path
) -> Path:
    """Draw what a generator made.

    Args:
        labels (Path): ODVG JSON Lines.
        manifest (Mapping): ``statistics`` and ``counts``.
        images (Path, optional): Folder of the images; None draws no examples.
        out (Path): The HTML page, ``NAME.html``; the images are in ``NAME.report``.

    Returns:
        Path: ``out``.
    """
    made, counts = manifest['statistics'], manifest['counts']
    folder = out.with_suffix('.report')
    folder.mkdir(exist_ok=True)
    figures: list[PageImage] = []
    if made['labels']:
        parts = {
            'rules': made['rules'],
            'commonest words': made['commonest_words'],
            'words per expression': made['words_per_label'],
            'labels per image': made['labels_per_image'],
        }
        figures.append(('Labels', '', png(_bars(parts), folder / 'labels.png')))
    if images is not None and made['labels']:
        examples = _examples(labels, _EXAMPLES)
        upright = manifest['settings'].get('inputs', {}).get('upright', False)
        figure, missing = draw_labels(examples, images, upright=upright)
        caption = 'Drawn by chance. The line: the box of the label.'
        if missing:  # labels are complete without their images
            caption += f' Not to be read: {", ".join(missing)}.'
        figures.append(('Examples', caption, png(figure, folder / 'examples.png')))
    left_out = [
        (key.removeprefix('left out: '), value)
        for key, value in sorted(counts.items())
        if key.startswith('left out: ')
    ]
    tables = [
        ('Share of labels with', list(made['shares'].items())),
        ('Read', [(k, v) for k, v in counts.items() if ':' not in k]),
        ('Left out', left_out),
        ('Settings', [(k, json.dumps(v)) for k, v in manifest['settings'].items()]),
    ]
    return write_page(
        out,
        _PAGE,
        title=f'Pseudo-labels: {manifest["settings"]["source"]}',
        made=made,
        figures=figures,
        tables=tables,
    )
