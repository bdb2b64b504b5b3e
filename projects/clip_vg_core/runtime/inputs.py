"""What an inferencer takes: images and expressions, and a threshold of scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

__all__ = ['Expressions', 'ImageInput', 'check_score_thr', 'list_inputs']

ImageInput = str | Path | np.ndarray | Image.Image
Expressions = str | Sequence[str]


def list_inputs(
    images: Any, expressions: Any
) -> tuple[list[ImageInput], list[list[str]]]:
    """The images, and the expressions of each.

    Args:
        images (str, Path, ndarray, PIL.Image or a list of these): A file, a folder of
            images, an array, or an image of PIL.
        expressions (str or list): For one image one expression or several; for
            several images one expression for all, or a list with an expression or a
            list of them for each.

    Raises:
        ValueError: An expression is empty, or there are not as many expressions as
            images.
    """
    is_file = isinstance(images, (str, Path))
    if is_file and not Path(images).is_dir():
        single, listed = True, [images]
    elif is_file:
        from ..pseudo_labels.predictions import (
            list_images,
        )  # what a start need not wait for

        single = False
        listed = [Path(images) / name for name in list_images(Path(images))]
    else:
        single = isinstance(images, (np.ndarray, Image.Image))
        listed = [images] if single else list(images)
    return listed, _grouped(expressions, len(listed), single)


def check_score_thr(score_thr: float | None, scored: bool, source: str | Path) -> None:
    """Refuse a threshold for boxes without scores, none of which would be left out.

    Args:
        score_thr (float, optional): Least score of a box that is given.
        scored (bool): Whether the detector's boxes have scores.
        source (str or Path): Where the detector is from.

    Raises:
        ValueError: There is a threshold above 0, and there are no scores.
    """
    if score_thr and not scored:
        raise ValueError(
            f'{source}: score_thr={score_thr:g}, but its boxes have no scores, as it '
            'has no confidence head: leave score_thr out, or train one '
            '(docs/confidence.md).'
        )


def _grouped(expressions: Any, count: int, single: bool) -> list[list[str]]:
    """A list of expressions for each of the images."""
    if isinstance(expressions, str):
        grouped = [[expressions]] * count
    elif single:
        grouped = [list(expressions)]
    elif len(expressions) != count:
        raise ValueError(
            f'{count} images and {len(expressions)} lists of expressions: give '
            'an expression, or a list of them, for each image.'
        )
    else:
        grouped = [[e] if isinstance(e, str) else list(e) for e in expressions]
    for number, texts in enumerate(grouped):
        if not texts or not all(isinstance(t, str) and t.strip() for t in texts):
            raise ValueError(
                f'image {number + 1}: the expressions are {texts!r}; expected at '
                'least one, none of them empty.'
            )
    return grouped
