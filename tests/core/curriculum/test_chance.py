"""Scores without knowledge, compared with loops over labels and candidates."""

import math

import numpy as np
import pytest

from projects.clip_vg_core.curriculum.chance import (
    Agreement,
    Chance,
    chance_of,
    iou_threshold,
    measure_agreement,
)
from projects.clip_vg_core.pseudo_labels.detection import iou


def scene(seed, images=12, most=4):
    """Candidates of random images, and labels of which each is near one of them."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(80, 300, (images, 2))
    candidates, candidate_index, boxes, index = [], [], [], []
    for image, (height, width) in enumerate(sizes):
        for _ in range(rng.integers(1, most + 1)):
            corner = rng.uniform(0, 0.5, 2) * (width, height)
            side = rng.uniform(0.2, 0.5, 2) * (width, height)
            candidates.append([*corner, *(corner + side)])
            candidate_index.append(image)
            boxes.append(candidates[-1] + rng.normal(0, 3, 4))
            index.append(image)
    order = rng.permutation(len(candidates))  # candidates in any order
    return (
        np.array(boxes, np.float32),
        sizes[index],
        np.array(index),
        np.array(candidates, np.float32)[order],
        np.array(candidate_index)[order],
    )


def score(value, threshold):
    return value if threshold is None else float(value >= threshold)


def slow_chance(boxes, sizes, index, candidates, candidate_index, threshold):
    relative = [b / np.array([w, h, w, h]) for b, (h, w) in zip(boxes, sizes)]  # noqa: B905
    constants = []
    for box in [*relative, np.median(relative, 0)]:
        constants.append(np.mean([score(iou(box, r), threshold) for r in relative]))
    drawn = []
    for box, image in zip(boxes, index, strict=True):
        own = [c for c, i in zip(candidates, candidate_index) if i == image]  # noqa: B905
        if len(own) > 1:
            drawn.append(np.mean([score(iou(c, box), threshold) for c in own]))
    return max(constants), np.mean(drawn)


@pytest.mark.parametrize('threshold', [0.5, 0.75, None])
def test_chance_is_that_of_loops(threshold):
    for seed in range(4):
        args = scene(seed)
        chance = chance_of(*args, threshold)
        expected = slow_chance(*args, threshold)
        assert (chance.constant, chance.candidate) == pytest.approx(expected, abs=1e-5)
        assert chance.best == max(chance.constant, chance.candidate)


def test_one_box_in_every_image_is_a_constant_whatever_the_images_size():
    sizes = np.array([[100, 200], [300, 120], [50, 50]])
    boxes = np.array([[w / 4, h / 4, w / 2, h / 2] for h, w in sizes], np.float32)
    chance = chance_of(boxes, sizes, np.arange(3), boxes, np.arange(3), 0.5)
    assert chance.constant == 1.0
    assert math.isnan(chance.candidate)  # one candidate an image tells nothing
    unknown = chance_of(boxes, -np.ones((3, 2)), np.arange(3), boxes, np.arange(3))
    assert unknown.best == 0.0 and math.isnan(unknown.constant)


def test_many_labels_are_sampled():
    boxes, sizes, index, candidates, own = scene(0)
    times = 25_000 // len(boxes) + 1
    many = chance_of(
        *(np.tile(boxes, (times, 1)), np.tile(sizes, (times, 1))),
        *(np.tile(index, times), candidates, own),
    )
    one = chance_of(boxes, sizes, index, candidates, own)
    assert many.constant == pytest.approx(one.constant, abs=0.02)
    assert many.candidate == pytest.approx(one.candidate, abs=0.02)


def test_a_measurer_is_clear_of_chance_or_not():
    boxes, sizes, index, candidates, own = scene(1, images=200)
    rng = np.random.default_rng(0)
    # A random candidate for each label: what chance is.
    guessed = np.array([rng.permutation(candidates[own == i])[0] for i in index])
    options = (boxes, sizes, index, candidates, own)
    blind = measure_agreement(guessed, *options)
    assert not blind.is_clear
    assert blind.rate == pytest.approx(blind.chance.candidate, abs=0.05)
    knows = guessed.copy()
    right = rng.random(len(boxes)) < 0.5
    knows[right] = boxes[right]
    assert measure_agreement(knows, *options).is_clear
    # Where it predicts nothing, nothing counts.
    knows[right] = np.nan
    half = measure_agreement(knows, *options)
    several = np.array([(own == i).sum() > 1 for i in index])
    assert half.count == (several & ~right).sum() and not half.is_clear
    nothing = measure_agreement(np.full_like(boxes, np.nan), *options)
    assert nothing.count == 0 and not nothing.is_clear


def test_few_labels_are_never_clear_of_a_rate_just_below():
    chance = Chance(0.4, 0.3)
    assert not Agreement(0.5, 90, chance).is_clear  # 0.4 + 2 * 0.052
    assert Agreement(0.51, 100, chance).is_clear is True  # 0.4 + 2 * 0.049
    assert Agreement(0.51, 100, chance).margin == pytest.approx(0.11)  # the larger one


@pytest.mark.parametrize(
    'metric, expected',
    [('grounding/acc_0.5', 0.5), ('val/acc_0.75', 0.75), ('grounding/miou', None)],
)
def test_thresholds_of_metrics(metric, expected):
    assert iou_threshold(metric) == expected


def test_other_metrics_are_named():
    with pytest.raises(ValueError, match='coco/bbox_mAP'):
        iou_threshold('coco/bbox_mAP')
