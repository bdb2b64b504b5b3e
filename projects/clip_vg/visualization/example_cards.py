"""Small pictures of single answers, for a page; and where pictures are."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patheffects import withStroke

from projects.clip_vg_core.utils.image_files import as_rgb, open_image, size_of
from projects.clip_vg_core.visualization.result_grid import draw_sample

__all__ = ['UNREADABLE', 'draw_card', 'find_picture', 'picture_sizes']

_SIDE = 340  # pixels of a card's longer side
# What Pillow raises for what is no picture.
UNREADABLE = (OSError, ValueError, SyntaxError)


def find_picture(image: str | None, folder: Path | None = None) -> Path | None:
    """The file of a picture.

    Args:
        image (str, optional): As the answers name it.
        folder (Path, optional): Where pictures moved to: below it, the longest end of
            ``image`` that is a file. Defaults to None: they did not move.

    Returns:
        Path, optional: None where there is no such file.
    """
    if image is None:
        return None
    if folder is None:
        return Path(image) if Path(image).is_file() else None
    parts = [p for p in Path(image).parts if p not in (Path(image).anchor, '..')]
    ends = (folder.joinpath(*parts[start:]) for start in range(len(parts)))
    return next((path for path in ends if path.is_file()), None)


def picture_sizes(
    images: Iterable[str | None], folder: Path | None = None
) -> dict[str | None, tuple[float, float]]:
    """(width, height) of each picture; NaN where it cannot be read.

    Only the heads of the files are read, once each.
    """
    return {image: _size(find_picture(image, folder)) for image in set(images)}


def _size(path: Path | None) -> tuple[float, float]:
    if path is None:
        return float('nan'), float('nan')
    try:
        with open_image(path) as picture:
            return picture.size
    except UNREADABLE:
        return float('nan'), float('nan')


def draw_card(path: Path, results: Sequence[Mapping[str, Any]]) -> str:
    """Draw the answers of one or two runs to one expression.

    Args:
        path (Path): The picture.
        results (Sequence[Mapping]): One or two, as :func:`draw_sample` takes them;
            boxes in pixels of the picture. Of two, the first's line is broken.

    Returns:
        str: A JPEG in base64.

    Raises:
        OSError, ValueError, SyntaxError: The picture cannot be read.
    """
    with open_image(path) as picture:
        upright = any(result.get('upright') for result in results)
        width, height = size_of(picture, upright)
        scale = _SIDE / max(width, height)
        shown = max(1, round(width * scale)), max(1, round(height * scale))
        # Decodes a large JPEG at less than its size.
        picture.draft('RGB', shown)
        pixels = np.asarray(as_rgb(picture, upright).resize(shown))
    figure = plt.figure(figsize=(shown[0] / 100, shown[1] / 100), dpi=100)
    try:
        axes = figure.add_axes((0, 0, 1, 1))
        for place, result in enumerate(results):
            boxes = {
                key: (np.asarray(result[key], dtype=float) * scale).tolist()
                for key in ('bbox', 'gt_bbox')
            }
            draw_sample(axes, pixels, dict(result, **boxes))
            if place < len(results) - 1:
                axes.patches[-1].set_linestyle((0, (5, 1)))
        axes.set_title('')  # the page says it beside the picture
        for patch in axes.patches:  # seen on dark pictures too
            halo = withStroke(linewidth=patch.get_linewidth() + 1.8, foreground='w')
            patch.set_path_effects([halo])
        buffer = io.BytesIO()
        figure.savefig(buffer, format='jpg', pil_kwargs=dict(quality=82))
    finally:
        plt.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()
