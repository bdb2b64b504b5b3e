"""Matching of queries with targets: the cheapest, and of the right expressions."""

import itertools
import math

import pytest
import torch
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData

from projects.clip_vg.models.matching import (
    MATCHER,
    match_targets,
    target_expressions,
)

from ..helpers.models import make_sample

COUNTS = [0, 1, 3, 2, 0, 5, 1, 1, 4, 2] * 4  # targets; more than are matched at once


def random_boxes(*shape):
    corners = torch.rand(*shape, 2, 2).sort(-2).values
    return corners.flatten(-2)


def case(counts=COUNTS, queries=3):
    """Predictions and targets of expressions, the latter in no order."""
    owners = [number for number, count in enumerate(counts) for _ in range(count)]
    order = torch.randperm(len(owners)).tolist()
    return (
        random_boxes(len(counts), queries),
        torch.randn(len(counts), queries),
        random_boxes(len(owners)),
        [owners[i] for i in order],
    )


def pairs_of(rows, chosen):
    return set(zip(rows.tolist(), chosen.tolist(), strict=True))


def test_it_is_the_assigner_for_each_expression():
    assigner = TASK_UTILS.build(MATCHER)
    boxes, logits, targets, owners = case()
    expected = set()
    for expression in range(len(boxes)):
        own = [number for number, owner in enumerate(owners) if owner == expression]
        result = assigner.assign(
            InstanceData(bboxes=boxes[expression], scores=logits[expression][:, None]),
            InstanceData(
                bboxes=targets[own], labels=torch.zeros(len(own), dtype=torch.long)
            ),
            img_meta=dict(img_shape=(1, 1)),
        )
        for query, target in enumerate(result.gt_inds.tolist()):
            if target > 0:
                expected.add((3 * expression + query, own[target - 1]))
    found = pairs_of(*match_targets(assigner, boxes, logits, targets, owners))
    assert found == expected
    assert len(found) == sum(min(3, count) for count in COUNTS)


def slow_cost(box, logit, target):
    """Focal loss of the score, L1 of center and size, GIoU; each with weight 1."""
    score = 1 / (1 + math.exp(-logit))
    negative = -math.log(1 - score) * 0.75 * score**2
    focal = -math.log(score) * 0.25 * (1 - score) ** 2 - negative
    (x1, y1, x2, y2), (a1, b1, a2, b2) = box, target
    l1 = abs((x1 + x2) / 2 - (a1 + a2) / 2) + abs((y1 + y2) / 2 - (b1 + b2) / 2)
    l1 += abs((x2 - x1) - (a2 - a1)) + abs((y2 - y1) - (b2 - b1))
    inter = max(0, min(x2, a2) - max(x1, a1)) * max(0, min(y2, b2) - max(y1, b1))
    union = (x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - inter
    hull = (max(x2, a2) - min(x1, a1)) * (max(y2, b2) - min(y1, b1))
    return focal + l1 - (inter / union - (hull - union) / hull)


def test_it_is_the_cheapest_of_all_matchings():
    counts = [1, 2, 3, 0, 4]
    boxes, logits, targets, owners = case(counts)
    rows, chosen = match_targets(
        TASK_UTILS.build(MATCHER), boxes, logits, targets, owners
    )
    found = pairs_of(rows, chosen)
    for expression, count in enumerate(counts):
        own = [number for number, owner in enumerate(owners) if owner == expression]
        options = []
        for matched in itertools.permutations(own, min(3, count)):
            for queries in itertools.combinations(range(3), len(matched)):
                cost = sum(
                    slow_cost(
                        boxes[expression, query].tolist(),
                        logits[expression, query].item(),
                        targets[number].tolist(),
                    )
                    for query, number in zip(queries, matched, strict=True)
                )
                pairs = {
                    (3 * expression + query, number)
                    for query, number in zip(queries, matched, strict=True)
                }
                options.append((cost, pairs))
        best = min(options, key=lambda option: option[0])[1]
        assert {pair for pair in found if pair[0] // 3 == expression} == best


def test_nothing_to_match():
    boxes, logits, targets, _ = case([0, 0])
    rows, chosen = match_targets(TASK_UTILS.build(MATCHER), boxes, logits, targets, [])
    assert rows.tolist() == chosen.tolist() == []


def packed(labels, texts):
    """A sample as PackGroundingInputs packs it."""
    sample = make_sample((0, 0, 32, 32), texts)
    sample.gt_instances = InstanceData(
        bboxes=random_boxes(len(labels)),
        labels=torch.tensor(labels, dtype=torch.long),
        label_names=[texts[i] for i in labels if i < len(texts)],
    )
    return sample


def test_targets_are_numbered_through_the_batch():
    samples = [
        packed([1, 0, 1], ['a', 'b']),
        packed([], ['c']),
        make_sample((0, 0, 32, 32), ['d', 'e']),  # a box each, without numbers
        packed([2], ['f', 'g', 'h']),
    ]
    assert target_expressions(samples) == [1, 0, 1, 3, 4, 7]


@pytest.mark.parametrize(
    'sample',
    [
        lambda: packed([0, 1, 0], ['a', 'b']).gt_instances,
        lambda: InstanceData(bboxes=random_boxes(2), labels=torch.tensor([0, 0])),
    ],
)
def test_a_box_of_no_expression_is_an_error(sample):
    """Counted on, it would be one of the next sample."""
    wrong = make_sample((0, 0, 32, 32), ['a'])
    wrong.gt_instances = sample()
    with pytest.raises(ValueError, match=r'a\.jpg.*\[0, 1.*has 1'):
        target_expressions([wrong, packed([0], ['b'])])
