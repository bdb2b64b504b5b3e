"""IoU of predicted boxes with true ones, and the accuracies made of it."""

import re
from collections.abc import Container, Sequence

import numpy as np

__all__ = [
    'THRESHOLDS',
    'accuracy_by_group',
    'aligned_gious',
    'aligned_ious',
    'group_masks',
    'summarize',
]

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
    with np.errstate(invalid='ignore', over='ignore'):
        overlap, union, _ = _areas(boxes, gt_boxes)
        ious = overlap / union
    return np.where(np.isfinite(ious), ious, np.float32(0))


def aligned_gious(boxes: np.ndarray, gt_boxes: np.ndarray) -> np.ndarray:
    """Generalised IoU of each box with the true box of the same row.

    Args:
        boxes (np.ndarray): As of :func:`aligned_ious`, of shape (N, 4).
        gt_boxes (np.ndarray): xyxy in the same unit, of shape (N, 4).

    Returns:
        np.ndarray: float32 (N, ) in [-1, 1]; -1 where a box is not finite.
    """
    with np.errstate(invalid='ignore', over='ignore'):
        overlap, union, hull = _areas(boxes, gt_boxes)
        gious = overlap / union - (hull - union) / hull
    return np.where(np.isfinite(gious), gious, np.float32(-1))


def _areas(boxes: np.ndarray, gt_boxes: np.ndarray) -> tuple[np.ndarray, ...]:
    """Areas of overlap, union and hull of aligned boxes, float32 (N, ) each."""
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    gt_boxes = np.asarray(gt_boxes, np.float32).reshape(-1, 4)
    areas = [(b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (boxes, gt_boxes)]
    top_left = np.maximum(boxes[:, :2], gt_boxes[:, :2])
    sides = np.minimum(boxes[:, 2:], gt_boxes[:, 2:]) - top_left
    sides = np.maximum(sides, np.float32(0))
    overlap = sides[:, 0] * sides[:, 1]
    # The least union is MMDetection's, too: it saves a division by zero.
    least = np.float32(1e-6)
    union = np.maximum(areas[0] + areas[1] - overlap, least)
    top_left = np.minimum(boxes[:, :2], gt_boxes[:, :2])
    sides = np.maximum(boxes[:, 2:], gt_boxes[:, 2:]) - top_left
    return overlap, union, np.maximum(sides[:, 0] * sides[:, 1], least)


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

    Where sources have several splits, as data sets that are tested together, also of
    each split of each source.

    Args:
        ious (np.ndarray): Of shape (N, ), N > 0.
        splits (Sequence[str]): The N splits.
        sources (Sequence[str]): The N sources.
        thresholds (Sequence[float]): Defaults to :data:`THRESHOLDS`.

    Returns:
        dict[str, dict[str, float]]: :func:`summarize` under the empty name for all,
        then under the name of each split and source, and of both as in
        ``refcoco/testA``, in characters that every MMEngine backend takes.
    """
    return {
        name: summarize(ious[mask], thresholds)
        for name, mask in group_masks(splits, sources).items()
    }


def group_masks(splits: Sequence[str], sources: Sequence[str]) -> dict[str, np.ndarray]:
    """All labels, and those of each group of :func:`accuracy_by_group`.

    Args:
        splits (Sequence[str]): The N splits.
        sources (Sequence[str]): The N sources.

    Returns:
        dict[str, np.ndarray]: A mask, bool (N, ), for each name.
    """
    groups = {'': np.ones(len(splits), bool)}
    several = []
    for values in (np.asarray(sources), np.asarray(splits)):
        names, codes = np.unique(values, return_inverse=True)
        if len(names) > 1:
            several.append((names.tolist(), codes))
    for names, codes in reversed(several):
        for code, safe in enumerate(_safe_names(names, groups)):
            groups[safe] = codes == code
    if len(several) == 2:
        (source_names, source_codes), (split_names, split_codes) = several
        pairs = {*zip(source_codes.tolist(), split_codes.tolist(), strict=True)}
        # Of sources that have one split each, the sources say it.
        if len(pairs) > len(source_names):
            of_sources, of_splits = _safe_names(source_names), _safe_names(split_names)
            for source, split in sorted(pairs):
                name = f'{of_sources[source]}/{of_splits[split]}'
                groups[name] = (source_codes == source) & (split_codes == split)
    return groups


def _safe_names(names: Sequence[str], taken: Container[str] = ()) -> list[str]:
    """Names in characters that MLflow takes, no two alike; a source may be anything."""
    safe_names: list[str] = []
    for name in names:
        safe = re.sub(r'[^\w.\- ]', '_', str(name))
        while safe in taken or safe in safe_names:  # x/y and x_y are two
            safe += '_'
        safe_names.append(safe)
    return safe_names
