"""Images of coloured shapes: which objects there are, and how they are painted."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .expressions import Shape

__all__ = ['COLORS', 'LARGE_SIDES', 'SHAPES', 'SIDES', 'draw', 'sample_scene']

SHAPES = ('circle', 'square', 'triangle', 'star', 'cross', 'diamond')
COLORS = {
    'red': (214, 48, 49),
    'green': (38, 166, 91),
    'blue': (41, 98, 214),
    'yellow': (243, 198, 35),
    'purple': (142, 68, 173),
    'orange': (236, 120, 24),
    'black': (38, 38, 42),
    'white': (246, 246, 244),
}
# Least and most side of a small and a big object, as a share of the image's short
# side.
SIDES = {'small': (0.18, 0.23), 'big': (0.31, 0.40)}
# Objects that a small model finds sooner, for what must end in minutes.
LARGE_SIDES = {'small': (0.28, 0.34), 'big': (0.42, 0.52)}


def sample_scene(
    rng: np.random.Generator, sides: Mapping[str, Sequence[float]] = SIDES
) -> tuple[tuple[int, int], list[Shape]]:
    """Draw the size of an image and its objects.

    Args:
        rng (np.random.Generator): Decides everything.
        sides (Mapping[str, Sequence[float]]): As ``SIDES``, which is the default.

    Returns:
        tuple: (width, height) in pixels, and 3 to 5 objects that do not overlap.
    """
    long, short = 160, int(rng.integers(112, 161))
    width, height = (long, short) if rng.random() < 0.7 else (short, long)
    objects: list[Shape] = []
    for _ in range(int(rng.integers(3, 6))):
        for _ in range(30):  # a crowded image gets fewer objects
            size = str(rng.choice(('small', 'big')))
            side = rng.uniform(sides[size][0], sides[size][1]) * short
            left, top = (
                rng.uniform(1, width - side - 1),
                rng.uniform(1, height - side - 1),
            )
            box = (left, top, left + side, top + side)
            if all(_apart(box, other.box) for other in objects):
                objects.append(
                    Shape(
                        str(rng.choice(SHAPES)),
                        str(rng.choice(list(COLORS))),
                        size,
                        box,
                    )
                )
                break
    return (width, height), objects


def _apart(one: tuple[float, ...], other: tuple[float, ...], gap: float = 2.0) -> bool:
    return (
        one[0] > other[2] + gap
        or other[0] > one[2] + gap
        or one[1] > other[3] + gap
        or other[1] > one[3] + gap
    )


def _polygon(shape: str, box: tuple[float, ...]) -> list[tuple[float, float]]:
    """Corners of a shape that touches all sides of its box."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    unit: dict[str, list[tuple[float, float]]] = {
        'square': [(0, 0), (1, 0), (1, 1), (0, 1)],
        'triangle': [(0.5, 0), (1, 1), (0, 1)],
        'diamond': [(0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)],
        'cross': [
            (x / 3, y / 3)
            for x, y in (
                *((1, 0), (2, 0), (2, 1), (3, 1), (3, 2), (2, 2)),
                *((2, 3), (1, 3), (1, 2), (0, 2), (0, 1), (1, 1)),
            )
        ],
        'star': _star(),
    }
    return [(left + x * width, top + y * height) for x, y in unit[shape]]


def _star() -> list[tuple[float, float]]:
    angles = -np.pi / 2 + np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    points = np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None]
    points = (points - points.min(0)) / np.ptp(points, axis=0)
    return [(float(x), float(y)) for x, y in points]


def draw(
    size: tuple[int, int], objects: list[Shape], rng: np.random.Generator
) -> Image.Image:
    """Paint an image.

    Args:
        size (tuple[int, int]): (width, height) in pixels.
        objects (list[Shape]): What is in it.
        rng (np.random.Generator): Decides background and shades.

    Returns:
        Image.Image: RGB.
    """
    scale = 3  # drawn larger and shrunk: smooth edges
    tint = rng.uniform(120, 205, 3)
    slope = rng.uniform(-30, 30, 2)
    across, down = np.linspace(-1, 1, size[0]), np.linspace(-1, 1, size[1])
    light = slope[0] * across[None, :, None] + slope[1] * down[:, None, None]
    noise = rng.normal(0, 4, (size[1], size[0], 1))
    canvas = Image.fromarray((tint + light + noise).clip(0, 255).astype(np.uint8))
    canvas = canvas.filter(ImageFilter.BoxBlur(1)).resize(
        (size[0] * scale, size[1] * scale), Image.Resampling.BILINEAR
    )
    pen = ImageDraw.Draw(canvas)
    for item in objects:
        color = tuple(
            (np.array(COLORS[item.color]) + rng.normal(0, 8, 3))
            .clip(0, 255)
            .astype(int)
            .tolist()
        )
        # The last pixel belongs to what is drawn, so a box ends before it.
        box = [edge * scale - (1 if i > 1 else 0) for i, edge in enumerate(item.box)]
        edge = tuple(int(c * 0.72) for c in color)
        if item.shape == 'circle':
            pen.ellipse(box, fill=color, outline=edge, width=scale)
        else:
            pen.polygon(_polygon(item.shape, tuple(box)), fill=color, outline=edge)
    return canvas.resize(size, Image.Resampling.BOX)
