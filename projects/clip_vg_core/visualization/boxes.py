"""Boxes on images: the one way they are drawn, and predictions with a legend."""

import colorsys
import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = [
    'NO_TARGET',
    'color_of',
    'draw_box',
    'draw_predictions',
    'rows_of_expressions',
]

# What is written of an expression without a box.
NO_TARGET = 'not in this image'
Tag = tuple[float, float, float, float]  # xyxy of a number's background


def draw_box(
    pen: ImageDraw.ImageDraw,
    box: Sequence[float],
    color: str | tuple[int, int, int],
    width: int,
    *,
    halo: int = 0,
    dash: tuple[int, int] | None = None,
) -> None:
    """Outline a box, inside of its edges.

    Args:
        pen (ImageDraw.ImageDraw): Of the image.
        box (Sequence[float]): xyxy in pixels; its last column and row are drawn, the
            ones after them are not.
        color (str or tuple[int, int, int]): As Pillow takes it.
        width (int): Of the line, in pixels.
        halo (int): Width of a white border on both sides of the line, so that it is
            seen on dark images too. Defaults to 0.
        dash (tuple[int, int], optional): Pixels of a dash and of the gap after it.
            Defaults to None: a solid line.
    """
    left, top, right, bottom = box
    # Of a box that is out of order, as untrained models predict, a line is drawn.
    right, bottom = max(left, right - 1), max(top, bottom - 1)
    if halo:
        around = (left - halo, top - halo, right + halo, bottom + halo)
        pen.rectangle(around, outline='white', width=width + 2 * halo)
    if dash is None:
        pen.rectangle((left, top, right, bottom), outline=color, width=width)
        return
    thick = width - 1  # Pillow's rectangles include their last pixel
    for start in range(round(left), round(right) + 1, sum(dash)):
        end = min(start + dash[0] - 1, right)
        for edge in (top, max(top, bottom - thick)):
            pen.rectangle((start, edge, max(start, end), edge + thick), fill=color)
    for start in range(round(top), round(bottom) + 1, sum(dash)):
        end = min(start + dash[0] - 1, bottom)
        for edge in (left, max(left, right - thick)):
            pen.rectangle((edge, start, edge + thick, max(start, end)), fill=color)


def color_of(number: int) -> tuple[int, int, int]:
    """A bright colour, far from those of the numbers before; RGB."""
    golden = 0.618033988749895  # steps of the golden ratio never come close to another
    red, green, blue = colorsys.hsv_to_rgb((0.02 + number * golden) % 1, 0.85, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def _luminance(color: tuple[int, int, int]) -> float:
    """How bright a colour is seen, in [0, 1] (Rec. 709)."""
    red, green, blue = color
    return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255


def _free_corner(
    corner: tuple[float, float],
    size: tuple[float, float],
    tags: Sequence[Tag],
    edges: tuple[float, float],
) -> tuple[float, float]:
    """Where a number hides no other: its place, else to the right of it, else below.

    Args:
        corner (tuple[float, float]): Left and top where it belongs.
        size (tuple[float, float]): Its width and height.
        tags (Sequence[tuple]): Of the numbers before, xyxy.
        edges (tuple[float, float]): Width and height of the image.

    Returns:
        tuple[float, float]: Left and top; where no place is free, ``corner``.
    """
    wide, high = size
    start = max(0.0, min(corner[0], edges[0] - wide - 1))
    left, top = start, max(0.0, min(corner[1], edges[1] - high - 1))
    while top + high < edges[1]:
        right, bottom = left + wide, top + high
        hidden = [
            tag
            for tag in tags
            if left <= tag[2] and tag[0] <= right and top <= tag[3] and tag[1] <= bottom
        ]
        if not hidden:
            return left, top
        left = max(tag[2] for tag in hidden) + 1
        if left + wide >= edges[0]:
            left, top = start, min(tag[3] for tag in hidden) + 1
    return corner


def rows_of_expressions(
    labels: Sequence[int] | None, expressions: int
) -> list[list[int]]:
    """The rows of each expression's boxes, in order.

    Args:
        labels (Sequence[int], optional): The expression of each of N boxes; None: each
            has one.
        expressions (int): E.

    Returns:
        list[list[int]]: Numbers below N, E lists.
    """
    rows: list[list[int]] = [[] for _ in range(expressions)]
    for row, label in enumerate(range(expressions) if labels is None else labels):
        rows[label].append(row)
    return rows


def _legend(
    texts: Sequence[str],
    labels: Sequence[int] | None,
    scores: Sequence[float | None] | None,
) -> list[str]:
    """Expressions with the scores of their boxes, if there are any."""
    lines = []
    for text, rows in zip(texts, rows_of_expressions(labels, len(texts)), strict=True):
        known = [] if scores is None else [scores[row] for row in rows]
        shown = [f'{score:.2f}' for score in known if score is not None]
        if not rows or shown:
            text += f' ({", ".join(shown) or NO_TARGET})'
        lines.append(text)
    return lines


def draw_predictions(
    image: np.ndarray,
    boxes: Sequence[Sequence[float]],
    texts: Sequence[str],
    labels: Sequence[int] | None = None,
    scores: Sequence[float | None] | None = None,
) -> np.ndarray:
    """Draw numbered boxes, and a legend of their expressions below the image.

    Args:
        image (np.ndarray): RGB of shape (H, W, 3), uint8.
        boxes (Sequence): N boxes, xyxy in pixels.
        texts (Sequence[str]): E expressions; in the legend, those without a box are
            marked.
        labels (Sequence[int], optional): The number of each box's expression. Defaults
            to None: there is a box for each, in order.
        scores (Sequence[float or None], optional): Of the boxes, for the legend; None
            where a box has none. Defaults to None: no box has one.

    Returns:
        np.ndarray: RGB of shape (H + legend, W, 3), uint8; ``image`` is not changed.
    """
    height, width = image.shape[:2]
    # Legible when the image is fit to a screen, whatever its resolution.
    unit = max(11, round(max(height, width) / 45))
    font = ImageFont.load_default(unit)
    across = max(8, int(width / (0.55 * unit)) - 4)
    lines = [
        (number, line if place == 0 else f'    {line}', place == 0)
        for number, text in enumerate(_legend(texts, labels, scores))
        for place, line in enumerate(textwrap.wrap(text, across) or [''])
    ]
    step = round(1.45 * unit)
    canvas = Image.new('RGB', (width, height + step * len(lines) + unit // 2), 'white')
    canvas.paste(Image.fromarray(np.ascontiguousarray(image)))
    pen = ImageDraw.Draw(canvas)
    numbers = list(range(len(boxes))) if labels is None else labels
    for number, box in zip(numbers, boxes, strict=True):
        draw_box(pen, box, color_of(number), max(2, unit // 5))
    # Numbers come last: a box that is drawn later would cross them out.
    tags: list[Tag] = []
    for number, box in zip(numbers, boxes, strict=True):
        color = color_of(number)
        left, top = box[:2]
        label = str(number + 1)
        wide = pen.textlength(label, font=font) + unit // 2
        corner = (left, max(0, top - step) if top >= step else top)
        corner = _free_corner(corner, (wide, step), tags, (width, height))
        tags.append((*corner, corner[0] + wide, corner[1] + step))
        pen.rectangle(tags[-1], fill=color)
        ink = 'black' if _luminance(color) > 0.35 else 'white'
        pen.text((corner[0] + unit // 4, corner[1]), label, fill=ink, font=font)
    for place, (number, line, first) in enumerate(lines):
        top = height + unit // 4 + place * step
        if first:
            side = round(0.9 * unit)
            box = (unit // 2, top + unit // 4, unit // 2 + side, top + unit // 4 + side)
            pen.rectangle(box, fill=color_of(number), outline='black')
            line = f'{number + 1}  {line}'
        pen.text((2 * unit, top), line, fill='black', font=font)
    return np.asarray(canvas)
