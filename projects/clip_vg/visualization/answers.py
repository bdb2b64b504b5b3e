"""A picture with its answers: numbered boxes, and a legend below."""

import colorsys
import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ['color_of', 'draw_answers']


def color_of(number: int) -> tuple[int, int, int]:
    """A bright colour, far from those of the numbers before; RGB."""
    golden = 0.618033988749895  # steps of the golden ratio never come close to another
    red, green, blue = colorsys.hsv_to_rgb((0.02 + number * golden) % 1, 0.85, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def _luminance(color: tuple[int, int, int]) -> float:
    """How bright a colour is seen, in [0, 1] (Rec. 709)."""
    red, green, blue = color
    return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255


def draw_answers(
    image: np.ndarray, boxes: Sequence[Sequence[float]], texts: Sequence[str]
) -> np.ndarray:
    """Draw boxes with numbers, and what the numbers were asked for below.

    Args:
        image (np.ndarray): RGB of shape (H, W, 3), uint8.
        boxes (Sequence): N boxes, xyxy in pixels.
        texts (Sequence[str]): Their N expressions.

    Returns:
        np.ndarray: RGB of shape (H + legend, W, 3), uint8; ``image`` is not changed.
    """
    height, width = image.shape[:2]
    unit = max(11, round(max(height, width) / 45))
    font = ImageFont.load_default(unit)
    across = max(8, int(width / (0.55 * unit)) - 4)
    lines = [
        (number, line if place == 0 else f'    {line}', place == 0)
        for number, text in enumerate(texts)
        for place, line in enumerate(textwrap.wrap(text, across) or [''])
    ]
    step = round(1.45 * unit)
    canvas = Image.new('RGB', (width, height + step * len(lines) + unit // 2), 'white')
    canvas.paste(Image.fromarray(np.ascontiguousarray(image)))
    pen = ImageDraw.Draw(canvas)
    for number, box in enumerate(boxes):
        color = color_of(number)
        left, top, right, bottom = box
        thick = max(2, unit // 5)
        right, bottom = max(left, right - 1), max(top, bottom - 1)
        pen.rectangle((left, top, right, bottom), outline=color, width=thick)
        label = str(number + 1)
        wide = pen.textlength(label, font=font) + unit // 2
        corner = (left, max(0, top - step) if top >= step else top)
        pen.rectangle((*corner, corner[0] + wide, corner[1] + step), fill=color)
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
