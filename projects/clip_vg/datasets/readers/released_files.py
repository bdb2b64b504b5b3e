"""Reliability and selections in the files that CLIP-VG's authors use.

``*_iou_result.pth`` is a list of ``[image, 'useless placeholder', box, expression, box,
box, reliability]``; ``*_refine_0_5.pth`` is a list of labels above a threshold.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from ...atomic import replacing
from ...safe_torch import load_torch
from .transvg import PLACEHOLDER, XYXY_DATASETS

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


def _box(path: Path, box: np.ndarray) -> list[float]:
    """Xyxy as the data set of a file's name has it."""
    if path.name.startswith(XYXY_DATASETS):
        return [float(edge) for edge in box]
    left, top, right, bottom = (float(edge) for edge in box)
    return [left, top, right - left, bottom - top]


def _save(entries: list, path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise FileExistsError(f'{path} exists; remove it or allow overwriting.')
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        torch.save(entries, partial)


def write_iou_result(
    labels: Iterable[dict],
    reliability: np.ndarray,
    predicted: np.ndarray,
    path: str | Path,
    overwrite: bool = False,
) -> None:
    """Write an ``*_iou_result.pth``.

    The two tensors of an entry are the predicted box and the label's, here xyxy in
    pixels of the original image; what frame the release has is not documented, and
    readers use the last field alone.

    Args:
        labels (Iterable[dict]): ``image``, ``bbox`` (xyxy), ``text`` of each.
        reliability (np.ndarray): Of shape (N, ).
        predicted (np.ndarray): xyxy, of shape (N, 4).
        path (str or Path): Where to; a name that starts with 'referit' or 'flickr'
            gets boxes as xyxy, any other as xywh, as the release has them.
        overwrite (bool): Defaults to False.

    Raises:
        FileExistsError: The file exists.
        ValueError: A label is not scored.
    """
    path = Path(path)
    if np.isnan(reliability).any():
        raise ValueError(
            f'{int(np.isnan(reliability).sum()):,} labels are not scored yet: give the '
            'same tools/score_reliability.py command again.'
        )
    entries = [
        [
            label['image'],
            PLACEHOLDER,
            _box(path, np.asarray(label['bbox'])),
            label['text'],
            torch.as_tensor(box),
            torch.tensor(label['bbox']),
            float(value),
        ]
        for label, value, box in zip(labels, reliability, predicted, strict=True)
    ]
    _save(entries, path, overwrite)


def write_selection(
    labels: Iterable[dict], path: str | Path, overwrite: bool = False
) -> None:
    """Write labels as a list of CLIP-VG's pseudo-labels, e.g. ``*_refine_0_5.pth``.

    Args:
        labels (Iterable[dict]): ``image``, ``bbox`` (xyxy), ``text`` of each.
        path (str or Path): Where to; its name decides the boxes, as in
            :func:`write_iou_result`.
        overwrite (bool): Defaults to False.

    Raises:
        FileExistsError: The file exists.
    """
    path = Path(path)
    entries = [
        [
            label['image'],
            PLACEHOLDER,
            _box(path, np.asarray(label['bbox'])),
            label['text'],
            PLACEHOLDER,
        ]
        for label in labels
    ]
    _save(entries, path, overwrite)
