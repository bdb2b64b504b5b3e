"""Reliability by CLIP's own agreement, as functions."""

import pytest
import torch
from mmdet.structures.bbox import bbox_overlaps

from projects.clip_vg.curriculum.agreement import distinct_boxes, expected_iou


def random_boxes(count, seed):
    rng = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=rng) * 60
    return torch.cat([corner, corner + 5 + 40 * torch.rand(count, 2, generator=rng)], 1)


@pytest.mark.parametrize('seed', range(5))
def test_distinct_boxes_as_one_by_one(seed):
    boxes = random_boxes(30, seed)
    kept = []
    for box in boxes:
        if not kept or bbox_overlaps(box[None], torch.stack(kept)).max() <= 0.5:
            kept.append(box)
    assert torch.equal(distinct_boxes(boxes), torch.stack(kept))


def test_a_box_said_twice_is_one_candidate():
    boxes = random_boxes(4, 0)
    assert torch.equal(distinct_boxes(boxes.repeat(3, 1)), distinct_boxes(boxes))
    assert torch.equal(distinct_boxes(boxes[:1]), boxes[:1])


def test_expected_iou_is_the_mean_over_draws():
    candidates, boxes = random_boxes(6, 1), random_boxes(3, 2)
    logits = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    expected = [
        sum(
            share * bbox_overlaps(box[None], candidate[None]).item()
            for share, candidate in zip(row.softmax(0), candidates, strict=True)
        )
        for row, box in zip(logits, boxes, strict=True)
    ]
    assert expected_iou(logits, candidates, boxes).tolist() == pytest.approx(
        [float(value) for value in expected]
    )


def test_a_sure_judge_gives_the_iou_of_its_answer():
    candidates = distinct_boxes(random_boxes(8, 3))
    boxes = candidates[:2] + 1.0
    logits = torch.full((2, len(candidates)), -100.0)
    logits[0, 0] = logits[1, 1] = 100.0
    answers = bbox_overlaps(candidates[:2], boxes, is_aligned=True)
    assert torch.allclose(expected_iou(logits, candidates, boxes), answers)
