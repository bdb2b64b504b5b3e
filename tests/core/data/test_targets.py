"""Labels of any number of targets, box kinds, and images of held-out labels."""

import math

import numpy as np
import pytest

from projects.clip_vg_core.data.box_formats import RESIZE, smart_resize, to_xyxy
from projects.clip_vg_core.data.label_keys import content_keys
from projects.clip_vg_core.data.label_table import concatenate, invalid_boxes
from projects.clip_vg_core.data.leaks import describe_leaks, image_key, leaking_labels
from projects.clip_vg_core.data.readers import read_annotations, write_odvg
from projects.clip_vg_core.data.table_builder import TableBuilder

COUNTS = [1, 0, 3, 1, 2]


def build(counts=COUNTS, targets='any', names='image'):
    """Labels with so many targets; box j of label i is [i, j, i + 9, j + 9]."""
    builder = TableBuilder(lambda i: f'label {i}', targets)
    for i, count in enumerate(counts):
        boxes = [[i, j, i + 9, j + 9] for j in range(count)]
        size = (50, 60)
        builder.add_targets(
            f'{names}{i}.jpg', boxes, f't{i}', f's{i}', 'val', 'x', size
        )
    return builder.build('xyxy')


def boxes_of(table):
    return [table.targets(i).tolist() for i in range(len(table))]


def test_boxes_stay_with_their_labels():
    table = build()
    assert table.target_counts().tolist() == COUNTS
    assert table.box_owners().tolist() == [0, 2, 2, 2, 3, 4, 4]
    assert boxes_of(table)[2] == [[2, 0, 11, 9], [2, 1, 11, 10], [2, 2, 11, 11]]
    assert table[1]['bboxes'] == [] and 'bbox' not in table[1]
    order = np.array([4, 1, 0, 2])
    assert boxes_of(table.take(order)) == [boxes_of(table)[i] for i in order]
    assert boxes_of(table.take(order).take(np.array([3, 0]))) == [
        boxes_of(table)[i] for i in (2, 4)
    ]
    assert boxes_of(table.take(np.arange(0))) == []


def test_a_sum_of_tables_keeps_targets():
    one, any_number = build([1, 1], 'one', 'other'), build()
    assert concatenate([one, one]).offsets is None
    both = concatenate([one, any_number, one])
    assert boxes_of(both) == boxes_of(one) + boxes_of(any_number) + boxes_of(one)
    assert [both[i]['image'] for i in (0, 2)] == ['other0.jpg', 'image0.jpg']


def test_keys_of_single_targets_do_not_depend_on_the_others():
    keys, single = content_keys(build()), content_keys(build(targets='one'))
    assert keys[[0, 3]].tolist() == single.tolist()
    assert len(set(keys.tolist())) == len(COUNTS)


def test_keys_of_several_targets_depend_on_each_but_not_on_their_order():
    table, keys = build(), content_keys(build())
    table.boxes[[1, 2]] = table.boxes[[2, 1]]  # of label 2
    assert content_keys(table).tolist() == keys.tolist()
    table.boxes[1, 0] += 1
    assert np.flatnonzero(content_keys(table) != keys).tolist() == [2]


def test_a_label_with_an_invalid_box_is_named_once():
    table = build()
    table.boxes[2, 2] = 0  # of label 2: empty
    table.boxes[3, 0] = np.nan  # of label 2 as well
    named = np.concatenate([indices for _, indices in invalid_boxes(table)])
    assert named.tolist() == [2]


def test_any_number_of_targets_goes_through_odvg(tmp_path):
    write_odvg(build(), tmp_path / 'a.jsonl')
    assert list(read_annotations(tmp_path / 'a.jsonl', targets='any')) == list(build())
    with pytest.raises(ValueError, match="targets='some'"):
        read_annotations(tmp_path / 'a.jsonl', targets='some')


def test_a_table_of_single_targets_is_small():
    table = build([1] * 5000, 'one')
    columns = (table.boxes, table.image_index, table.splits, table.sources, table.sizes)
    packed = (table.texts, table.sample_ids, table.images)
    total = sum(c.nbytes for c in columns)
    total += sum(p.data.nbytes + p.ends.nbytes for p in packed)
    assert total / len(table) < 250  # with an image for each label; 84 here


def slow_resize(height, width, factor, min_pixels, max_pixels):
    """``qwen_vl_utils.smart_resize``, written out for one image."""
    rows = max(factor, round(height / factor) * factor)
    columns = max(factor, round(width / factor) * factor)
    if rows * columns > max_pixels:
        beta = math.sqrt(height * width / max_pixels)
        rows = max(factor, math.floor(height / beta / factor) * factor)
        columns = max(factor, math.floor(width / beta / factor) * factor)
    elif rows * columns < min_pixels:
        beta = math.sqrt(min_pixels / (height * width))
        rows = math.ceil(height * beta / factor) * factor
        columns = math.ceil(width * beta / factor) * factor
    return [rows, columns]


@pytest.mark.parametrize('limits', [RESIZE, dict(RESIZE, max_pixels=1280 * 28 * 28)])
def test_images_are_resized_as_qwen_does(limits):
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 6000, (500, 2))
    sizes[:3] = [[480, 640], [14, 42], [3, 5]]
    expected = [slow_resize(*size, **limits) for size in sizes.tolist()]
    assert smart_resize(sizes, **limits).tolist() == expected


def test_centres_and_extents_are_boxes():
    boxes = np.array([[10.0, 20.0, 4.0, 6.0]])
    assert to_xyxy(boxes, 'cxcywh').tolist() == [[8, 17, 12, 23]]
    assert to_xyxy(boxes, 'xywh').tolist() == [[10, 20, 14, 26]]


@pytest.mark.parametrize(
    ('one', 'other', 'same'),
    [
        ('train2014/COCO_train2014_000000000009.jpg', '000000000009.jpg', True),
        ('COCO_val2014_000000000009_3.jpg', 'x\\000000000009.png', True),
        ('COCO_train2014_000000000009.jpg', '000000000010.jpg', False),
        ('a/B.jpg', 'A\\b.png', True),
        ('train/1.jpg', 'val/1.jpg', False),
        ('9.jpg', '000000000009.jpg', False),  # a number of another data set
    ],
)
def test_an_image_has_one_key_in_all_sets(one, other, same):
    assert (image_key(one) == image_key(other)) is same


def test_labels_of_held_out_images_leak():
    training = build([1, 1, 1, 1])
    held_out = build([1, 1], names='other'), build([1, 0], names='image')
    assert leaking_labels(training, held_out).tolist() == [0, 1]
    # Images stay in a table whose labels are dropped: those hold out nothing.
    assert leaking_labels(training, [training.take(np.array([2]))]).tolist() == [2]
    assert leaking_labels(training, []).tolist() == []
    text = describe_leaks(training, np.array([0, 1]), ['val.json'])
    for part in ('2 of 4', '2 images', 'val.json', 'image0.jpg'):
        assert part in text
