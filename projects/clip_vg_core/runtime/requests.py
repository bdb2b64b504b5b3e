"""A request to ground expressions in an image: JSON that a stranger may have sent."""

import base64
import binascii
import io
import json
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..utils.image_files import as_rgb, check_size
from .limits import Limits

__all__ = ['GroundingRequest', 'RequestError', 'decode_image', 'parse_request']

# Pillow's other readers are less used, and some run programs.
_FORMATS = ('JPEG', 'PNG', 'WEBP', 'GIF', 'BMP', 'TIFF')
# Of a JPEG. Cameras and browsers write a dozen; each takes as long as the whole image.
_MOST_SCANS = 100
_KEYS = ['image', 'expressions']


class RequestError(ValueError):
    """A request that is refused.

    Args:
        status (int): Of HTTP, 400 to 499, or 503.
        text (str): What is wrong, for whoever sent it.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class GroundingRequest(NamedTuple):
    """What is to be grounded.

    Attributes:
        image (bytes): A file.
        expressions (list[str]): At least one, none of them blank.
    """

    image: bytes
    expressions: list[str]


def parse_request(body: bytes, limits: Limits) -> GroundingRequest:
    """Read ``{"image": base64 of a file, "expressions": [...]}``.

    Args:
        body (bytes): JSON.
        limits (Limits): How much is taken.

    Raises:
        RequestError: It is no such JSON, or has more than is taken.
    """
    _check_structure(body, limits)
    try:
        entry = json.loads(body)
    # Nested too deep, or a number of thousands of digits.
    except (ValueError, RecursionError):
        raise RequestError(400, 'The body is not valid JSON.') from None
    if not isinstance(entry, dict):
        raise RequestError(400, f'Expected a JSON object with {_KEYS}.')
    missing = [key for key in _KEYS if key not in entry]
    unknown = [key[:40] for key in entry if key not in _KEYS][:3]
    if missing or unknown:
        raise RequestError(
            400,
            f'Expected a JSON object with {_KEYS}, and nothing else; '
            f'missing: {missing}, unknown: {unknown}.',
        )
    if not isinstance(entry['image'], str):
        raise RequestError(400, "'image': expected a string, the file in base64.")
    try:
        image = base64.b64decode(entry['image'], validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(
            400, "'image' is not valid base64: expected the bytes of the file in it."
        ) from None
    return GroundingRequest(image, _expressions(entry['expressions'], limits))


def _check_structure(body: bytes, limits: Limits) -> None:
    """Refuse JSON of so many values that reading it would take gigabytes.

    Each value of JSON is at a comma, bracket, brace or quote, and takes up to fifty
    times its bytes of memory; base64 has none of these.
    """
    most = 100 + limits.expressions * (2 * limits.characters + 3)
    if sum(body.count(mark) for mark in b',[{"') > most:
        raise RequestError(
            413,
            f'There are too many values: at most {limits.expressions} expressions of '
            f'{limits.characters} characters are read.',
        )


def _expressions(given: Any, limits: Limits) -> list[str]:
    if not isinstance(given, list) or not given:
        raise RequestError(400, "'expressions': expected a list of one or more.")
    if len(given) > limits.expressions:
        raise RequestError(
            413,
            f"'expressions': there are {len(given)}; at most {limits.expressions} are "
            'grounded at once.',
        )
    for number, text in enumerate(given):
        where = f"'expressions', number {number + 1}"
        if not isinstance(text, str) or not text.strip():
            raise RequestError(400, f'{where}: expected a string that is not blank.')
        if len(text) > limits.characters:
            raise RequestError(
                413,
                f'{where}: it has {len(text)} characters; at most {limits.characters} '
                'are read.',
            )
        # Lone surrogates have no UTF-8; other control characters are no text.
        if any(
            '\ud800' <= c <= '\udfff' or (c < ' ' and c not in '\t\n\r') for c in text
        ):
            raise RequestError(
                400, f'{where}: it has a control character, or half of a character.'
            )
    return given


def decode_image(data: bytes, limits: Limits) -> np.ndarray:
    """An image, upright; its size is looked at before it is decoded.

    Args:
        data (bytes): A file of an image.
        limits (Limits): How large it may be.

    Returns:
        np.ndarray: RGB of shape (H, W, 3), uint8.

    Raises:
        RequestError: It is no image, broken or too large.
    """
    if data.startswith(b'\xff\xd8') and data.count(b'\xff\xda') > _MOST_SCANS:
        raise RequestError(
            400, f'The image is a JPEG of more than {_MOST_SCANS} scans.'
        )
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as file:
            width, height = file.size
            if width * height > limits.pixels:
                raise RequestError(
                    413,
                    f'The image has {width:,} x {height:,} pixels; at most '
                    f'{limits.pixels:,} in all are read.',
                )
            check_size(width, height)
            return np.asarray(as_rgb(file, upright=True))
    except RequestError:
        raise
    except Image.UnidentifiedImageError:
        raise RequestError(
            400, f'The image cannot be read: expected one of {", ".join(_FORMATS)}.'
        ) from None
    except Image.DecompressionBombError:
        raise RequestError(
            413, f'The image is too large: at most {limits.pixels:,} pixels are read.'
        ) from None
    # Each of Pillow's decoders has kinds of its own for broken files.
    except Exception as error:
        raise RequestError(
            400, f'The image is broken, or not as expected: {str(error)[:200]}'
        ) from error
