"""Measures of expressions with any number of targets, over the whole set."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmdet.registry import METRICS
from mmengine.logging import print_log

from projects.clip_vg_core.metrics.generalized import (
    MatchingRule,
    count_expression,
    measure_names,
    summarize_by_group,
    written_boxes,
)

from .joined_metric import (
    JoinedMetric,
    expressions_and_ids,
    has_scores,
    invalid_boxes,
    owners_of,
)

__all__ = ['GeneralizedGroundingMetric']


@METRICS.register_module()
class GeneralizedGroundingMetric(JoinedMetric):
    """F1, N-acc, T-acc and more for expressions with none, one or several targets.

    The numbers are those of :func:`summarize_sets`, with their definitions, such as
    ``grounding/f1_acc``; groups are those of :obj:`GroundingMetric`. All are computed
    once, over the whole set, so they depend neither on the size of batches nor on the
    number of processes. The log says how boxes were matched; names of numbers that
    come from another matching than the default end with it, as
    ``f1_acc_giou_0.5_greedy``, which is what the code of gRefCOCO computes.

    It takes any MMDetection detector that predicts boxes for a text. Of a sample with
    one expression all boxes belong to it; of one with several, ``labels`` of
    ``pred_instances`` and ``gt_instances`` are the numbers of the expressions. A target
    that is invalid (not finite, empty, or outside of the image) is never found.

    Args:
        score_thr (float): Boxes of at least this score count as predicted; all if a
            detector gives no scores. Defaults to 0.7, as in the public code.
        overlap (str): 'iou' or 'giou'. Defaults to 'iou'.
        overlap_thr (float): Least overlap of a box with the target that it finds.
            Defaults to 0.5.
        matcher (str): 'optimal' or 'greedy', see :obj:`MatchingRule`. Defaults to
            'optimal'.
        out_file (str, optional): JSON Lines to write, one expression each:
            ``sample_id``, ``image``, ``text``, ``bboxes`` and ``scores`` (of the boxes
            that count, and at least of the one of the highest score; null where a
            detector gives no scores), ``gt_bboxes``, xyxy in pixels of the original
            image, ``f1``, ``split``, ``source``.
            ``tools/evaluate_predictions.py`` reads it. Defaults to None.
        collect_device (str): Defaults to 'cpu'.
        prefix (str, optional): Defaults to 'grounding'.
    """

    def __init__(
        self,
        score_thr: float = 0.7,
        overlap: str = 'iou',
        overlap_thr: float = 0.5,
        matcher: str = 'optimal',
        out_file: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(out_file, collect_device, prefix)
        self.rule = MatchingRule(score_thr, overlap, overlap_thr, matcher)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:  # noqa: ARG002
        """Match the boxes of every expression of a batch with its targets.

        Args:
            data_batch (Any): Not used.
            data_samples (Sequence[dict]): With ``pred_instances``,
                ``gt_instances`` (both xyxy, original image) and ``text``.
        """
        for sample in data_samples:
            texts, ids, splits, sources = expressions_and_ids(sample)
            pred, truth = sample['pred_instances'], sample['gt_instances']
            boxes, targets = _boxes(pred), _boxes(truth)
            scores, scored = np.ones(len(boxes)), has_scores(pred)
            if scored:
                scores = torch.as_tensor(pred['scores']).double().cpu().numpy()
            invalid = invalid_boxes(targets, sample.get('ori_shape'))
            targets[invalid] = np.nan
            owners, target_owners = (
                owners_of(pred, len(ids)),
                owners_of(truth, len(ids)),
            )
            for i, sample_id in enumerate(ids):
                own, own_targets = owners == i, target_owners == i
                counts = count_expression(
                    boxes[own], scores[own], targets[own_targets], self.rule
                )
                written = np.flatnonzero(own)[written_boxes(scores[own], self.rule)]
                self.results.append(
                    dict(
                        sample_id=sample_id,
                        image=sample.get('img_path'),
                        text=texts[i],
                        bboxes=np.nan_to_num(boxes[written]).tolist(),
                        scores=scores[written].tolist()
                        if scored
                        else [None] * len(written),
                        gt_bboxes=np.nan_to_num(targets[own_targets]).tolist(),
                        f1=counts.f1,
                        split=splits[i],
                        source=sources[i],
                        counts=counts,
                        invalid=bool(invalid[own_targets].any()),
                    )
                )

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """The measures of all results, and of each split and source."""
        print_log(f'GeneralizedGroundingMetric: {self.rule}.', logger='current')
        groups = summarize_by_group(
            [result['counts'] for result in results],
            [result['split'] for result in results],
            [result['source'] for result in results],
            self.rule,
        )
        return {
            f'{group}/{key}' if group else key: value
            for group, measures in groups.items()
            for key, value in measures.items()
        }

    @property
    def measures(self) -> tuple[str, ...]:
        """Those of :func:`summarize_sets`, where there are expressions of all kinds."""
        return measure_names(self.rule)

    def rows_of(self, results: list[dict]) -> list[dict]:
        """The results without what follows from them."""
        left_out = ('counts', 'invalid')
        return [{k: v for k, v in r.items() if k not in left_out} for r in results]


def _boxes(instances: dict) -> np.ndarray:
    """The boxes of a sample, float32 (M, 4), in memory of their own."""
    boxes = torch.as_tensor(instances['bboxes'])
    return boxes.detach().cpu().float().reshape(-1, 4).numpy().copy()
