"""Files of sets of boxes: read whole, scored as the metric scores them."""

import json

import numpy as np
import pytest

from projects.clip_vg.evaluation import GeneralizedGroundingMetric
from projects.clip_vg_core.data.table_builder import TableBuilder
from projects.clip_vg_core.metrics.evaluation import (
    evaluate_box_sets,
    evaluate_predictions,
    format_table,
)
from projects.clip_vg_core.metrics.generalized import MatchingRule
from projects.clip_vg_core.metrics.predictions_file import read_predictions
from projects.clip_vg_core.metrics.results_file import read_results, write_results

COUNTS = [1, 0, 3, 2, 0, 1]
WIDE = np.array([640, 480, 640, 480])


@pytest.fixture
def labels():
    """Six labels of 0..3 targets on three images in two splits."""
    rng = np.random.default_rng(0)
    builder = TableBuilder(str, 'any')
    for i, count in enumerate(COUNTS):
        corners = rng.uniform(0, 300, (count, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(60, 99, (count, 2))], 1)
        builder.add_targets(
            f'{i // 2}.jpg',
            boxes.tolist(),
            f'text {i}',
            f'label{i}',
            'val' if i < 4 else 'testA',
            'human',
            (480, 640),
        )
    return builder.build('xyxy')


def written(tmp_path, rows):
    path = tmp_path / 'predictions.jsonl'
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return path


def rows_of(labels, change=lambda boxes: boxes, **extra):
    return [
        dict(extra, sample_id=f'label{i}', bboxes=change(labels.targets(i)).tolist())
        for i in range(len(labels))
    ]


def scored(tmp_path, labels, rows, *args, rule=None, **options):
    predictions = read_predictions(written(tmp_path, rows), sets=True)
    return evaluate_box_sets(
        labels, predictions, rule or MatchingRule(), *args, **options
    )


def shares(evaluation, group=''):
    return {
        key: value
        for key, value in evaluation.groups[group].items()
        if not key.startswith('num_')
    }


def test_true_boxes_are_all_right(labels, tmp_path):
    evaluation = scored(tmp_path, labels, rows_of(labels))
    assert evaluation.warnings == []
    assert evaluation.counts == {'': 6, 'testA': 2, 'val': 4}
    for group in evaluation.groups:
        assert set(shares(evaluation, group).values()) == {1.0}
        assert len(shares(evaluation, group)) == 9
    assert [result['f1'] for result in evaluation.results] == [1.0] * 6
    table = format_table(evaluation).splitlines()
    assert table[1].split() == ['all', '6', *['1.0000'] * 9]
    assert [len(line) for line in table] == [len(table[0])] * 4


def test_a_group_without_a_measure_has_a_dash(labels, tmp_path):
    few = labels.take(np.array([0, 2, 4]))
    evaluation = scored(tmp_path, few, [dict(sample_id='label0', bboxes=[])])
    header, _, of_test, of_val = format_table(evaluation).splitlines()
    cells = dict(zip(header.split()[1:], of_val.split()[2:], strict=True))
    assert of_val.split()[0] == 'val' and cells['n_acc'] == '-'
    cells = dict(zip(header.split()[1:], of_test.split()[2:], strict=True))
    assert (cells['n_acc'], cells['t_acc']) == ('1.0000', '-')


def test_scores_are_those_of_the_metric(labels, tmp_path):
    rng = np.random.default_rng(1)
    rule = MatchingRule(0.4, 'giou', 0.5, 'greedy')
    rows, metric = [], GeneralizedGroundingMetric(0.4, 'giou', 0.5, 'greedy')
    metric.out_file = str(tmp_path / 'results.jsonl')
    for i, label in enumerate(labels):
        targets = labels.targets(i)
        boxes = np.concatenate([targets + rng.uniform(-30, 30, targets.shape)] * 2)
        scores = rng.uniform(0, 1, len(boxes))
        rows.append(
            dict(sample_id=f'label{i}', boxes=boxes.tolist(), scores=scores.tolist())
        )
        sample = dict(label, img_path=label['image'], ori_shape=(480, 640))
        sample['gt_instances'] = dict(bboxes=targets)
        sample['pred_instances'] = dict(bboxes=boxes, scores=scores)
        metric.process({}, [sample])
    expected = metric.evaluate(6)
    evaluation = scored(tmp_path, labels, rows, rule=rule)
    assert expected == {
        f'grounding/{group}/{key}' if group else f'grounding/{key}': value
        for group, measures in evaluation.groups.items()
        for key, value in measures.items()
    }
    # What the metric writes is such a file, too, though without every box.
    again = evaluate_box_sets(
        labels, read_predictions(tmp_path / 'results.jsonl', sets=True), rule
    )
    assert again.groups == evaluation.groups
    assert sum(len(r['bboxes']) for r in again.results) < sum(
        len(row['boxes']) for row in rows
    )


@pytest.mark.parametrize(
    ('row', 'found'),
    [
        (
            dict(boxes=[[1, 2, 3, 4], [5, 6, 7, 8]]),
            [[1, 2, 3, 4, None], [5, 6, 7, 8, None]],
        ),
        (
            dict(boxes=[[1, 2, 3, 4], [5, 6, 7, 8]], scores=[0.5, 0.25]),
            [[1, 2, 3, 4, 0.5], [5, 6, 7, 8, 0.25]],
        ),
        (dict(bbox=[1, 2, 3, 4], score=0.5), [[1, 2, 3, 4, 0.5]]),
        (dict(boxes=[], scores=[]), []),
        (dict(boxes=[[]], scores=[]), []),
        (dict(boxes=None), []),
        (dict(answer='There is none.'), []),
        (dict(answer='[]', score=0.9), []),
        (
            dict(answer='[[1, 2, 3, 4], [5, 6, 7, 8]]', score=0.5),
            [[1, 2, 3, 4, 0.5], [5, 6, 7, 8, 0.5]],
        ),
        (
            dict(answer='[{"bbox_2d": [1, 2, 3, 4]}, {"bbox_2d": [5, 6, 7, 8]}]'),
            [[1, 2, 3, 4, None], [5, 6, 7, 8, None]],
        ),
        (
            dict(answer=[dict(bbox_2d=[1, 2, 3, 4]), dict(bbox_2d=[5, 6, 7, 8])]),
            [[1, 2, 3, 4, None], [5, 6, 7, 8, None]],
        ),
        (
            dict(answer='<box>(1,2),(3,4)</box><box>(5,6),(7,8)</box>'),
            [[1, 2, 3, 4, None], [5, 6, 7, 8, None]],
        ),
        (
            dict(answer='<think>or [9, 9, 9, 9]?</think>[1, 2, 3, 4]'),
            [[1, 2, 3, 4, None]],
        ),
        (dict(x1=1, y1=2, x2=3, y2=4), [[1, 2, 3, 4, None]]),
        (dict(x1=None, y1=None, x2=None, y2=None), []),
    ],
)
def test_all_boxes_of_a_row_are_read(row, found, tmp_path):
    path = written(tmp_path, [dict(row, sample_id='a', image='a.jpg')])
    (read,) = read_predictions(path, sets=True).box_sets
    np.testing.assert_array_equal(read, np.array(found, float).reshape(-1, 5))


def test_scores_of_other_boxes_are_refused(tmp_path):
    path = written(tmp_path, [dict(sample_id='a', boxes=[[1, 2, 3, 4]], scores=[1, 2])])
    with pytest.raises(ValueError, match='row 1: 1 boxes, but 2 scores'):
        read_predictions(path, sets=True)


def test_boxes_without_scores_all_count_and_are_written_without(labels, tmp_path):
    rows = rows_of(labels)
    for row in rows:
        row['scores'] = [None] * len(row['bboxes'])
    evaluation = scored(tmp_path, labels, rows)
    assert evaluation.groups[''] == scored(tmp_path, labels, rows_of(labels)).groups['']
    assert [result['scores'] for result in evaluation.results] == [
        row['scores'] for row in rows
    ]
    assert any(row['scores'] for row in rows)


def test_boxes_without_a_score_are_not_predicted(labels, tmp_path):
    rows = rows_of(labels)
    rows[3]['scores'] = [0.9, None]
    measures = scored(tmp_path, labels, rows).groups['']
    assert measures['num_predictions'] == 6
    assert measures['f1_acc'] == pytest.approx(5 / 6)


def test_nothing_is_predicted_for_a_label_without_a_prediction(labels, tmp_path):
    rows = rows_of(labels)
    evaluation = scored(tmp_path, labels, rows[2:])
    assert evaluation.groups['']['f1_acc'] == pytest.approx(5 / 6)
    (warning,) = evaluation.warnings
    assert '2 of 6' in warning and 'label0, label1' in warning
    only = scored(tmp_path, labels, rows[2:], only_matched=True)
    assert only.counts[''] == 4 and only.groups['']['f1_acc'] == 1


def test_two_sets_for_a_label_are_refused(labels, tmp_path):
    rows = rows_of(labels)
    assert scored(tmp_path, labels, [*rows, rows[2]]).groups['']['f1_acc'] == 1
    fewer = dict(rows[2], bboxes=rows[2]['bboxes'][1:])
    with pytest.raises(ValueError, match=r'\[3, 7\].*label2'):
        scored(tmp_path, labels, [*rows, fewer])


def test_units_are_read_as_said_and_better_ones_named(labels, tmp_path):
    rows = rows_of(labels, lambda boxes: boxes / WIDE * 1000)
    assert set(shares(scored(tmp_path, labels, rows, '1000')).values()) == {1.0}
    wrong = scored(tmp_path, labels, rows)
    assert wrong.groups['']['num_matched'] < 4
    assert '--coords 1000 --box-format xyxy' in wrong.warnings[-1]
    rows = rows_of(labels, lambda b: np.concatenate([b[:, :2], b[:, 2:] - b[:, :2]], 1))
    right = scored(tmp_path, labels, rows, 'pixel', 'xywh')
    assert set(shares(right).values()) == {1.0} and right.warnings == []


def test_no_box_of_any_label_is_no_unit_either(labels, tmp_path):
    rows = rows_of(labels, lambda boxes: boxes[:0])
    evaluation = scored(tmp_path, labels, rows)
    assert evaluation.warnings == []
    assert evaluation.groups['']['f1_acc'] == pytest.approx(2 / 6)


def test_an_invalid_target_is_never_found(labels, tmp_path):
    rows = rows_of(labels)
    labels.boxes[2, 2] = labels.boxes[2, 0]  # of label2
    evaluation = scored(tmp_path, labels, rows)
    assert [result['f1'] == 1 for result in evaluation.results].count(False) == 1
    assert evaluation.groups['']['num_matched'] == 6


def test_results_of_sets_are_not_taken_for_those_of_single_boxes(labels, tmp_path):
    path = tmp_path / 'results.jsonl'
    write_results(path, scored(tmp_path, labels, rows_of(labels)).results)
    with pytest.raises(ValueError, match='line 1.*gt_bboxes'):
        read_results(path)


def test_sets_of_single_targets_agree_with_one_box_each(labels, tmp_path):
    """The share with F1 = 1 is the accuracy where one box is predicted for each."""
    single = labels.take(np.array([0, 5]))
    rows = [dict(row, bbox=row.pop('bboxes')[0]) for row in rows_of(single)]
    rows = [
        dict(row, sample_id=name)
        for row, name in zip(rows, ('label0', 'label5'), strict=True)
    ]
    rows[0]['bbox'] = [600, 400, 630, 470]
    sets = scored(tmp_path, single, rows).groups['']
    single.offsets = None
    ones = evaluate_predictions(single, read_predictions(written(tmp_path, rows)))
    assert sets['f1_acc'] == ones.groups['']['acc_0.5'] == 0.5
