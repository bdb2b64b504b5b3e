"""Files of results: read as they were written, refused where they are damaged."""

import json
import math

import numpy as np
import pytest

from projects.clip_vg.evaluation.grounding_metric import GroundingMetric
from projects.clip_vg_core.metrics.results_file import (
    common_results,
    read_results,
    write_results,
)

from ...helpers.results import answer, random_boxes, sample


def write(path, *lines):
    path.write_text(''.join(f'{line}\n' for line in lines), encoding='utf-8')
    return path


def test_reads_what_the_metric_writes(tmp_path):
    path = tmp_path / 'results.jsonl'
    metric = GroundingMetric(out_file=str(path))
    boxes = random_boxes(6, seed=0)
    metric.process({}, [sample(0, boxes[:2], boxes[2:4]), sample(1, *boxes[4:, None])])
    scores = metric.evaluate(3)
    results = read_results(path)
    ious = np.array([result['iou'] for result in results])
    assert scores['grounding/miou'] == pytest.approx(ious.mean())
    assert [r['sample_id'] for r in results] == ['0_0', '0_1', '1_0']
    np.testing.assert_allclose([r['gt_bbox'] for r in results[:2]], boxes[2:4], 1e-6)


def test_what_is_written_is_read_and_a_score_of_nan_is_none(tmp_path):
    results = [answer(0, score=0.25), answer(1, score=math.nan), answer(2, score=None)]
    path = tmp_path / 'new' / 'a.jsonl'
    write_results(path, results)
    assert read_results(path) == [
        dict(r, score=s) for r, s in zip(results, (0.25, None, None), strict=True)
    ]
    with pytest.raises(ValueError, match='JSON'):
        write_results(path, [answer(0, iou=math.nan)])
    assert len(read_results(path)) == 3  # as it was


def test_scores_may_be_there_or_not(tmp_path):
    lines = [answer(0, score=0.25), answer(1), answer(2, score=None)]
    path = write(tmp_path / 'a.jsonl', *map(json.dumps, lines))
    scores = [result['score'] for result in read_results(path)]
    assert scores[0] == 0.25
    assert scores[1:] == [None, None]


def test_blank_lines_and_a_byte_order_mark_are_passed_over(tmp_path):
    path = tmp_path / 'a.jsonl'
    path.write_text(f'\ufeff{json.dumps(answer())}\n\n', encoding='utf-8')
    assert len(read_results(path)) == 1


@pytest.mark.parametrize(
    'line, said',
    [
        ('{"sample_id": "s1", "ima', 'not valid JSON'),
        ('[' * 100_000, 'not valid JSON'),
        ('[1]', 'expected a JSON object, found list'),
        (json.dumps({k: v for k, v in answer(1).items() if k != 'iou'}), "no 'iou'"),
        (json.dumps(answer(1, iou=math.nan)), 'iou: nan is no finite number'),
        (json.dumps(answer(1, iou='0.5')), "iou: expected a number, found '0.5'"),
        (json.dumps(answer(1, iou=True)), 'iou: expected a number, found True'),
        (json.dumps(answer(1, iou=50)), r'iou: expected a number in \[0, 1\]'),
        (json.dumps(answer(1, score=math.inf)), 'score: inf is no finite number'),
        (json.dumps(answer(1, bbox=[0, 0, 1])), r'bbox: expected 4 numbers .* found 3'),
        (json.dumps(answer(1, bbox=None)), 'bbox: expected a list'),
        (
            json.dumps(answer(1, gt_bbox=[0, 0, 1, math.nan])),
            'gt_bbox: nan is no finite number',
        ),
        (json.dumps(answer(1, text=3)), 'text: expected a text, found int'),
        (json.dumps(answer(0)), "sample_id 's0' is there already"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, said):
    path = write(tmp_path / 'a.jsonl', json.dumps(answer()), line)
    with pytest.raises(ValueError, match=f'a.jsonl, line 2.*{said}'):
        read_results(path)


@pytest.mark.parametrize('content, said', [(b'', 'is empty'), (b'\xff\xfe', 'UTF-8')])
def test_a_file_without_results_is_refused(tmp_path, content, said):
    path = tmp_path / 'a.jsonl'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_results(path)


def test_runs_are_brought_into_one_order():
    one = [answer(i, iou=i / 10) for i in range(5)]
    other = [answer(i, iou=i / 20) for i in (3, 1, 4, 0, 2)]
    left, right = common_results(one, other)
    assert left == one
    assert right == sorted(other, key=lambda result: result['sample_id'])


def test_runs_of_different_samples_are_compared_only_if_asked():
    one, other = [answer(i) for i in range(5)], [answer(i) for i in range(2, 6)]
    said = '2 only in the first, 1 only in the second, 3 in both.*--allow-missing'
    with pytest.raises(ValueError, match=said):
        common_results(one, other)
    left, right = common_results(one, other, allow_missing=True)
    assert left == right == one[2:]
    with pytest.raises(ValueError, match='0 in both'):
        common_results(one[:2], other, allow_missing=True)


def test_one_name_for_two_expressions_is_refused():
    with pytest.raises(ValueError, match="'s0' is 'left man' .* and 'right man'"):
        common_results([answer()], [answer(text='right man')])
