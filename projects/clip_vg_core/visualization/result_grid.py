"""Results of a test run, and pseudo-labels, drawn on their images."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image, ImageDraw

from ..metrics.breakdown import HIT
from ..utils.image_files import as_rgb, open_image, size_of
from .boxes import NO_TARGET, draw_box

__all__ = [
    'UNREADABLE',
    'draw_corrections',
    'draw_grid',
    'draw_labels',
    'draw_results',
    'read_reduced',
]

# What Pillow raises for a file that is no image.
UNREADABLE = (OSError, ValueError, SyntaxError)
_SIDE = 340  # pixels of an image's longer side, on a page and in a grid
_TRUE, _HIT, _MISS = '#1a1a1a', '#00c853', '#ff1744'
_LINE, _HALO, _DASH = 3, 1, (9, 4)  # pixels


def draw_results(
    path: Path, results: Sequence[Mapping], side: int = _SIDE
) -> Image.Image:
    """Draw the true and the predicted boxes of an expression on a smaller image.

    Args:
        path (Path): The image.
        results (Sequence[Mapping]): Of one run, or of two, whose true box is the same:
            ``iou``, ``bbox`` and ``gt_bbox`` (xyxy in pixels of the image), as
            ``GroundingMetric(out_file=...)`` writes them, or ``gt_bboxes``, a list, in
            the place of the latter; or any number of predicted boxes, as
            :func:`read_set_results` gives them. Of two, the first's line is broken.
        side (int): Pixels of the longer side. Defaults to 340.

    Returns:
        Image.Image: RGB.

    Raises:
        OSError, ValueError, SyntaxError: The image cannot be read.
    """
    upright = any(result.get('upright') for result in results)
    image, scale = read_reduced(path, upright, side)
    pen = ImageDraw.Draw(image)
    for place, result in enumerate(results):
        for box in () if place else _boxes(result, 'gt_bboxes', 'gt_bbox'):
            true = [edge * scale for edge in box]
            draw_box(pen, true, _TRUE, _LINE - 1, halo=_HALO, dash=_DASH)
        dash = _DASH if place < len(results) - 1 else None
        hits = result.get('found', [result.get('iou', 0) >= HIT])
        predicted = _boxes(result, 'bboxes', 'bbox')
        for box, is_hit in zip(predicted, hits, strict=True):
            scaled = [edge * scale for edge in box]
            color = _HIT if is_hit else _MISS
            draw_box(pen, scaled, color, _LINE, halo=_HALO, dash=dash)
    return image


def _value(result: Mapping, measure: str) -> str:
    """What is written below the expression of a result."""
    if 'found' not in result:
        return f'{measure} {result["iou"]:.2f}'
    known = [score for score in result['scores'] if score is not None]
    f1 = f'F1 {result["f1"]:.2f}'
    if result['scores'] and not known:
        return f1
    return f'{f1} ({", ".join(f"{score:.2f}" for score in known) or NO_TARGET})'


def _boxes(item: Mapping, many: str, one: str) -> Sequence[Sequence[float]]:
    """The boxes of a result that has any number of them, or one."""
    return item[many] if many in item else [item[one]]


def read_reduced(path: Path, upright: bool, side: int) -> tuple[Image.Image, float]:
    """Read an image at another size.

    Args:
        path (Path): The image.
        upright (bool): Whether to turn it by its EXIF entry.
        side (int): Pixels of the longer side.

    Returns:
        tuple[Image.Image, float]: RGB, and the factor of its pixels.

    Raises:
        OSError, ValueError, SyntaxError: The image cannot be read.
    """
    with open_image(path) as image:
        size = size_of(image, upright)
        scale = side / max(size)
        shown = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
        # Decodes a large JPEG at less than its size.
        image.draft('RGB', shown)
        return as_rgb(image, upright).resize(shown), scale


def _quoted(text: str, width: int) -> str:
    return textwrap.fill(f'"{text}"', width)


def draw_labels(
    lines: Sequence[Mapping], images: Path, columns: int = 4, upright: bool = False
) -> tuple[Figure, list[str]]:
    """Draw pseudo-labels side by side, each on its image.

    Args:
        lines (Sequence[Mapping]): Of ODVG, one expression each, with ``rule``.
        images (Path): Folder of the images.
        columns (int): Defaults to 4.
        upright (bool): Whether the labels are of images as their EXIF entry turns
            them. Defaults to False.

    Returns:
        tuple[Figure, list[str]]: To be saved by the caller; and the images that
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
            image, scale = read_reduced(images / line['filename'], upright, _SIDE)
        except UNREADABLE:
            missing.append(line['filename'])
            image, scale = Image.new('RGB', (_SIDE, _SIDE), '#eeeeee'), 0.0
        for region in line['grounding']['regions'] if scale else ():
            boxes = region['bbox']
            for box in boxes if isinstance(boxes[0], list) else [boxes]:
                scaled = [edge * scale for edge in box]
                draw_box(ImageDraw.Draw(image), scaled, _HIT, _LINE, halo=_HALO)
        axes.imshow(np.asarray(image))
        text = _quoted(line['grounding']['caption'], 32)
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
    """Draw results side by side.

    Args:
        results (Sequence[Mapping]): As in :func:`draw_results`, with ``text`` and
            ``image``, its file.
        title (str): Above the grid.
        columns (int): Defaults to 4.
        names (tuple[str, str]): What ``bbox`` and ``gt_bbox`` are called. Defaults
            to 'predicted' and 'true'.
        measure (str): What ``iou`` is called. Defaults to 'IoU'.

    Returns:
        Figure: To be saved by the caller.
    """
    predicted = f'{names[0]}, {measure}'
    return _grid(
        [draw_results(Path(result['image']), [result]) for result in results],
        [f'{_quoted(r["text"], 30)}\n{_value(r, measure)}' for r in results],
        title,
        columns,
        [
            Line2D([], [], color=_HIT, linewidth=2.2, label=f'{predicted} >= 0.5'),
            Line2D([], [], color=_MISS, linewidth=2.2, label=f'{predicted} < 0.5'),
            Line2D([], [], color=_TRUE, linestyle='--', linewidth=1.6, label=names[1]),
        ],
    )


def draw_corrections(
    results: Sequence[Mapping], title: str, columns: int = 4
) -> Figure:
    """Draw corrected labels side by side: old and new box, and what was voted for.

    Args:
        results (Sequence[Mapping]): ``image``, its file; ``text``; ``before``, the
            label's box; ``after``, the box it moved to, or None; ``votes``, boxes that
            measurers predicted; all xyxy in pixels; ``upright``.
        title (str): Above the grid.
        columns (int): Defaults to 4.

    Returns:
        Figure: To be saved by the caller.
    """
    images = []
    for result in results:
        image, scale = read_reduced(Path(result['image']), result['upright'], _SIDE)
        pen = ImageDraw.Draw(image)
        for boxes, color, dash in (
            (result['votes'], _MISS, None),
            ([] if result['after'] is None else [result['after']], _HIT, None),
            ([result['before']], _TRUE, _DASH),
        ):
            for box in boxes:
                scaled = [edge * scale for edge in box]
                draw_box(pen, scaled, color, _LINE - 1, halo=_HALO, dash=dash)
        images.append(image)
    name = 'old box' if any(r['after'] for r in results) else 'box of the label'
    lines = [
        Line2D([], [], color=_TRUE, linestyle='--', linewidth=1.6, label=name),
        Line2D([], [], color=_HIT, linewidth=1.6, label='new box'),
        Line2D([], [], color=_MISS, linewidth=1.6, label='vote of a measurer'),
    ]
    drawn = [True, *(any(r[k] for r in results) for k in ('after', 'votes'))]
    legend = [line for line, is_drawn in zip(lines, drawn, strict=True) if is_drawn]
    captions = [_quoted(result['text'], 30) for result in results]
    return _grid(images, captions, title, columns, legend)


def _grid(
    images: Sequence[Image.Image],
    captions: Sequence[str],
    title: str,
    columns: int,
    legend: Sequence[Line2D],
) -> Figure:
    """Images side by side, each with its caption."""
    rows = -(-len(images) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(3.1 * columns, 2.9 * rows + 0.9), squeeze=False
    )
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, image, caption in zip(grid.flat, images, captions, strict=False):
        axes.imshow(np.asarray(image))
        axes.set_title(caption, fontsize=9, parse_math=False)
    # At the left, which is what a phone shows first.
    figure.suptitle(title, fontsize=13, x=0.01, ha='left')
    figure.legend(
        handles=list(legend), loc='lower left', ncols=len(legend), frameon=False
    )
    for _ in range(2):  # how far titles reach depends on the images' final shapes
        figure.tight_layout(rect=(0, 0.05, 1, 0.98))
    return figure
