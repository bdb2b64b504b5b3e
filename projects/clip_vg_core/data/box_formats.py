"""Box formats and units of annotation files, and their conversion to xyxy pixels."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

__all__ = [
    'BOX_FORMATS',
    'BOX_UNITS',
    'BoxKind',
    'contradicts',
    'kind_of',
    'fitting_kinds',
    'smart_resize',
    'to_pixels',
    'to_xyxy',
]

BOX_FORMATS = ('xywh', 'xyxy', 'cxcywh')
# 'pixel' of the image; a number N: N is the image's width or height; 'square': 0 to 1
# of the image padded to a square (LLaVA); 'resized': pixels of the image as Qwen2-VL
# and Qwen2.5-VL resize it.
BOX_UNITS = ('pixel', '1', '999', '1000', '1024', 'square', 'resized')
# Of qwen-vl-utils: patches of 14 pixels merged by two, 4 to 16,384 tokens an image.
# Training frameworks set other limits: `box_unit=dict(type='resized', max_pixels=...)`.
RESIZE = dict(factor=28, min_pixels=4 * 28 * 28, max_pixels=16384 * 28 * 28)
# A kind of boxes fits if at most this share contradicts it.
_SLIPS = 0.01
# That the boxes of so many labels all have w > x and h > y is no chance: they are xyxy.
_ENOUGH = 20


class BoxKind(NamedTuple):
    """What the four numbers of a box are: a format and a unit of the above."""

    format: str
    unit: str


def kind_of(box_unit: str | Mapping | None) -> tuple[str | None, dict]:
    """The unit that an option names, and the limits of a resized image.

    Args:
        box_unit (str or Mapping, optional): One of ``BOX_UNITS``, or ``dict(
            type='resized', factor=28, min_pixels=3136, max_pixels=12845056)``.

    Returns:
        tuple[str or None, dict]: The unit, and the arguments of :func:`smart_resize`.

    Raises:
        ValueError: It is none of them.
    """
    resize = dict(RESIZE)
    if isinstance(box_unit, Mapping):
        options = dict(box_unit)
        box_unit = options.pop('type', 'resized')
        whole = all(isinstance(v, int) and v > 0 for v in options.values())
        if box_unit != 'resized' or not whole or not options.keys() <= resize.keys():
            raise ValueError(
                f'box_unit={dict(options, type=box_unit)}; expected dict(type='
                f"'resized') with positive whole numbers for {sorted(resize)}."
            )
        resize.update(options)
    if box_unit is not None and str(box_unit) not in BOX_UNITS:
        raise ValueError(f'box_unit={box_unit!r}; expected one of {BOX_UNITS}.')
    return None if box_unit is None else str(box_unit), resize


def to_xyxy(boxes: np.ndarray, box_format: str) -> np.ndarray:
    """Boxes (N, 4) of one of ``BOX_FORMATS`` as (x1, y1, x2, y2), in the same unit."""
    if box_format == 'xyxy':
        return boxes
    first, extent = boxes[:, :2], boxes[:, 2:]
    if box_format == 'cxcywh':
        first = first - extent / 2
    return np.concatenate([first, first + extent], axis=1)


def smart_resize(
    sizes: np.ndarray, factor: int, min_pixels: int, max_pixels: int
) -> np.ndarray:
    """Sizes that Qwen2-VL and Qwen2.5-VL give images (``qwen_vl_utils.smart_resize``).

    Args:
        sizes (np.ndarray): (N, 2), height and width.
        factor (int): What both sides become multiples of.
        min_pixels (int): Fewer are enlarged.
        max_pixels (int): More are reduced.

    Returns:
        np.ndarray: float64 (N, 2), height and width.
    """
    sizes = np.asarray(sizes, np.float64)
    # Half to even, as Python's round() there.
    rounded = np.maximum(np.round(sizes / factor), 1) * factor
    area = sizes.prod(1, keepdims=True)
    with np.errstate(divide='ignore', invalid='ignore'):
        shrink, grow = np.sqrt(area / max_pixels), np.sqrt(min_pixels / area)
        smaller = np.maximum(np.floor(sizes / shrink / factor), 1) * factor
        larger = np.ceil(sizes * grow / factor) * factor
    pixels = rounded.prod(1, keepdims=True)
    return np.where(
        pixels > max_pixels, smaller, np.where(pixels < min_pixels, larger, rounded)
    )


def _limits(sizes: np.ndarray, unit: str, resize: Mapping[str, int]) -> np.ndarray:
    """(W, H) in a unit, of images of (height, width); NaN where it is unknown."""
    known = np.where(sizes > 0, sizes, np.nan).astype(np.float64)
    if unit == 'resized':
        known = smart_resize(known, **resize)
    elif unit != 'pixel':
        known = np.full_like(known, 1 if unit == 'square' else float(unit))
    return known[:, ::-1]


def to_pixels(
    boxes: np.ndarray, sizes: np.ndarray, unit: str, resize: Mapping[str, int]
) -> np.ndarray:
    """Boxes of a unit in pixels of the original images.

    Args:
        boxes (np.ndarray): (N, 4), xyxy in ``unit``.
        sizes (np.ndarray): (N, 2), height and width of each box's image.
        unit (str): One of ``BOX_UNITS``.
        resize (Mapping[str, int]): Arguments of :func:`smart_resize`.

    Returns:
        np.ndarray: (N, 4), xyxy.
    """
    if unit == 'pixel':
        return boxes
    sides = sizes[:, ::-1].astype(np.float64)
    if unit == 'square':
        longest = sides.max(1, keepdims=True)
        # LLaVA's expand2square pastes the image at half of what it adds, in whole
        # pixels.
        margin = (longest - sides) // 2
        return boxes * longest - np.tile(margin, 2)
    return boxes * np.tile(sides / _limits(sizes, unit, resize), 2)


def contradicts(
    boxes: np.ndarray, sizes: np.ndarray, kind: BoxKind, resize: Mapping[str, int]
) -> np.ndarray:
    """Which boxes are empty, or pass the border of their image, if they are of a kind.

    Args:
        boxes (np.ndarray): (N, 4), as the file has them.
        sizes (np.ndarray): (N, 2), height and width, -1 where unknown: no border.
        kind (BoxKind): A format and a unit.
        resize (Mapping[str, int]): Arguments of :func:`smart_resize`.

    Returns:
        np.ndarray: bool (N, ).
    """
    corners = to_xyxy(boxes, kind.format)
    limits = np.tile(_limits(sizes, kind.unit, resize), 2)
    # Real boxes pass borders by a fraction of a pixel.
    slack = np.where(limits > 1, 1 + 0.01 * limits, 0.01)
    beyond = (corners > limits + slack) | (corners < -np.nan_to_num(slack, nan=1))
    wrong = ~np.isfinite(corners) | beyond
    return wrong.any(1) | ~(corners[:, 2:] > corners[:, :2]).all(1)


def fitting_kinds(
    boxes: np.ndarray,
    sizes: np.ndarray,
    kinds: Sequence[BoxKind],
    resize: Mapping[str, int],
) -> list[BoxKind]:
    """The kinds that boxes can be of, by their order and the borders of the images.

    Args:
        boxes (np.ndarray): (N, 4), as the file has them.
        sizes (np.ndarray): (N, 2), height and width, -1 where unknown.
        kinds (Sequence[BoxKind]): What is possible.
        resize (Mapping[str, int]): Arguments of :func:`smart_resize`.

    Returns:
        list[BoxKind]: Those that at most 1 % of the boxes contradict. Of xyxy and xywh
        the former, where no size is known and 20 boxes or more can be xyxy.
    """
    possible = []
    for kind in kinds:
        wrong = contradicts(boxes, sizes, kind, resize)
        if wrong.mean() <= _SLIPS:
            possible.append(kind)
    formats = {kind.format for kind in possible}
    unknown = not (sizes > 0).any()
    if formats == {'xyxy', 'xywh'} and unknown and len(boxes) >= _ENOUGH:
        possible = [kind for kind in possible if kind.format == 'xyxy']
    return possible
