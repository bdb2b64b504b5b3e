"""IoU of predicted boxes with true ones, and the accuracies made of it."""

import re
from collections.abc import Sequence

import numpy as np

__all__ = ['THRESHOLDS', 'accuracy_by_group', 'aligned_ious', 'summarize']

# The published accuracy is at 0.5.
THRESHOLDS = (0.25, 0.5, 0.75, 0.9)


def aligned_ious(boxes: np.ndarray, gt_boxes: np.ndarray) -> np.ndarray:
    """IoU of each box with the true box of the same row.

    In float32 and in the order of operations of MMDetection's ``bbox_overlaps``, so
    that both give the same bits.

    Args:
        boxes (np.ndarray): Predicted, xyxy, of shape (N, 4); NaN where there is none.
        gt_boxes (np.ndarray): xyxy in the same unit, of shape (N, 4).

    Returns:
        np.ndarray: float32 (N, ) in [0, 1]; 0 where a box is not finite.
    """
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    gt_boxes = np.asarray(gt_boxes, np.float32).reshape(-1, 4)
    with np.errstate(invalid='ignore', over='ignore'):
        areas = [(b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (boxes, gt_boxes)]
        top_left = np.maximum(boxes[:, :2], gt_boxes[:, :2])
        sides = np.minimum(boxes[:, 2:], gt_boxes[:, 2:]) - top_left
        sides = np.maximum(sides, np.float32(0))
        overlap = sides[:, 0] * sides[:, 1]
        # The least union is MMDetection's, too: it saves a division by zero.
        union = np.maximum(areas[0] + areas[1] - overlap, np.float32(1e-6))
        ious = overlap / union
    return np.where(np.isfinite(ious), ious, np.float32(0))


def summarize(
    ious: np.ndarray, thresholds: Sequence[float] = THRESHOLDS
) -> dict[str, float]:
    """Share of IoUs at or above each threshold, and their mean.

    Args:
        ious (np.ndarray): Of shape (N, ), N > 0.
        thresholds (Sequence[float]): In [0, 1]; reached means IoU >= threshold.
            Defaults to :data:`THRESHOLDS`.

    Returns:
        dict[str, float]: ``acc_<threshold>`` for each, and ``miou``.
    """
    # A float32 compared with 0.9 would be compared with the nearest float32.
    ious = np.asarray(ious, np.float64)
    scores = {f'acc_{t:g}': float((ious >= t).mean()) for t in thresholds}
    return dict(scores, miou=float(ious.mean()))


def accuracy_by_group(
    ious: np.ndarray,
    splits: Sequence[str],
    sources: Sequence[str],
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict[str, dict[str, float]]:
    """The summary of all IoUs, and of each split and source where there are several.

    Args:
        ious (np.ndarray): Of shape (N, ), N > 0.
        splits (Sequence[str]): The N splits.
        sources (Sequence[str]): The N sources.
        thresholds (Sequence[float]): Defaults to :data:`THRESHOLDS`.

    Returns:
        dict[str, dict[str, float]]: :func:`summarize` under the empty name for all,
        then under the name of each split and source, in characters that every
        MMEngine backend takes.
    """
    groups = {'': summarize(ious, thresholds)}
    for values in (np.asarray(splits), np.asarray(sources)):
        names = np.unique(values)
        for name in names if len(names) > 1 else []:
            # What MLflow takes in a name; a source may be called anything.
            safe = re.sub(r'[^\w.\- ]', '_', str(name))
            while safe in groups:  # x/y and x_y are two
                safe += '_'
            groups[safe] = summarize(ious[values == name], thresholds)
    return groups
