"""Which query predicts which target: the targets of expressions, and their matching."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from mmdet.structures import SampleList
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .predictions import expressions_of

__all__ = ['MATCHER', 'match_targets', 'target_expressions']

# As MMDetection's DETR heads have it; boxes are weighed as in the loss of the paper.
MATCHER = dict(
    type='HungarianAssigner',
    match_costs=[
        dict(type='FocalLossCost', weight=1.0),
        dict(type='BBoxL1Cost', box_format='xywh', weight=1.0),
        dict(type='IoUCost', iou_mode='giou', weight=1.0),
    ],
)
_MATCHED_AT_ONCE = 32  # expressions; costs are of all their queries and targets


def target_expressions(data_samples: SampleList) -> list[int]:
    """The expression of each target, numbered through the batch.

    Args:
        data_samples (list[DetDataSample]): Samples with T boxes in all. Where
            ``gt_instances`` has ``label_names``, as PackGroundingInputs packs them,
            ``labels`` are the numbers of the boxes' expressions in the sample; else
            there is a box for each expression, in order. ``target_labels`` are the
            labels as GroundingDataPreprocessor has read them before the transfer.

    Returns:
        list[int]: T numbers.

    Raises:
        ValueError: A box is of no expression of its sample.
    """
    packed = [s for s in data_samples if 'label_names' in s.gt_instances]
    if all('target_labels' in sample for sample in packed):
        numbers = iter([n for sample in packed for n in sample.target_labels])
    else:
        # One copy for the batch, as each waits until the device is idle.
        numbers = iter(torch.cat([s.gt_instances.labels for s in packed]).tolist())
    owners: list[int] = []
    first = 0
    for sample in data_samples:
        count = len(expressions_of(sample))
        boxes = len(sample.gt_instances.bboxes)
        is_packed = 'label_names' in sample.gt_instances
        own = list(islice(numbers, boxes)) if is_packed else list(range(boxes))
        if not set(own) <= set(range(count)) or (not is_packed and boxes != count):
            raise ValueError(
                f'{sample.get("img_path", "A sample")}: its boxes are of the '
                f'expressions {own}, and it has {count}; expected numbers below that '
                'in the labels of gt_instances, as PackGroundingInputs packs them.'
            )
        owners += [first + number for number in own]
        first += count
    return owners


def match_targets(
    assigner: Any,
    boxes: Tensor,
    logits: Tensor,
    targets: Tensor,
    owners: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Match the queries of each expression with its targets, one to one.

    As ``assigner.assign`` matches each expression alone. Its costs are computed for
    many expressions at once here, since a call for each of the expressions of a batch
    takes about as long as a training step on a GPU.

    Args:
        assigner (:obj:`HungarianAssigner`): Of MMDetection; its costs get boxes xyxy of
            an image of one pixel, and logits of a single class.
        boxes (Tensor): Predicted, xyxy in [0, 1], of shape (E, Q, 4).
        logits (Tensor): Of their scores, of shape (E, Q).
        targets (Tensor): True boxes xyxy in [0, 1], of shape (T, 4).
        owners (Sequence[int]): The expression of each target, T of them.

    Returns:
        tuple[Tensor, Tensor]: Of M matched pairs the query, numbered through all
        E * Q, and the target, both of shape (M, ), int64, on the device of the boxes.
        Where an expression has more targets than queries, some stay unmatched.
    """
    expressions, queries = logits.shape
    device = boxes.device
    # One copy for the batch: the assignment is solved on the CPU.
    parts = [value.detach().float() for value in (boxes, logits, targets)]
    copied = torch.cat([value.flatten() for value in parts]).cpu()
    boxes, logits, targets = (
        values.view(part.shape)
        for values, part in zip(
            copied.split([part.numel() for part in parts]), parts, strict=True
        )
    )
    owner = np.asarray(owners, np.int64)
    pairs: list[np.ndarray] = [np.zeros((2, 0), np.int64)]
    for start in range(0, expressions, _MATCHED_AT_ONCE):
        part = slice(start, start + _MATCHED_AT_ONCE)
        own = np.flatnonzero((owner >= start) & (owner < start + _MATCHED_AT_ONCE))
        cost = _costs(assigner, boxes[part], logits[part], targets[own])
        for expression in np.unique(owner[own]):
            columns = np.flatnonzero(owner[own] == expression)
            rows, chosen = linear_sum_assignment(cost[expression - start][:, columns])
            pairs.append(np.stack([expression * queries + rows, own[columns[chosen]]]))
    matched = torch.from_numpy(np.concatenate(pairs, axis=1))
    rows, chosen = matched.to(device, non_blocking=True)
    return rows, chosen


def _costs(assigner: Any, boxes: Tensor, logits: Tensor, targets: Tensor) -> np.ndarray:
    """Cost of each query (E, Q, 4) for each target (T, 4); (E, Q, T)."""
    predicted = InstanceData(bboxes=boxes.flatten(0, 1), scores=logits.reshape(-1, 1))
    true = InstanceData(
        bboxes=targets, labels=torch.zeros(len(targets), dtype=torch.long)
    )
    costs = [
        cost(predicted, true, img_meta=dict(img_shape=(1, 1)))
        for cost in assigner.match_costs
    ]
    return torch.stack(costs).sum(0).reshape(*logits.shape, -1).numpy()
