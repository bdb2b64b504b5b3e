"""Accuracy of visual grounding, exact in any number of processes."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmdet.registry import METRICS
from torch import Tensor

from projects.clip_vg_core.metrics.accuracy import (
    THRESHOLDS,
    accuracy_by_group,
    aligned_ious,
)

from .joined_metric import (
    JoinedMetric,
    expressions_and_ids,
    has_scores,
    invalid_boxes,
    owners_of,
)

__all__ = ['GroundingMetric', 'current_name', 'top_boxes', 'top_scores']


def top_boxes(pred: dict, num_expressions: int) -> Tensor:
    """One box for each expression, of several the one of the highest score.

    Args:
        pred (dict): ``bboxes`` (M, 4); ``scores`` (M, ) where there are any; and
            ``labels`` (M, ), the numbers of their expressions, see :func:`owners_of`.
        num_expressions (int): E.

    Returns:
        Tensor: Of shape (E, 4); a box of NaN where an expression has none.

    Raises:
        ValueError: Several expressions, another number of boxes, and no labels.
    """
    boxes = torch.as_tensor(pred['bboxes']).float().cpu().reshape(-1, 4)
    rows = torch.from_numpy(_top_rows(pred, num_expressions))
    top = boxes.new_full((num_expressions, 4), float('nan'))
    top[rows >= 0] = boxes[rows[rows >= 0]]
    return top


def top_scores(pred: dict, num_expressions: int) -> Tensor:
    """The scores of :func:`top_boxes`.

    Args:
        pred (dict): As of :func:`top_boxes`.
        num_expressions (int): E.

    Returns:
        Tensor: Of shape (E, ); 1 without ``scores``, 0 without a box.
    """
    if 'scores' not in pred:
        return torch.ones(num_expressions)
    scores = torch.as_tensor(pred['scores']).float().cpu()
    rows = torch.from_numpy(_top_rows(pred, num_expressions))
    top = scores.new_zeros(num_expressions)
    top[rows >= 0] = scores[rows[rows >= 0]]
    return top


def _top_rows(pred: dict, num_expressions: int) -> np.ndarray:
    """The row of the highest score of each expression, -1 where it has no box."""
    owners = owners_of(pred, num_expressions)
    rows = np.full(num_expressions, -1)
    scores = pred.get('scores')
    if scores is None:
        scores = torch.ones(len(owners))
    scores = torch.as_tensor(scores).float().cpu().numpy()
    # Written last, and so kept, is the first of the highest.
    order = np.argsort(-scores, kind='stable')[::-1]
    rows[owners[order]] = order
    return rows


def current_name(metric: str) -> str:
    """Today's name of a metric that an older config or checkpoint names.

    Args:
        metric (str): Such as ``grounding/acc@0.5``, which MLflow refuses.

    Returns:
        str: ``grounding/acc_0.5``; any other name as it is.
    """
    return re.sub(r'(^|/|_)acc@(?=[0-9.]+$)', r'\1acc_', metric)


@METRICS.register_module()
class GroundingMetric(JoinedMetric):
    """Top-1 accuracy of one box per expression.

    For all samples together, and for each split and each source where there are
    several: ``grounding/acc_0.5``, ``grounding/testA/acc_0.5``, ...; and for each split
    of each source where data sets are tested together, such as
    ``grounding/refcoco/testA/acc_0.5``. Works with any MMDetection detector that
    predicts boxes for a text. Results of all processes
    are joined by ``sample_id``: doubled ones count once, and a missing one is an
    error. A label whose own box is invalid (not finite, empty, or outside of the
    image) is a miss, as in the official code; the log says how many there are.

    Args:
        thresholds (Sequence[float]): IoU thresholds. Defaults to 0.25, 0.5, 0.75,
            0.9; the published accuracy is at 0.5.
        out_file (str, optional): JSON Lines to write, one sample each:
            ``sample_id``, ``image``, ``text``, ``iou``, ``bbox`` (predicted) and
            ``gt_bbox`` (zeros where it is not finite), xyxy in pixels of the original
            image, ``split``,
            ``source``, ``score`` (null where a detector gives none), and ``upright``
            if images were turned by their EXIF entry. Defaults to None.
        collect_device (str): Defaults to 'cpu'.
        prefix (str, optional): Defaults to 'grounding'.
    """

    def __init__(
        self,
        thresholds: Sequence[float] = THRESHOLDS,
        out_file: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(out_file, collect_device, prefix)
        self.thresholds = tuple(thresholds)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:  # noqa: ARG002
        """Keep the IoU of every expression of a batch.

        Args:
            data_batch (Any): Not used.
            data_samples (Sequence[dict]): With ``pred_instances``,
                ``gt_instances`` (both xyxy, original image) and ``text``.
        """
        for sample in data_samples:
            texts, ids, splits, sources = expressions_and_ids(sample)
            truth = torch.as_tensor(sample['gt_instances']['bboxes']).float().cpu()
            if len(truth) != len(ids):
                raise ValueError(
                    f'{sample.get("img_path")}: {len(ids)} labels, but {len(truth)} '
                    'boxes. GeneralizedGroundingMetric scores expressions with no '
                    'target or several.'
                )
            boxes = top_boxes(sample['pred_instances'], len(ids))
            scores: list[float | None] = [None] * len(ids)
            if has_scores(sample['pred_instances']):
                scores = top_scores(sample['pred_instances'], len(ids)).tolist()
            invalid = invalid_boxes(truth.numpy(), sample.get('ori_shape'))
            ious = aligned_ious(boxes.numpy(), truth.numpy())
            ious[invalid] = 0
            truth = truth.nan_to_num(0.0, posinf=0.0, neginf=0.0)
            for i, sample_id in enumerate(ids):
                self.results.append(
                    dict(
                        sample_id=sample_id,
                        image=sample.get('img_path'),
                        text=texts[i],
                        iou=float(ious[i]),
                        score=scores[i],
                        bbox=boxes[i].nan_to_num(0.0).tolist(),
                        gt_bbox=truth[i].tolist(),
                        split=splits[i],
                        source=sources[i],
                        invalid=bool(invalid[i]),
                        upright=bool(sample.get('upright')),
                    )
                )

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Summaries of all results, and of each split and source."""
        groups = accuracy_by_group(
            np.array([result['iou'] for result in results]),
            [result['split'] for result in results],
            [result['source'] for result in results],
            self.thresholds,
        )
        return {
            f'{group}/{key}' if group else key: value
            for group, scores in groups.items()
            for key, value in scores.items()
        }

    @property
    def measures(self) -> tuple[str, ...]:
        """Accuracies and the mean IoU."""
        return (*(f'acc_{threshold:g}' for threshold in self.thresholds), 'miou')

    def rows_of(self, results: list[dict]) -> list[dict]:
        """The results, without what only the log needs."""
        left_out = {'invalid'}
        if not any(result.get('upright') for result in results):
            left_out.add('upright')
        return [{k: v for k, v in r.items() if k not in left_out} for r in results]
