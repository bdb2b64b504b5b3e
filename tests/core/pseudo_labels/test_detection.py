"""Detections: their geometry, and randomness that only the image decides."""

import itertools

import numpy as np
import pytest

from projects.clip_vg_core.pseudo_labels.detection import (
    Detection,
    image_rng,
    intersection,
    iou,
)

from ...helpers.scenes import at


def whole_boxes(seed, count=25):
    """Random xyxy boxes of whole pixels."""
    edges = np.random.default_rng(seed).integers(0, 12, (count, 2, 2))
    low, high = edges.min(1), edges.max(1) + 1
    return np.concatenate([low, high], 1).tolist()


def pixels(box):
    left, top, right, bottom = box
    return set(itertools.product(range(left, right), range(top, bottom)))


def test_area_overlap_and_iou_count_pixels():
    for one, other in itertools.pairwise(whole_boxes(0, 100)):
        shared, union = pixels(one) & pixels(other), pixels(one) | pixels(other)
        assert Detection('dog', one).area == len(pixels(one))
        assert intersection(one, other) == len(shared)
        assert iou(one, other) == pytest.approx(len(shared) / len(union))


def test_iou_is_symmetric_and_one_only_for_equal_boxes():
    for one, other in itertools.product(whole_boxes(1), whole_boxes(2)):
        assert iou(one, other) == iou(other, one)
        assert (iou(one, other) == 1) == (one == other)
        assert iou(one, one) == 1


@pytest.mark.parametrize('shift', [(10, 0), (0, 10), (10, 10), (30, 0), (0, -30)])
def test_boxes_that_only_touch_share_nothing(shift):
    box = at(50, 50, size=(10, 10)).box
    other = at(50 + shift[0], 50 + shift[1], size=(10, 10)).box
    assert intersection(box, other) == iou(box, other) == 0


def test_the_centre_is_as_far_from_opposite_edges():
    assert at(31, 47.5, size=(9, 4)).center == (31, 47.5)


def test_a_phrase_is_the_class_after_its_attribute_if_any():
    assert Detection('cup', (0, 0, 1, 1)).phrase == 'cup'
    assert Detection('cup', (0, 0, 1, 1), attribute='red').phrase == 'red cup'


def draw(seed, image_id):
    return tuple(image_rng(seed, image_id).integers(2**32, size=4).tolist())


def test_every_seed_and_image_draw_something_else():
    keys = list(itertools.product(range(8), [*range(50), 'a.jpg', 'b/a.jpg', 'é']))
    assert len({draw(*key) for key in keys}) == len(keys)


def test_what_is_drawn_before_changes_nothing():
    first = draw(3, 'a.jpg')
    np.random.seed(5)
    draw(3, 'b.jpg')
    assert draw(3, 'a.jpg') == first


def test_the_draw_is_the_same_in_every_process():
    # Recorded once. A shard that is made tomorrow on another machine must fit today's,
    # so no hash() of a string, which each process salts.
    recorded = (2526752463, 129652878, 1927499288, 1577795118)
    assert draw(7, 'COCO_train2014_000000000009.jpg') == recorded
