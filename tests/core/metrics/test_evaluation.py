"""Scoring of predictions: matching, units, what is missing; as the metric scores."""

import json

import numpy as np
import pytest

from projects.clip_vg.evaluation.grounding_metric import GroundingMetric
from projects.clip_vg_core.data.readers import read_annotations
from projects.clip_vg_core.metrics.evaluation import evaluate_predictions
from projects.clip_vg_core.metrics.prediction_units import to_pixels
from projects.clip_vg_core.metrics.predictions_file import read_predictions

SIZE = (480, 640)


@pytest.fixture
def labels(tmp_path):
    """Six labels on three images in two splits, two of them alike but for the box."""
    rng = np.random.default_rng(0)
    path = tmp_path / 'labels.jsonl'
    with path.open('w') as file:
        for i, text in enumerate(['a', 'b', 'a', 'c', 'twin', 'twin']):
            left, top = rng.uniform(0, 200, 2)
            box = [left, top, left + 100 + 10 * i, top + 90]
            regions = [dict(bbox=box, phrase=text)]
            line = dict(
                filename=f'folder/COCO_train2014_{i // 2:012d}.jpg',
                height=SIZE[0],
                width=SIZE[1],
                grounding=dict(caption=text, regions=regions),
                split='val' if i < 4 else 'testA',
                sample_id=f'label{i}',
            )
            file.write(json.dumps(line) + '\n')
    return read_annotations(path)


def predict(tmp_path, labels, change=lambda box: box, ids=True, order=None, **extra):
    path = tmp_path / 'predictions.jsonl'
    with path.open('w') as file:
        for i in range(len(labels)) if order is None else order:
            label = labels[i]
            row = dict(extra, bbox=[float(v) for v in change(label['bbox'])])
            if ids:
                row['sample_id'] = label['sample_id']
            else:
                row.update(image=label['image'], sent=label['text'])
            file.write(json.dumps(row) + '\n')
    return read_predictions(path)


@pytest.mark.parametrize('ids', [True, False])
def test_the_true_boxes_hit_all(ids, labels, tmp_path):
    evaluation = evaluate_predictions(labels, predict(tmp_path, labels, ids=ids))
    assert evaluation.warnings == []
    assert evaluation.counts == {'': 6, 'testA': 2, 'val': 4}
    assert {group['acc_0.9'] for group in evaluation.groups.values()} == {1.0}


def test_labels_of_every_group_are_counted(labels, tmp_path):
    labels.source_names, labels.sources = ('a/b', 'c'), np.array([0, 0, 0, 1, 1, 1])
    evaluation = evaluate_predictions(labels, predict(tmp_path, labels))
    assert evaluation.counts == {
        **{'': 6, 'val': 4, 'testA': 2, 'a_b': 3, 'c': 3},
        **{'a_b/val': 3, 'c/val': 1, 'c/testA': 2},
    }
    assert evaluation.counts.keys() == evaluation.groups.keys()


def test_scores_are_those_of_the_metric(labels, tmp_path):
    rng = np.random.default_rng(1)
    predictions = predict(tmp_path, labels, lambda box: box + rng.uniform(-40, 40, 4))
    metric = GroundingMetric()
    for label, box in zip(labels, predictions.boxes, strict=True):
        sample = dict(label, img_path=label['image'], ori_shape=SIZE)
        sample['gt_instances'] = dict(bboxes=[label['bbox']])
        sample['pred_instances'] = dict(bboxes=[box], scores=[1.0])
        metric.process({}, [sample])
    evaluation = evaluate_predictions(labels, predictions)
    ours = {
        f'grounding/{group}/{key}' if group else f'grounding/{key}': value
        for group, scores in evaluation.groups.items()
        for key, value in scores.items()
    }
    assert ours == metric.evaluate(6)


def test_labels_of_one_image_and_expression_are_matched_in_order(labels, tmp_path):
    crossed = predict(tmp_path, labels, ids=False, order=[0, 1, 2, 3, 5, 4])
    groups = evaluate_predictions(labels, crossed).groups
    assert groups['val']['acc_0.9'] == 1
    assert groups['testA']['acc_0.9'] < 1
    one_box = predict(tmp_path, labels, lambda _: labels[4]['bbox'], ids=False)
    assert evaluate_predictions(labels, one_box).results[4]['iou'] == 1
    three = predict(tmp_path, labels, ids=False, order=[4, 5, 5])
    with pytest.raises(ValueError, match='label4.*twin'):
        evaluate_predictions(labels, three)


def test_images_are_known_by_other_names(labels, tmp_path):
    path = tmp_path / 'p.jsonl'
    row = dict(image='/data/train2017/000000000000.png', text=' A.')
    row['bbox'] = labels[0]['bbox']
    path.write_text(json.dumps(row))
    evaluation = evaluate_predictions(labels, read_predictions(path), only_matched=True)
    assert [result['sample_id'] for result in evaluation.results] == ['label0']
    assert evaluation.groups['']['acc_0.9'] == 1


def test_an_id_that_means_another_expression_is_not_believed(labels, tmp_path):
    path = tmp_path / 'p.jsonl'
    row = dict(id='label1', image=labels[0]['image'], text='a')
    path.write_text(json.dumps(dict(row, bbox=labels[0]['bbox'])))
    results = evaluate_predictions(labels, read_predictions(path)).results
    assert [result['iou'] for result in results] == [1, 0, 0, 0, 0, 0]


def test_what_is_missing_is_said_and_counts_as_a_miss(labels, tmp_path):
    some = predict(tmp_path, labels, order=[0, 1, 2])
    evaluation = evaluate_predictions(labels, some)
    assert evaluation.groups['']['acc_0.5'] == 0.5
    assert '3 of 6' in evaluation.warnings[0]
    assert 'label3' in evaluation.warnings[0]
    assert evaluate_predictions(labels, some, only_matched=True).counts == {'': 3}
    none = predict(tmp_path, labels)
    none.boxes[2] = np.nan
    evaluation = evaluate_predictions(labels, none)
    assert evaluation.groups['']['acc_0.5'] == pytest.approx(5 / 6)
    assert evaluation.warnings[0].startswith('1 ')


def test_predictions_of_other_labels_are_counted(labels, tmp_path):
    all_of_them = predict(tmp_path, labels)
    first = labels.take(np.array([0, 1]))
    (warning,) = evaluate_predictions(first, all_of_them).warnings
    assert '4 of 6' in warning
    assert 'label2' in warning
    others = labels.take(np.array([0]))
    all_of_them.sample_ids[0] = 'unknown'
    with pytest.raises(ValueError, match='unknown.*label0'):
        evaluate_predictions(others, all_of_them)


def test_two_predictions_for_a_label_are_refused(labels, tmp_path):
    twice = predict(tmp_path, labels, order=[0, 1, 2, 3, 4, 5, 0])
    assert evaluate_predictions(labels, twice).groups['']['acc_0.9'] == 1
    twice.boxes[-1] += 50
    with pytest.raises(ValueError, match=r'\[1, 7\].*label0'):
        evaluate_predictions(labels, twice)


WIDE = np.array([640, 480, 640, 480])


@pytest.mark.parametrize('box_format', ['xyxy', 'xywh', 'cxcywh'])
@pytest.mark.parametrize(
    'coordinates, unit',
    [
        ('pixel', None),
        ('1', (1, 1)),
        ('999', (999, 999)),
        ('1000', (1000, 1000)),
        ('resized:320x448', (320, 448)),
    ],
)
def test_every_unit_and_format(coordinates, unit, box_format, labels, tmp_path):
    def change(box):
        box = np.array(box)
        if unit is not None:
            box = box / WIDE * np.tile(unit, 2)
        if box_format != 'xyxy':
            box[2:] -= box[:2]
        if box_format == 'cxcywh':
            box[:2] += box[2:] / 2
        return box

    predictions = predict(tmp_path, labels, change)
    evaluation = evaluate_predictions(labels, predictions, coordinates, box_format)
    assert evaluation.groups['']['acc_0.9'] == 1
    assert evaluation.warnings == []


def test_a_better_reading_is_named_and_not_taken(labels, tmp_path):
    predictions = predict(tmp_path, labels, lambda box: np.array(box) / WIDE * 1000)
    evaluation = evaluate_predictions(labels, predictions)
    assert evaluation.groups['']['acc_0.9'] == 0
    assert '--coords 1000 --box-format xyxy' in evaluation.warnings[-1]
    right = evaluate_predictions(labels, predictions, '1000')
    assert right.groups['']['acc_0.9'] == 1


def test_sizes_come_from_labels_or_predictions_or_images(labels, tmp_path):
    from PIL import Image

    unknown = labels.take(np.arange(6))
    unknown.sizes = np.full_like(labels.sizes, -1)
    share = dict(change=lambda box: np.array(box) / WIDE)
    with pytest.raises(ValueError, match='6.*COCO_train2014_000000000000.jpg'):
        evaluate_predictions(unknown, predict(tmp_path, labels, **share), '1')
    said = predict(tmp_path, labels, **share, height=480, width=640)
    assert evaluate_predictions(unknown, said, '1').groups['']['acc_0.9'] == 1
    for name in labels.images:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new('RGB', (640, 480)).save(tmp_path / name)
    plain = predict(tmp_path, labels, **share)
    read = evaluate_predictions(unknown, plain, '1', images=tmp_path)
    assert read.groups['']['acc_0.9'] == 1


@pytest.mark.parametrize('coordinates', ['pixels', '100', 'resized:0x4', 'resized:4'])
def test_unknown_coordinates_are_refused(coordinates):
    with pytest.raises(ValueError, match=coordinates):
        to_pixels(np.ones((1, 4)), coordinates, 'xyxy', np.ones((1, 2)))


def test_a_label_with_an_invalid_box_is_a_miss(labels, tmp_path):
    labels.boxes[0, 2] = labels.boxes[0, 0]
    predictions = predict(tmp_path, labels)
    evaluation = evaluate_predictions(labels, predictions)
    assert [result['iou'] for result in evaluation.results] == [0, 1, 1, 1, 1, 1]
