"""One picture of many answers: expressions, predicted and true boxes."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from ..utils.image_files import as_rgb, open_image

__all__ = ['draw_grid', 'draw_labels', 'draw_sample']

_TRUE, _HIT, _MISS = '#1a1a1a', '#00c853', '#ff1744'


def draw_sample(
    axes: Axes, image: np.ndarray, result: Mapping, measure: str = 'IoU'
) -> None:
    """Draw one answer.

    Args:
        axes (Axes): Where to.
        image (np.ndarray): RGB of shape (H, W, 3), uint8.
        result (Mapping): ``text``, ``iou``, ``bbox`` and ``gt_bbox`` (xyxy in
            pixels of ``image``), as ``GroundingMetric(out_file=...)`` writes them.
        measure (str): What ``iou`` is called. Defaults to 'IoU'.
    """
    axes.imshow(image)
    axes.set_axis_off()
    hit = result['iou'] >= 0.5
    _draw_box(axes, result['gt_bbox'], _TRUE, '--', 1.6)
    _draw_box(axes, result['bbox'], _HIT if hit else _MISS, '-', 2.4)
    text = textwrap.fill(f'"{result["text"]}"', 30)
    value = f'{measure} {result["iou"]:.2f}'
    axes.set_title(f'{text}\n{value}', fontsize=9, parse_math=False)


def _draw_box(
    axes: Axes, box: Sequence[float], color: str, style: str, width: float
) -> None:
    left, top, right, bottom = box
    axes.add_patch(
        Rectangle(
            (left - 0.5, top - 0.5),
            right - left,
            bottom - top,
            fill=False,
            edgecolor=color,
            linestyle=style,
            linewidth=width,
            # Seen on dark pictures too.
            path_effects=[withStroke(linewidth=width + 1.4, foreground='white')],
        )
    )


def draw_labels(
    lines: Sequence[Mapping], images: Path, columns: int = 4, upright: bool = False
) -> tuple[Figure, list[str]]:
    """Draw labels side by side, each on its image.

    Args:
        lines (Sequence[Mapping]): Of ODVG, one expression each, with ``rule``.
        images (Path): Folder of the pictures.
        columns (int): Defaults to 4.
        upright (bool): Whether the labels are of pictures as their EXIF entry turns
            them. Defaults to False.

    Returns:
        tuple[Figure, list[str]]: To be saved by the caller; and the pictures that
        could not be read.
    """
    missing = []
    rows = -(-len(lines) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(3.1 * columns, 2.9 * rows), squeeze=False
    )
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, line in zip(grid.flat, lines, strict=False):
        try:
            with open_image(images / line['filename']) as picture:
                axes.imshow(np.asarray(as_rgb(picture, upright)))
        except (OSError, ValueError):
            missing.append(line['filename'])
            axes.set_aspect('equal')
        _draw_box(axes, line['grounding']['regions'][0]['bbox'], _HIT, '-', 2.4)
        text = textwrap.fill(f'"{line["grounding"]["caption"]}"', 32)
        axes.set_title(f'{text}\n[{line["rule"]}]', fontsize=9, parse_math=False)
    figure.tight_layout()
    return figure, missing


def draw_grid(
    results: Sequence[Mapping],
    title: str,
    columns: int = 4,
    names: tuple[str, str] = ('predicted', 'true'),
    measure: str = 'IoU',
) -> Figure:
    """Draw answers side by side.

    Args:
        results (Sequence[Mapping]): As in :func:`draw_sample`, with ``image``,
            the picture's file.
        title (str): Above the grid.
        columns (int): Defaults to 4.
        names (tuple[str, str]): What ``bbox`` and ``gt_bbox`` are called. Defaults
            to 'predicted' and 'true'.
        measure (str): What ``iou`` is called. Defaults to 'IoU'.

    Returns:
        Figure: To be saved by the caller.
    """
    rows = -(-len(results) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(3.1 * columns, 2.9 * rows + 0.9), squeeze=False
    )
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, result in zip(grid.flat, results, strict=False):
        with open_image(result['image']) as picture:
            image = np.asarray(as_rgb(picture, bool(result.get('upright'))))
            draw_sample(axes, image, result, measure)
    figure.suptitle(title, fontsize=13)
    answer = f'{names[0]}, {measure}'
    legend = [
        Line2D([], [], color=_HIT, linewidth=2.4, label=f'{answer} >= 0.5'),
        Line2D([], [], color=_MISS, linewidth=2.4, label=f'{answer} < 0.5'),
        Line2D([], [], color=_TRUE, linestyle='--', linewidth=1.6, label=names[1]),
    ]
    figure.legend(handles=legend, loc='lower center', ncols=3, frameon=False)
    for _ in range(2):  # how far titles reach depends on the pictures' final shapes
        figure.tight_layout(rect=(0, 0.05, 1, 0.98))
    return figure
