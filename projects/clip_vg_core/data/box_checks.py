"""Whether boxes are what they are taken for: pixels, and xywh or xyxy."""

from collections.abc import Callable, Iterator

import numpy as np

from .label_table import LabelTable, box_faults

__all__ = ['MANY_INVALID', 'check_fit', 'check_units']

# A box may pass the border by this share of the side, in this share of the labels.
_BEYOND, _SHARE = 0.1, 0.01
# More invalid boxes than this share are no slips.
MANY_INVALID = 0.05


def check_units(boxes: np.ndarray, describe: Callable[[int], str]) -> None:
    """Refuse boxes that are fractions of the image.

    Args:
        boxes (np.ndarray): (N, 4), xywh or xyxy as the file has them.
        describe (Callable): From the position of a label to file and entry.

    Raises:
        ValueError: All lie in [0, 1], with fractions.
    """
    finite = np.isfinite(boxes).all(1)
    known = boxes[finite]
    within = len(known) and ((known >= 0) & (known <= 1)).all()
    # Of whole pixels, a box of one is possible.
    if within and (known % 1 != 0).any():
        first = int(np.flatnonzero(finite)[0])
        raise ValueError(
            f'{describe(first)}: the box is {boxes[first].tolist()}, and all boxes of '
            f'the {len(boxes):,} labels lie in [0, 1]: they look normalised (fractions '
            "of the image's width and height); expected pixels. Say `box_unit='1'` "
            '(--box-unit 1), or multiply x by the width and y by the height first.'
        )


def check_fit(table: LabelTable, where: str) -> None:
    """Refuse boxes that pass the borders of their images, as boxes in pixels do not.

    Args:
        table (LabelTable): Labels; those of images of unknown size are not looked at.
        where (str): The files, for the error.

    Raises:
        ValueError: Over 1 % of the labels pass a border by over 10 % of the side; it
            says which format or unit they look like.
    """
    owners = table.box_owners()
    sizes = table.sizes[table.image_index[owners]]
    faulty = np.any([mask for _, mask in box_faults(table.boxes, sizes)], axis=0)
    known = (sizes > 0).all(1)
    # Width and height twice, as a box has them.
    sides = sizes[:, [1, 0, 1, 0]].astype(np.float64)
    with np.errstate(invalid='ignore'):
        beyond = (table.boxes > (1 + _BEYOND) * sides) | (
            table.boxes < -_BEYOND * sides
        )
    # Boxes wholly outside, and empty ones, are counted as invalid.
    beyond = beyond.any(1) & known & ~faulty
    count = int(beyond.sum())
    if count <= _SHARE * known.sum():
        return
    first = int(np.flatnonzero(beyond)[0])
    label = table[int(owners[first])]
    looks = ' or '.join(_looks_like(table.boxes[known], sides[known]))
    raise ValueError(
        f'{where}: {count:,} of {int(known.sum()):,} boxes pass the border of the '
        f'image by over {_BEYOND:.0%}, e.g. {table.boxes[first].tolist()} (xyxy) of '
        f'{label["sample_id"]!r} in {label["image"]}, which is {label["width"]} x '
        f'{label["height"]} (W x H). They look like {looks}. Expected pixels of the '
        'image: correct the file, or say `box_format` or `box_unit` (--box-format, '
        '--box-unit).'
    )


def _looks_like(boxes: np.ndarray, sides: np.ndarray) -> Iterator[str]:
    """What boxes that were taken for xyxy pixels could be."""
    as_corners = boxes.copy()
    as_corners[:, 2:] -= boxes[:, :2]
    if _fit(as_corners, sides):
        yield 'xyxy that were read as xywh'
    elif _fit(boxes / 1000 * sides, sides):
        yield 'thousandths of the width and height (0 to 1000)'
    elif _fit(as_corners / 1000 * sides, sides):
        yield 'thousandths (0 to 1000) in xyxy that were read as xywh'
    else:
        yield 'pixels of images of another size, such as resized ones'


def _fit(boxes: np.ndarray, sides: np.ndarray) -> bool:
    """Whether nearly all boxes (N, 4) are xyxy within images of (W, H, W, H)."""
    with np.errstate(invalid='ignore'):
        right = (boxes[:, 2:] > boxes[:, :2]).all(1)
        right &= ((boxes >= -1) & (boxes <= sides + 1)).all(1)
    return bool(right.mean() >= 1 - MANY_INVALID)
