"""IoU and accuracies: equal to MMDetection's, and to counting by hand."""

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps

from projects.clip_vg_core.metrics.accuracy import (
    accuracy_by_group,
    aligned_ious,
    summarize,
)


def test_iou_has_the_bits_of_mmdetection():
    rng = np.random.default_rng(0)
    boxes, truth = rng.uniform(-20, 640, (2, 5000, 4)).astype(np.float32)
    truth[:100] = boxes[:100]  # also exact hits, and boxes of no area
    truth[100:200, 2:] = truth[100:200, :2]
    expected = bbox_overlaps(
        torch.from_numpy(boxes), torch.from_numpy(truth), is_aligned=True
    )
    np.testing.assert_array_equal(aligned_ious(boxes, truth), expected.numpy())


def test_a_box_that_is_not_finite_hits_nothing():
    box = np.array([[0.0, 0, 10, 10]])
    for value in (np.nan, np.inf):
        broken = np.array([[0.0, 0, 10, value]])
        assert aligned_ious(broken, box) == [0]
        assert aligned_ious(box, broken) == [0]


def test_groups_are_counted_by_themselves():
    ious = np.array([0.5, 0.49, 0.95, 0.0])
    splits, sources = ['val', 'val', 'test', 'test'], ['a/b', 'a_b', 'a/b', 'a/b']
    groups = accuracy_by_group(ious, splits, sources, [0.5])
    assert groups == {
        '': summarize(ious, [0.5]),
        'test': {'acc_0.5': 0.5, 'miou': 0.475},
        'val': {'acc_0.5': 0.5, 'miou': 0.495},
        # Of one name where no backend takes the slash, so that one is renamed.
        'a_b': summarize(ious[[0, 2, 3]], [0.5]),
        'a_b_': {'acc_0.5': 0.0, 'miou': 0.49},
        'a_b/test': summarize(ious[2:], [0.5]),
        'a_b/val': summarize(ious[:1], [0.5]),
        'a_b_/val': summarize(ious[1:2], [0.5]),
    }


def test_sources_of_one_split_each_are_not_counted_twice():
    groups = accuracy_by_group(np.ones(2), ['val', 'test'], ['x', 'y'], [0.5])
    assert list(groups) == ['', 'test', 'val', 'x', 'y']


def test_one_split_and_source_need_no_group():
    assert list(accuracy_by_group(np.ones(2), ['val'] * 2, ['human'] * 2)) == ['']
