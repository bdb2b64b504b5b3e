"""Images of shapes and colours that no tower of ours was pretrained on.

As the built-in toy data set, but none of its six shapes and eight colours is in them.
The words are new, too: the tiny CLIP has zeros for tokens that it never read, and is
given the random embeddings here that any CLIP has for words it hardly knows.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from projects.clip_vg.synthetic import scenes
from projects.clip_vg.synthetic.expressions import Shape, choose, describe
from projects.clip_vg_core.utils.atomic import replacing

__all__ = ['COLORS', 'SHAPES', 'draw_novel', 'make_novel', 'with_all_words']

# Corners in a square of 1, clockwise; each touches all its sides.
SHAPES: dict[str, list[tuple[float, float]]] = {
    'arrow': [(0, 0.3), (0.55, 0.3), (0.55, 0), (1, 0.5), (0.55, 1), (0.55, 0.7)]
    + [(0, 0.7)],
    'house': [(0.5, 0), (1, 0.45), (0.85, 0.45), (0.85, 1), (0.15, 1)]
    + [(0.15, 0.45), (0, 0.45)],
    'hourglass': [(0, 0), (1, 0), (0.6, 0.5), (1, 1), (0, 1), (0.4, 0.5)],
    'bolt': [(0.55, 0), (1, 0), (0.65, 0.4), (0.95, 0.4), (0.2, 1), (0.4, 0.55)]
    + [(0, 0.55)],
    'hook': [(0, 0), (0.35, 0), (0.35, 0.65), (1, 0.65), (1, 1), (0, 1)],
    'table': [(0, 0), (1, 0), (1, 1), (0.75, 1), (0.75, 0.35), (0.25, 0.35)]
    + [(0.25, 1), (0, 1)],
}
COLORS = {
    'pink': (245, 150, 195),
    'brown': (121, 74, 40),
    'teal': (16, 128, 128),
    'navy': (24, 30, 96),
    'lime': (180, 228, 48),
    'maroon': (112, 20, 52),
    'cyan': (84, 216, 232),
    'beige': (232, 214, 170),
}


def draw_novel(
    size: tuple[int, int], objects: list[Shape], rng: np.random.Generator
) -> Image.Image:
    """Paint an image: (width, height) in pixels, boxes xyxy in pixels."""
    scale = 3  # drawn larger and shrunk: smooth edges
    ground = scenes.draw(size, [], rng)
    canvas = ground.resize((size[0] * scale, size[1] * scale), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(canvas)
    for item in objects:
        shade = np.array(COLORS[item.color]) + rng.normal(0, 8, 3)
        color = tuple(shade.clip(0, 255).astype(int).tolist())
        left, top, right, bottom = (edge * scale for edge in item.box)
        corners = [
            (left + x * (right - left - 1), top + y * (bottom - top - 1))
            for x, y in SHAPES[item.shape]
        ]
        edge = tuple(int(c * 0.72) for c in color)
        pen.polygon(corners, fill=color, outline=edge)
    return canvas.resize(size, Image.Resampling.BOX)


def make_novel(root: Path, images: dict[str, int], seed: int) -> Path:
    """Make ``root/images`` and ``root/labels.jsonl``, a row for each expression.

    Args:
        root (Path): Output folder; what is complete there is not made again.
        images (dict[str, int]): Number of images of each split.
        seed (int): Decides everything.

    Returns:
        Path: ``root``.
    """
    labels = root / 'labels.jsonl'
    if labels.is_file():  # written last
        return root
    (root / 'images').mkdir(parents=True, exist_ok=True)
    rows = []
    for split, count in images.items():
        for number in range(count):
            rng = np.random.default_rng([seed, *split.encode(), number])
            size, plain = scenes.sample_scene(rng, scenes.LARGE_SIDES)
            objects = [
                Shape(
                    str(rng.choice(list(SHAPES))),
                    str(rng.choice(list(COLORS))),
                    item.size,
                    item.box,
                )
                for item in plain
            ]
            name = f'{split}_{number:05d}.png'
            draw_novel(size, objects, rng).save(root / 'images' / name)
            for _, text, index in choose(list(describe(size, objects, rng)), 4, rng):
                box = [round(edge, 2) for edge in objects[index].box]
                rows.append(dict(image=name, text=text, bbox=box, split=split))
    with replacing(labels) as partial:
        partial.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return root


def with_all_words(source: Path, path: Path) -> Path:
    """Write the tiny CLIP with embeddings of tokens that it never read.

    Args:
        source (Path): Its weights, in which these are zeros.
        path (Path): Output file; not written again if it is there.

    Returns:
        Path: ``path``.
    """
    if path.is_file():
        return path
    state: dict[str, Any] = load_file(source)
    words = state['token_embedding.weight']
    unseen = (words == 0).all(1)
    drawn = torch.randn(words.shape, generator=torch.Generator().manual_seed(0))
    # As open_clip initialises them.
    words[unseen] = (0.02 * drawn[unseen]).to(words.dtype)
    with safe_open(source, 'pt') as file:
        metadata = file.metadata()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        save_file(state, partial, metadata=metadata)
    return path
