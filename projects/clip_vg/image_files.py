"""Opening image files that come from anywhere."""

import os
from pathlib import Path

from PIL import Image

__all__ = ['MOST_PIXELS', 'THINNEST', 'ImageSizeError', 'check_size', 'open_image']

# Decoded, and with what is drawn on it, a gigabyte; cameras of 2026 reach 61 million.
MOST_PIXELS = 100_000_000
# Of a thinner image, the 224 pixels that a model sees are two rows.
THINNEST = 100


class ImageSizeError(ValueError):
    """An image is too large, or too thin."""


def open_image(path: str | Path) -> Image.Image:
    """Open an image without decoding it; use it in a ``with`` statement.

    Args:
        path (str or Path): A regular file: a pipe or a device would never end.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is something else than a regular file.
        ImageSizeError: It has more pixels than PIL opens (twice
            ``Image.MAX_IMAGE_PIXELS``).
        OSError: PIL does not know what it is.
    """
    if not os.path.isfile(path):
        if os.path.exists(path):
            raise ValueError(f'{path} is no regular file')
        raise FileNotFoundError(f'{path}: no such file')
    try:
        return Image.open(path)
    except Image.DecompressionBombError as error:
        raise ImageSizeError(str(error)) from error


def check_size(width: int, height: int) -> None:
    """Refuse images that take gigabytes, or of which a model would see nothing.

    Args:
        width (int): In pixels.
        height (int): In pixels.

    Raises:
        ImageSizeError: It has over ``MOST_PIXELS``, or one side is over ``THINNEST``
            times the other.
    """
    if width * height > MOST_PIXELS:
        raise ImageSizeError(
            f'it has {width:,} x {height:,} pixels; at most {MOST_PIXELS:,} in all are '
            'read'
        )
    if max(width, height) > THINNEST * min(width, height):
        raise ImageSizeError(
            f'it is a strip of {width:,} x {height:,} pixels; one side may be '
            f'{THINNEST} times the other'
        )
