"""Units of predicted boxes: into pixels, and whether another unit would fit."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data.label_table import LabelTable
from ..utils.image_files import open_image
from .accuracy import aligned_ious
from .predictions_file import Predictions

__all__ = [
    'BOX_FORMATS',
    'COORDINATES',
    'better_reading',
    'better_reading_of_sets',
    'image_sizes',
    'to_pixels',
]

BOX_FORMATS = ('xyxy', 'xywh', 'cxcywh')
COORDINATES = ('pixel', '1', '999', '1000')
# Another reading is named where it hits this share of the labels more.
_CLEARLY = 0.1


def to_pixels(
    boxes: np.ndarray, coordinates: str, box_format: str, sizes: np.ndarray
) -> np.ndarray:
    """Boxes as xyxy in pixels of the original image.

    Args:
        boxes (np.ndarray): Of shape (N, 4).
        coordinates (str): As of :func:`evaluate_predictions`.
        box_format (str): One of :data:`BOX_FORMATS`.
        sizes (np.ndarray): Height and width of the images, of shape (N, 2); not used
            for pixels.

    Returns:
        np.ndarray: float64 (N, 4).

    Raises:
        ValueError: Unknown coordinates or format.
    """
    if box_format not in BOX_FORMATS:
        raise ValueError(f'box format {box_format!r}; expected one of {BOX_FORMATS}.')
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    if box_format == 'cxcywh':
        boxes[:, :2] -= boxes[:, 2:] / 2
    if box_format != 'xyxy':
        boxes[:, 2:] += boxes[:, :2]
    if coordinates == 'pixel':
        return boxes
    resized = re.fullmatch(r'resized:(\d+)x(\d+)', coordinates)
    if resized:
        unit = np.array([int(resized[1]), int(resized[2])] * 2, np.float64)
    elif coordinates in COORDINATES:
        unit = np.full(4, float(coordinates))
    else:
        raise ValueError(
            f'coordinates {coordinates!r}; expected one of {COORDINATES}, or '
            'resized:WIDTHxHEIGHT, such as resized:640x640.'
        )
    if not unit.all():
        raise ValueError(f'coordinates {coordinates!r}: a side of 0 pixels.')
    return boxes / unit * np.tile(sizes[:, ::-1], 2)


def image_sizes(
    table: LabelTable,
    predictions: Predictions,
    indices: np.ndarray,
    rows: np.ndarray,
    folder: Path | None = None,
    needed: bool = True,
) -> np.ndarray:
    """Sizes of the images of labels.

    Args:
        table (LabelTable): The labels, with the sizes that their file says.
        predictions (Predictions): With the sizes that rows say.
        indices (np.ndarray): The N labels.
        rows (np.ndarray): Their predictions, of shape (N, ), -1 for none.
        folder (Path, optional): Of the images, which are read for what nothing says.
            Defaults to None.
        needed (bool): Whether every size must be known. Defaults to True.

    Returns:
        np.ndarray: int64 (N, 2), height and width, -1 where not known.

    Raises:
        ValueError: A size is needed and not known.
    """
    sizes = table.sizes[table.image_index[indices]].astype(np.int64)
    of_rows = (sizes <= 0).any(1) & (rows >= 0)
    sizes[of_rows] = predictions.sizes[rows[of_rows]]
    unknown = np.flatnonzero((sizes <= 0).any(1))
    if not len(unknown) or not needed:
        return sizes
    if folder is None:
        name = table.images[table.image_index[indices[unknown[0]]]]
        raise ValueError(
            f'The sizes of the images of {len(unknown):,} labels are not known (the '
            f'first: {name}), and boxes that are not in pixels need them: give the '
            'folder of the images (--images).'
        )
    known: dict[int, tuple[int, int]] = {}
    for place in unknown:
        image = int(table.image_index[indices[place]])
        if image not in known:
            with open_image(folder / table.images[image]) as file:
                known[image] = (file.height, file.width)
        sizes[place] = known[image]
    return sizes


def better_reading(
    boxes: np.ndarray,
    gt_boxes: np.ndarray,
    sizes: np.ndarray,
    used: tuple[str, str],
    accuracy: float,
    targets: np.ndarray | None = None,
) -> list[str]:
    """Whether boxes in another unit or format would fit far better.

    Of several boxes for a target, whose numbers are ``targets``, the closest counts.
    """
    known = (sizes > 0).all(1)
    scores: dict[tuple[str, str], tuple[float, float]] = {}
    for coordinates in COORDINATES:
        for box_format in BOX_FORMATS:
            if (coordinates, box_format) == used:
                continue
            pixels = to_pixels(boxes, coordinates, box_format, sizes)
            ious = aligned_ious(pixels, gt_boxes)
            if coordinates != 'pixel':
                ious = np.where(known, ious, 0)
            if targets is not None:
                ious = _closest(ious, targets)
            # The mean parts readings that are nearly one, as 999 and 1000.
            scores[coordinates, box_format] = (
                float((ious >= 0.5).mean()),
                float(ious.mean()),
            )
    best = max(scores, key=lambda reading: scores[reading])
    if scores[best][0] < accuracy + _CLEARLY:
        return []
    return [
        f'Read with --coords {used[0]} --box-format {used[1]}, {accuracy:.1%} of the '
        f'labels are hit (IoU >= 0.5); with --coords {best[0]} --box-format {best[1]} '
        f'it would be {scores[best][0]:.1%}. Find out which of the two the model '
        'writes: the better score is not a reason.'
    ]


def better_reading_of_sets(
    compared: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    used: tuple[str, str],
) -> list[str]:
    """:func:`better_reading` of (boxes as written, targets, size) of each label."""
    pairs = [
        (np.repeat(boxes, len(targets), 0), np.tile(targets, (len(boxes), 1)), size)
        for boxes, targets, size in compared
    ]
    begins = np.cumsum([0] + [len(targets) for _, targets, _ in compared])
    numbers = [
        np.tile(np.arange(len(targets)) + begin, len(boxes))
        for (boxes, targets, _), begin in zip(compared, begins, strict=False)
    ]
    if not sum(map(len, numbers)):
        return []
    boxes, gt_boxes = (np.concatenate([p[i] for p in pairs]) for i in (0, 1))
    sizes = np.concatenate([np.tile(size, (len(b), 1)) for b, _, size in pairs])
    targets = np.concatenate(numbers)
    ious = aligned_ious(to_pixels(boxes, *used, sizes), gt_boxes)
    accuracy = float((_closest(ious, targets) >= 0.5).mean())
    return better_reading(boxes, gt_boxes, sizes, used, accuracy, targets)


def _closest(ious: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The largest IoU of each target that has any."""
    closest = np.zeros(targets.max() + 1)
    np.maximum.at(closest, targets, ious)
    return closest[np.unique(targets)]
