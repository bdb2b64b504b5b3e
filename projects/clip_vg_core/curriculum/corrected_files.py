"""Corrected labels on disk: an annotation file, and the outcome of every label."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.label_files import LabelFile
from ..data.label_table import LabelTable
from ..data.readers import write_odvg
from ..metrics.accuracy import aligned_ious
from .correction import DROPPED, KEPT, MOVED, Correction
from .reliability_file import ReliabilityFile, reliability_path

__all__ = ['OUTCOMES', 'count_outcomes', 'write_corrected', 'write_outcomes']

# By their number in arrays.
OUTCOMES = {KEPT: 'kept', MOVED: 'moved', DROPPED: 'dropped'}


def count_outcomes(outcome: np.ndarray) -> dict[str, int]:
    """How many labels are 'kept', 'moved' and 'dropped'."""
    return {name: int((outcome == code).sum()) for code, name in OUTCOMES.items()}


def write_corrected(path: Path, table: LabelTable, correction: Correction) -> None:
    """Write corrected labels as ODVG JSON Lines; the whole file or nothing.

    A line has its ``outcome``, and ``original_bbox``, the label's box before. Dropped
    labels are left out.

    Args:
        path (Path): Output path.
        table (LabelTable): N labels before the correction, with one box each.
        correction (Correction): Of these labels.

    Raises:
        ValueError: An image's size is unknown.
    """
    left = np.flatnonzero(correction.outcome != DROPPED)
    before = table.boxes[left].tolist()
    extras: Sequence[Mapping[str, Any]] = [
        dict(outcome=OUTCOMES[int(outcome)], original_bbox=box)
        for outcome, box in zip(correction.outcome[left], before, strict=True)
    ]
    moved = replace(table, boxes=np.asarray(correction.boxes, np.float32))
    write_odvg(moved.take(left), path, overwrite=True, extras=extras)


def write_outcomes(
    folder: str | Path,
    measurer: Mapping[str, Any],
    labels: LabelFile,
    keys: np.ndarray,
    boxes: np.ndarray,
    correction: Correction,
) -> Path:
    """Write what became of every label as a reliability file with outcomes.

    As if the correction was a measurer that predicts the box of a label anew: the
    reliability is the IoU of the box after with the one before, 0 for a dropped
    label, which has no predicted box.

    Args:
        folder (str or Path): Of the reliability files.
        measurer (Mapping): ``name`` of the correction, and what decides it.
        labels (LabelFile): All labels of the source.
        keys (np.ndarray): uint64 (N, ) of those that were corrected.
        boxes (np.ndarray): Their boxes before, xyxy, of shape (N, 4).
        correction (Correction): Of these labels.

    Returns:
        Path: ``<name>__<source>.npy``; :func:`.reliability_file.read_outcomes` reads
        what is beside it.
    """
    dropped = correction.outcome == DROPPED
    after = np.where(dropped[:, None], np.nan, correction.boxes).astype(np.float32)
    values = aligned_ious(after, boxes)
    values[correction.outcome == KEPT] = 1.0
    store = ReliabilityFile(folder, measurer, labels, overwrite=True)
    store.write(keys, values, after)
    store.write_outcomes(keys, correction.outcome)
    store.flush()
    return reliability_path(folder, measurer['name'], labels.source)
