"""Reliability and selections in the files of the official CLIP-VG code.

``*_iou_result.pth`` is a list of ``[image, 'useless placeholder', box, expression, the
label's box, the predicted box, reliability]``, these two boxes as tensors in the frame
of the model's input; ``*_refine_0_5.pth`` is a list of labels above a threshold, which
the official code loads as ``<data set>_train_pseudo.pth``.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ..data.readers.transvg import PLACEHOLDER, named_box_format
from ..utils.atomic import replacing
from ..utils.image_files import open_image
from ..utils.safe_torch import load_torch

__all__ = ['read_iou_result', 'write_iou_result', 'write_selection']


def read_iou_result(path: str | Path) -> np.ndarray:
    """Reliability from an ``*_iou_result.pth``.

    Args:
        path (str or Path): The file; nothing that it contains is run.

    Returns:
        np.ndarray: float32 (N, ), one value for each entry, in [0, 1].

    Raises:
        ValueError: An entry is not as described; it says which.
    """
    entries = load_torch(path)
    if not isinstance(entries, list | tuple):
        raise ValueError(f'{path}: expected a list, found {type(entries).__name__}.')
    values = np.empty(len(entries), np.float32)
    for index, entry in enumerate(entries):
        try:
            if len(entry) < 7:
                raise ValueError
            values[index] = float(entry[-1])
            if not 0 <= values[index] <= 1:
                raise ValueError
        except (TypeError, ValueError):
            raise ValueError(
                f'{path}, entry {index}: expected 7 fields, the last a reliability in '
                f'[0, 1], found {entry!r}.'
            ) from None
    return values


def _box(path: Path, box: Sequence[float]) -> list[float]:
    """An xyxy box in the form of a file's data set, in its shortest decimals.

    The official code drops the fraction of these numbers, so a width of 171 must not
    become 170.99997 because corners are float32.
    """
    left, top, right, bottom = (float(str(np.float32(edge))) for edge in box)
    if named_box_format(path.name) == 'xyxy':
        return [left, top, right, bottom]
    return [left, top, _between(left, right), _between(top, bottom)]


def _between(low: float, high: float) -> float:
    """The shortest decimal that added to ``low`` gives ``high`` in float32."""
    for digits in range(7):
        length = round(high - low, digits)
        if np.float32(low + length) == np.float32(high):
            return length
    return high - low


def _input_frame(boxes: np.ndarray, sizes: np.ndarray, side: int) -> np.ndarray:
    """Boxes in the frame of the model's input, as the official code has them.

    Args:
        boxes (np.ndarray): xyxy in pixels of the images, of shape (N, 4).
        sizes (np.ndarray): Height and width of each image, of shape (N, 2).
        side (int): Of the square that an image is resized and padded to, centred.

    Returns:
        np.ndarray: cx, cy, w, h in [0, 1] of the square, float32, of shape (N, 4).
    """
    ratio = side / sizes.max(1, keepdims=True)
    padding = side - np.round(sizes[:, ::-1] * ratio)  # across, down
    # 0.1: the official letterbox has the odd row or column on the right or below.
    moved = (boxes * ratio + np.tile(np.round(padding / 2 - 0.1), 2)) / side
    low, high = moved[:, :2], moved[:, 2:]
    return np.hstack([(low + high) / 2, high - low]).astype(np.float32)


def _image_sizes(labels: Iterable[dict], path: Path, images: Path | None) -> np.ndarray:
    """Height and width of each label's image, of shape (N, 2)."""
    known: dict[str, tuple[int, int]] = {}
    sizes = []
    for label in labels:
        name, size = label['image'], (label.get('height'), label.get('width'))
        if None in size and name not in known:
            if images is None:
                raise ValueError(
                    f'The labels do not say the size of {name}, and the boxes of '
                    f"{path.name} are in the frame of the model's input: give the "
                    'folder of the images (--images).'
                )
            with open_image(images / name) as file:
                known[name] = (file.height, file.width)
        sizes.append(known.get(name, size))
    return np.array(sizes, np.float64).reshape(-1, 2)


def _save(entries: list, path: Path, overwrite: bool) -> None:
    import torch  # here: the core starts without it

    if path.exists() and not overwrite:
        raise FileExistsError(f'{path} exists; remove it or allow overwriting.')
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        torch.save(entries, partial)


def write_iou_result(
    labels: Sequence[dict],
    reliability: np.ndarray,
    predicted: np.ndarray,
    path: str | Path,
    overwrite: bool = False,
    input_size: int = 224,
    images: str | Path | None = None,
) -> None:
    """Write an ``*_iou_result.pth``.

    As in the official code (``evaluate_for_filtering``), the two tensors of an entry
    are the label's box, without the fraction of its numbers, and the predicted one;
    both are cx, cy, w, h in [0, 1] of the padded square. Ours are clamped to the square
    before the reliability is computed, the official ones after.

    Args:
        labels (Sequence[dict]): ``image``, ``bbox`` (xyxy), ``text`` of each, and the
            image's ``height`` and ``width`` or None.
        reliability (np.ndarray): Of shape (N, ).
        predicted (np.ndarray): xyxy in pixels of the image, of shape (N, 4).
        path (str or Path): Output path; with 'referit' or 'flickr' in its name boxes
            are xyxy, else xywh, as in the official lists.
        overwrite (bool): Defaults to False.
        input_size (int): Side of the model's square input. Defaults to 224.
        images (str or Path, optional): Folder of the images, read for the sizes that
            labels do not say. Defaults to None.

    Raises:
        FileExistsError: The file exists.
        FileNotFoundError: An image is missing.
        ValueError: A label is not scored, or the size of its image is not known.
    """
    import torch  # here: the core starts without it

    path = Path(path)
    if np.isnan(reliability).any():
        raise ValueError(
            f'{int(np.isnan(reliability).sum()):,} labels are not scored yet: rerun '
            'the same tools/score_reliability.py command to resume.'
        )
    if np.isnan(predicted).any():
        raise ValueError(
            f'{int(np.isnan(predicted).any(1).sum()):,} labels have no predicted box, '
            f'which {path.name} holds: score them with tools/score_reliability.py.'
        )
    boxes = [_box(path, label['bbox']) for label in labels]
    true = np.trunc(np.array(boxes, np.float64).reshape(-1, 4))
    if named_box_format(path.name) != 'xyxy':
        true[:, 2:] += true[:, :2]
    sizes = _image_sizes(labels, path, None if images is None else Path(images))
    columns = (
        _input_frame(true, sizes, input_size),
        _input_frame(np.asarray(predicted, np.float64), sizes, input_size),
        reliability.tolist(),
    )
    entries = []
    for label, box, own, other, score in zip(labels, boxes, *columns, strict=True):
        # A tensor for each: a row of one tensor would be saved with the whole of it.
        tensors = torch.tensor(own), torch.tensor(other)
        entries.append(
            [label['image'], PLACEHOLDER, box, label['text'], *tensors, score]
        )
    _save(entries, path, overwrite)


def write_selection(
    labels: Iterable[dict], path: str | Path, overwrite: bool = False
) -> None:
    """Write labels as a list of CLIP-VG's pseudo-labels, e.g. ``*_refine_0_5.pth``.

    Args:
        labels (Iterable[dict]): ``image``, ``bbox`` (xyxy), ``text`` of each.
        path (str or Path): Output path; its name decides the boxes, as in
            :func:`write_iou_result`. With 'flickr' in it entries have three fields, as
            the official code expects of Flickr30k, else five.
        overwrite (bool): Defaults to False.

    Raises:
        FileExistsError: The file exists.
    """
    path = Path(path)
    short = 'flickr' in path.name.lower()
    entries = []
    for label in labels:
        image, text, box = label['image'], label['text'], _box(path, label['bbox'])
        entries.append(
            [image, box, text]
            if short
            else [image, PLACEHOLDER, box, text, PLACEHOLDER]
        )
    _save(entries, path, overwrite)
