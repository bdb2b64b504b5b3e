"""Predictions for the metric, and what it makes of them."""

import numpy as np
import torch

from projects.clip_vg.evaluation.grounding_metric import GroundingMetric


def random_boxes(count, seed):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 50, (count, 2, 2))
    return np.concatenate([corners.min(1), corners.max(1) + 5], 1)


def sample(i, pred, true, split='val', source='human', **extra):
    return dict(
        img_path=f'{i}.jpg',
        text=[f'text {i} {j}' for j in range(len(true))],
        sample_id=[f'{i}_{j}' for j in range(len(true))],
        split=[split] * len(true),
        source=[source] * len(true),
        pred_instances=dict(bboxes=torch.as_tensor(pred), **extra),
        gt_instances=dict(bboxes=torch.as_tensor(true)),
    )


def set_sample(i, expressions, split='val', **extra):
    """A sample of expressions with (boxes, scores, targets) each; boxes in one list."""
    boxes, scores, targets = zip(*expressions, strict=True)

    def joined(parts):
        return torch.cat([torch.as_tensor(p).float().reshape(-1, 4) for p in parts])

    def owners(parts):
        return torch.cat([torch.full((len(p),), n) for n, p in enumerate(parts)])

    return dict(
        sample(i, torch.zeros(0, 4), torch.zeros(len(expressions), 4), split),
        pred_instances=dict(
            bboxes=joined(boxes),
            scores=torch.cat([torch.as_tensor(s).float() for s in scores]),
            labels=owners(boxes),
        ),
        gt_instances=dict(bboxes=joined(targets), labels=owners(targets)),
        **extra,
    )


def evaluate(samples, metric=GroundingMetric, **options):
    metric = metric(**options)
    metric.process(None, samples)
    return metric.evaluate(sum(len(s['text']) for s in samples))


def answer(number=0, **changes):
    found = dict(
        sample_id=f's{number}',
        image=f'{number}.jpg',
        text='left man',
        iou=0.75,
        bbox=[0.0, 0.0, 10.0, 10.0],
        gt_bbox=[0.0, 0.0, 10.0, 8.0],
        split='val',
        source='human',
    )
    return {**found, **changes}
