"""Self-contained HTML pages: one style, figures inside."""

import base64
import io
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from jinja2 import DictLoader, Environment
from matplotlib.figure import Figure

from ..utils.atomic import replacing

__all__ = ['PageImage', 'png', 'shorten', 'svg', 'write_page']

# Name, caption, and the PNG in base64.
PageImage = tuple[str, str, str]
_BASE = """{% macro images(figures) %}
{% for name, caption, image in figures %}
<h2>{{ name }}</h2>
<figure><img alt="{{ name }}" src="data:image/png;base64,{{ image }}">
<figcaption>{{ caption }}</figcaption></figure>
{% endfor %}
{% endmacro %}<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<meta name="viewport" content="width=device-width">
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto;
       padding: 0 1rem; color: #1a1a1a }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: left }
td.n { text-align: right; font-variant-numeric: tabular-nums }
tr.best { background: #e8f5e9 } img { max-width: 100% } figure { margin: 1rem 0 }
figcaption { color: #555 } body { overflow-wrap: anywhere }
/* On a phone figures and tables keep a size that can be read, and scroll. */
@media (max-width: 700px) { figure, table { overflow-x: auto }
  table { display: block } td, th { overflow-wrap: normal; white-space: nowrap }
  figure img { max-width: 860px } }
</style></head><body>
<h1>{{ title }}</h1>
{% block body %}{% endblock %}
</body></html>
"""


def png(figure: Figure, path: Path) -> str:
    """Save a figure and close it.

    Args:
        figure (Figure): To be drawn.
        path (Path): A PNG.

    Returns:
        str: Its bytes in base64, for a page.
    """
    with replacing(path) as partial:
        figure.savefig(partial, dpi=90)
    plt.close(figure)
    return base64.b64encode(path.read_bytes()).decode()


def shorten(text: str, most: int = 32) -> str:
    """A name of at most so many characters, without its middle if it is longer."""
    if len(text) <= most:
        return text
    # More of its end, which tells paths and trials apart.
    head = (most - 1) // 3
    return f'{text[:head]}…{text[len(text) - (most - 1 - head) :]}'


def svg(figure: Figure) -> str:
    """Draw a figure as SVG and close it.

    Args:
        figure (Figure): To be drawn.

    Returns:
        str: Its bytes in base64, for a page; the same for the same figure.
    """
    buffer = io.BytesIO()
    # Letters as outlines: the page needs no font. Ids of clips by a fixed salt.
    with plt.rc_context({'svg.fonttype': 'path', 'svg.hashsalt': 'clip_vg'}):
        figure.savefig(buffer, format='svg', metadata=dict(Date=None))
    plt.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()


def write_page(path: Path, template: str, **content: Any) -> Path:
    """Write a page that needs no other file.

    Args:
        path (Path): The HTML file.
        template (str): Jinja; begins with ``{% extends 'page' %}`` and fills the block
            ``body``; ``images(figures)`` shows a list of :data:`PageImage`.
        content: What the template names; ``title`` at least.

    Returns:
        Path: ``path``.
    """
    pages = DictLoader(dict(page=_BASE, this=template))
    # Names and expressions come from data: escaped, and never read as a template.
    page = Environment(autoescape=True, loader=pages).get_template('this')
    with replacing(path) as partial:
        # JSON can have halves of characters, which no file can.
        partial.write_text(
            page.render(**content), encoding='utf-8', errors='xmlcharrefreplace'
        )
    return path
