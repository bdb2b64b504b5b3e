"""Accuracy of visual grounding, exact in any number of processes."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import METRICS
from mmengine.dist import all_gather_object, broadcast_object_list, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from projects.clip_vg_core.data.label_table import box_faults
from projects.clip_vg_core.metrics.accuracy import (
    THRESHOLDS,
    accuracy_by_group,
    aligned_ious,
)
from projects.clip_vg_core.metrics.results_file import write_results

__all__ = ['GroundingMetric', 'current_name', 'top_boxes', 'top_scores']


def top_boxes(pred: dict, num_expressions: int) -> Tensor:
    """One box for each expression.

    Args:
        pred (dict): ``bboxes`` (M, 4) and, where M is not the number of
            expressions, ``scores`` (M, ); with ``label_names``, ``labels`` (M, ) are
            the numbers of the expressions, of which each may have several boxes.
        num_expressions (int): E.

    Returns:
        Tensor: Of shape (E, 4). Of an expression's many boxes the one of the highest
        score; a box of NaN where there is none.

    Raises:
        ValueError: Several expressions, and another number of boxes.
    """
    boxes = torch.as_tensor(pred['bboxes']).float().cpu().reshape(-1, 4)
    if num_expressions > 1 and 'label_names' in pred:
        best = _best_rows(pred, num_expressions)
        padded = torch.cat([boxes, boxes.new_full((1, 4), float('nan'))])
        return padded[best]
    if len(boxes) == num_expressions:
        return boxes
    if num_expressions != 1:
        raise ValueError(
            f'{len(boxes)} boxes for {num_expressions} expressions: a detector that '
            'predicts many boxes takes one expression at a time (no '
            'ImageGroupSampler).'
        )
    if not len(boxes):
        return boxes.new_full((1, 4), float('nan'))
    return boxes[torch.as_tensor(pred['scores']).argmax()][None]


def top_scores(pred: dict, num_expressions: int) -> Tensor:
    """The scores of :func:`top_boxes`.

    Args:
        pred (dict): ``bboxes`` (M, 4), and ``scores`` (M, ) where there are any.
        num_expressions (int): E.

    Returns:
        Tensor: Of shape (E, ); 1 without ``scores``, 0 without a box.
    """
    if 'scores' not in pred:
        return torch.ones(num_expressions)
    scores = torch.as_tensor(pred['scores']).float().cpu()
    if num_expressions > 1 and 'label_names' in pred:
        best = _best_rows(pred, num_expressions)
        return torch.cat([scores, scores.new_zeros(1)])[best]
    if len(scores) == num_expressions:
        return scores
    return scores.max()[None] if len(scores) else scores.new_zeros(num_expressions)


def _best_rows(pred: dict, num_expressions: int) -> np.ndarray:
    """The row of each expression's highest score, (E, ); -1 where it has none."""
    labels, scores = (
        torch.as_tensor(pred[key]).float().cpu().numpy() for key in ('labels', 'scores')
    )
    # The last row of a number stays: of equal scores, that is the first one.
    order = np.lexsort([-np.arange(len(scores)), scores])
    order = order[labels[order] < num_expressions]
    best = np.full(num_expressions, -1)
    best[labels[order].astype(int)] = order
    return best


def current_name(metric: str) -> str:
    """Today's name of a metric that an older config or checkpoint names.

    Args:
        metric (str): Such as ``grounding/acc@0.5``, which MLflow refuses.

    Returns:
        str: ``grounding/acc_0.5``; any other name as it is.
    """
    return re.sub(r'(^|/|_)acc@(?=[0-9.]+$)', r'\1acc_', metric)


@METRICS.register_module()
class GroundingMetric(BaseMetric):
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
            ``source``, ``score`` if any is not 1, and ``upright`` if images were
            turned by their EXIF entry. Defaults to None.
        collect_device (str): Defaults to 'cpu'.
        prefix (str, optional): Defaults to 'grounding'.
    """

    default_prefix = 'grounding'

    def __init__(
        self,
        thresholds: Sequence[float] = THRESHOLDS,
        out_file: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.thresholds = tuple(thresholds)
        self.out_file = out_file

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:  # noqa: ARG002
        """Keep the IoU of every expression of a batch.

        Args:
            data_batch (Any): Not used.
            data_samples (Sequence[dict]): With ``pred_instances``,
                ``gt_instances`` (both xyxy, original image) and ``text``.
        """
        for sample in data_samples:
            texts, ids, splits, sources = (
                _as_list(sample.get(key))
                for key in ('text', 'sample_id', 'split', 'source')
            )
            if not ids:
                raise ValueError(
                    f'{sample.get("img_path")}: no `sample_id`; put it into '
                    '`meta_keys` '
                    'of the packing transform, or use PackGroundingInputs.'
                )
            truth = torch.as_tensor(sample['gt_instances']['bboxes']).float().cpu()
            if not len(truth) == len(texts) == len(ids):
                raise ValueError(
                    f'{sample.get("img_path")}: {len(ids)} labels, but {len(truth)} '
                    f'boxes and {len(texts)} expressions.'
                )
            boxes = top_boxes(sample['pred_instances'], len(ids))
            scores = top_scores(sample['pred_instances'], len(ids))
            invalid = _invalid(truth, sample.get('ori_shape'))
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
                        score=float(scores[i]),
                        bbox=boxes[i].nan_to_num(0.0).tolist(),
                        gt_bbox=truth[i].tolist(),
                        split=splits[i] if splits else 'all',
                        source=sources[i] if sources else 'human',
                        invalid=bool(invalid[i]),
                        upright=bool(sample.get('upright')),
                    )
                )

    def evaluate(self, size: int) -> dict[str, float]:
        """Join the results of all processes, check them, and summarise.

        Modifications of :meth:`BaseMetric.evaluate`: its gathering takes turns
        between the ranks and cuts at ``size``, which loses or doubles samples
        where ranks have unequally many.

        Args:
            size (int): Labels of the data set.

        Returns:
            dict[str, float]: On every rank.

        Raises:
            RuntimeError: A label was not scored, or more than there are.
        """
        distinct = {
            result['sample_id']: result
            for results in all_gather_object(self.results)
            for result in results
        }
        self.results.clear()
        if len(distinct) != size:
            raise RuntimeError(
                f'{len(distinct):,} distinct samples were scored, the data set has '
                f'{size:,}: a sampler leaves labels out, or sample_ids are not unique.'
            )
        metrics: list[Any] = [None]
        if is_main_process():
            # In one order, whatever the number of processes, so that sums of floats and
            # files of results are the same.
            results = [distinct[key] for key in sorted(distinct)]
            metrics = [self._prefixed(self.compute_metrics(results))]
            if self.out_file:
                self._dump(results)
        broadcast_object_list(metrics)
        return metrics[0]

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Summaries of all results, and of each split and source."""
        _report_invalid(results)
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

    def _prefixed(self, metrics: dict[str, float]) -> dict[str, float]:
        return {f'{self.prefix}/{key}': value for key, value in metrics.items()}

    def _dump(self, results: list[dict]) -> None:
        left_out = {'invalid'}
        if not any(result.get('upright') for result in results):
            left_out.add('upright')
        if all(result['score'] == 1 for result in results):  # of a model without scores
            left_out.add('score')
        write_results(
            Path(str(self.out_file)),
            ({k: v for k, v in r.items() if k not in left_out} for r in results),
        )


def _invalid(boxes: Tensor, shape: Sequence[int] | None) -> np.ndarray:
    """Which of the true boxes (E, 4) cannot be right; bool (E, )."""
    sizes = np.array([tuple(shape or (-1, -1))[:2]] * len(boxes))
    faults = [mask for _, mask in box_faults(boxes.numpy(), sizes)]
    return np.any(faults, axis=0)


def _report_invalid(results: list[dict]) -> None:
    """Log how many labels are misses whatever is predicted, and the first of them."""
    invalid = [result for result in results if result.get('invalid')]
    if invalid:
        named = ', '.join(result['sample_id'] for result in invalid[:3])
        print_log(
            f'{len(invalid):,} of {len(results):,} labels have an invalid box (not '
            'finite, empty, or outside of the image) and count as misses: '
            f'{named}{", ..." if len(invalid) > 3 else ""}.',
            logger='current',
            level=logging.WARNING,
        )


def _as_list(value: Any) -> list:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
