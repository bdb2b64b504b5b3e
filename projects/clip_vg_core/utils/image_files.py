"""Opening image files that come from anywhere."""

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

__all__ = [
    'MOST_PIXELS',
    'THINNEST',
    'ImageDepthError',
    'ImageSizeError',
    'as_rgb',
    'check_size',
    'has_exif_rotation',
    'load_image',
    'open_image',
    'size_of',
]

# Decoded, and with what is drawn on it, a gigabyte; cameras of 2026 reach 61 million.
MOST_PIXELS = 100_000_000
# Of a thinner image, the 224 pixels that a model sees are two rows.
THINNEST = 100
_ORIENTATION = 0x0112  # of EXIF


class ImageSizeError(ValueError):
    """An image is too large, or too thin."""


class ImageDepthError(ValueError):
    """An image whose values have no known range, such as float."""


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


def has_exif_rotation(image: Image.Image) -> bool:
    """Whether viewers turn or mirror an image, as its EXIF entry asks."""
    return image.getexif().get(_ORIENTATION, 1) not in (0, 1)


def size_of(image: Image.Image, upright: bool = False) -> tuple[int, int]:
    """(width, height) from the head of an image; ``upright`` as in :func:`as_rgb`."""
    width, height = image.size
    # 5 to 8 exchange the sides.
    if upright and image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8):
        return height, width
    return width, height


def as_rgb(image: Image.Image, upright: bool = False) -> Image.Image:
    """An image as RGB with 8 bits a channel.

    16 bits a channel are scaled to 8 (PIL's ``convert`` would cut them at 255).

    Args:
        image (Image.Image): Of any mode.
        upright (bool): Whether to turn it by its EXIF entry, as viewers do. Defaults
            to False: as it is stored.

    Returns:
        Image.Image: RGB.

    Raises:
        ImageDepthError: Its values are 32-bit integers or float, whose range no file
            says.
    """
    if upright:
        image = ImageOps.exif_transpose(image)
    # Older Pillow versions have the 16 bits of a PNG in 32.
    if image.mode.startswith('I;16') or (image.mode == 'I' and image.format == 'PNG'):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ('I', 'F') or ';' in image.mode:
        kind = 'float' if image.mode == 'F' else 'integers'
        raise ImageDepthError(
            f'its channel has 32 bits ({kind}, mode {image.mode!r}), whose range is '
            'not known; expected 8 or 16 bits a channel. Scale it and save it as such'
        )
    return image.convert('RGB')


def load_image(
    image: str | Path | np.ndarray | Image.Image, any_size: bool = False
) -> np.ndarray:
    """An image as RGB of shape (H, W, 3), uint8; files turned by their EXIF entry.

    16 bits a channel are scaled to 8; 32 have no known range and are refused.

    Args:
        image (str, Path, ndarray or PIL.Image): A file, an array (H, W, 3) in BGR as
            OpenCV reads it, or an image of PIL.
        any_size (bool): Whether files of more than 100 million pixels, and strips, are
            read as well. Defaults to False.

    Raises:
        FileNotFoundError: There is no such image.
        ValueError: It cannot be read, is too large, has more than 16 bits a channel,
            or is no array of 8-bit colours.
    """
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(
                f'An array of shape {image.shape} and type {image.dtype}; expected '
                '(H, W, 3) in BGR, uint8.'
            )
        return image[..., ::-1]
    if isinstance(image, Image.Image):
        return np.asarray(as_rgb(image))
    try:
        with open_image(image) as file:
            if not any_size:
                check_size(*file.size)
            return np.asarray(as_rgb(file, upright=True))
    except FileNotFoundError:
        raise FileNotFoundError(f'{image}: no such image.') from None
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f'{image} cannot be read as an image: {error}') from error
