"""The metric: hits as defined, and the same in any number of processes."""

import json
import re
from types import SimpleNamespace

import mmengine.dataset.sampler
import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler

from projects.clip_vg.datasets.samplers import ImageGroupSampler, image_group_sampler
from projects.clip_vg.evaluation import joined_metric
from projects.clip_vg.evaluation.grounding_metric import (
    GroundingMetric,
    current_name,
    top_boxes,
    top_scores,
)

from ..helpers.results import evaluate, random_boxes, sample, set_sample


def slow_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(0, width) * max(0, height)
    area = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return inter / (sum(area) - inter)


@pytest.fixture
def samples():
    pred, true = random_boxes(60, 0), random_boxes(60, 1)
    true[::3] = pred[::3] + 1
    return [
        sample(
            i, pred[3 * i : 3 * i + 3], true[3 * i : 3 * i + 3], ('val', 'testA')[i % 2]
        )
        for i in range(20)
    ]


def test_accuracy_equals_the_definition(samples):
    scores = evaluate(samples)
    ious = [
        slow_iou(p, t)
        for s in samples
        for p, t in zip(
            s['pred_instances']['bboxes'].tolist(),
            s['gt_instances']['bboxes'].tolist(),
            strict=True,
        )
    ]
    for threshold in (0.25, 0.5, 0.75, 0.9):
        expected = np.mean([iou >= threshold for iou in ious])
        assert scores[f'grounding/acc_{threshold}'] == pytest.approx(expected)
    assert scores['grounding/miou'] == pytest.approx(np.mean(ious), abs=1e-5)


def test_a_threshold_is_reached_by_equality():
    true = [[0.0, 0.0, 2.0, 2.0]]
    half = evaluate([sample(0, [[0.0, 0.0, 2.0, 1.0]], true)])
    assert half['grounding/acc_0.5'] == 1.0


def test_splits_are_reported_when_there_are_several(samples):
    scores = evaluate(samples)
    parts = [scores[f'grounding/{name}/acc_0.5'] for name in ('val', 'testA')]
    assert np.mean(parts) == pytest.approx(scores['grounding/acc_0.5'])
    assert not any('/human/' in key for key in scores)


@pytest.mark.parametrize('shares', [(20, 0), (7, 13), (1, 19)])
def test_ranks_with_unequally_many_samples(samples, monkeypatch, shares):
    expected = evaluate(samples)
    ranks = [GroundingMetric(), GroundingMetric()]
    ranks[0].process(None, samples[: shares[0]])
    # A padding sampler shows the first sample to the last rank once more.
    ranks[1].process(None, samples[shares[0] :] + samples[:1])
    gathered = [list(rank.results) for rank in ranks]
    monkeypatch.setattr(joined_metric, 'all_gather_object', lambda _: gathered)
    assert [rank.evaluate(60) for rank in ranks] == [expected, expected]


@pytest.mark.parametrize('world_size', [2, 3, 4, 23])
@pytest.mark.parametrize('grouped', [True, False])
def test_what_samplers_give_to_ranks_counts_once(
    samples, monkeypatch, world_size, grouped
):
    """Ours lets ranks differ by an image; MMEngine's doubles labels to fill up."""
    expected = evaluate(samples)
    images = np.repeat(np.arange(20), 3)
    labels = [(sample, i) for sample in samples for i in range(3)]
    dataset = SimpleNamespace(table=SimpleNamespace(image_index=images))
    metrics = []
    for rank in range(world_size):
        for module in (image_group_sampler, mmengine.dataset.sampler):
            monkeypatch.setattr(
                module, 'get_dist_info', lambda rank=rank: (rank, world_size)
            )
        if grouped:
            shown = ImageGroupSampler(dataset, shuffle=False, max_expressions=2)
        else:
            shown = [(label,) for label in DefaultSampler(labels, shuffle=False)]
        metrics.append(GroundingMetric())
        for group in shown:
            metrics[-1].process(None, [part(*labels[label]) for label in group])
    gathered = [list(metric.results) for metric in metrics]
    assert sum(map(len, gathered)) >= 60
    monkeypatch.setattr(joined_metric, 'all_gather_object', lambda _: gathered)
    assert [metric.evaluate(60) for metric in metrics] == [expected] * world_size


def part(sample, index):
    """The sample with one of its labels alone."""
    one = {key: [sample[key][index]] for key in ('text', 'sample_id', 'split')}
    boxes = {
        key: dict(bboxes=sample[key]['bboxes'][index][None])
        for key in ('pred_instances', 'gt_instances')
    }
    return dict(sample, source=['human'], **one, **boxes)


def test_one_rank_computes_and_writes_for_all(samples, monkeypatch, tmp_path):
    sent = []
    metrics = [GroundingMetric(out_file=str(tmp_path / f'{i}.jsonl')) for i in (0, 1)]
    for metric in metrics:
        metric.process(None, samples)
    first = metrics[0].evaluate(60)

    def broadcast(objects):
        sent.append(list(objects))
        objects[0] = first

    monkeypatch.setattr(joined_metric, 'is_main_process', lambda: False)
    monkeypatch.setattr(joined_metric, 'broadcast_object_list', broadcast)
    assert metrics[1].evaluate(60) == first
    assert sent == [[None]]
    assert [path.name for path in tmp_path.iterdir()] == ['0.jsonl']


def test_a_missing_sample_is_an_error(samples):
    metric = GroundingMetric()
    metric.process(None, samples[1:])
    with pytest.raises(RuntimeError, match='57 distinct samples.*60'):
        metric.evaluate(60)


def test_of_many_boxes_the_top_score_counts():
    true = [[0.0, 0.0, 10.0, 10.0]]
    pred = [[20.0, 20.0, 30.0, 30.0], [0.0, 0.0, 10.0, 10.0]]
    one = sample(0, pred, true, scores=torch.tensor([0.2, 0.9]))
    assert evaluate([one])['grounding/acc_0.9'] == 1.0


def test_of_many_boxes_for_several_expressions_labels_say_whose_they_are():
    near, far = [0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]
    expressions = [
        ([far, near], [0.2, 0.9], [near]),
        ([], [], [near]),
        ([near, far, near], [0.3, 0.4, 0.1], [near]),
    ]
    scores = evaluate([set_sample(0, expressions)])
    assert scores['grounding/acc_0.9'] == pytest.approx(1 / 3)
    mixed = set_sample(0, expressions)
    order = torch.tensor([4, 1, 0, 3, 2])
    pred = mixed['pred_instances']
    mixed['pred_instances'] = {key: value[order] for key, value in pred.items()}
    assert evaluate([mixed]) == scores
    assert top_scores(pred, 3).tolist() == pytest.approx([0.9, 0, 0.4])


def test_the_file_has_the_score_of_the_box_that_counts(tmp_path):
    true = [[0.0, 0.0, 10.0, 10.0]]
    pred = [[20.0, 20.0, 30.0, 30.0], [0.0, 0.0, 10.0, 10.0]]
    path = tmp_path / 'results.jsonl'
    one = sample(0, pred, true, scores=torch.tensor([0.25, 0.75]))
    evaluate([one], out_file=str(path))
    assert json.loads(path.read_text())['score'] == 0.75


def test_the_file_does_not_depend_on_the_order(samples, tmp_path):
    paths = [tmp_path / name for name in ('one.jsonl', 'other.jsonl')]
    evaluate(samples, out_file=str(paths[0]))
    evaluate(samples[::-1], out_file=str(paths[1]))
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_results_of_an_earlier_evaluation_are_forgotten(samples):
    metric = GroundingMetric()
    metric.process(None, samples)
    metric.evaluate(60)
    metric.process(None, samples[1:])
    with pytest.raises(RuntimeError, match='57 distinct'):
        metric.evaluate(60)


def test_no_box_is_a_miss():
    none = sample(0, torch.zeros(0, 4), [[0.0, 0.0, 10.0, 10.0]], scores=torch.zeros(0))
    assert evaluate([none])['grounding/miou'] == 0.0


def test_many_boxes_for_several_expressions_are_an_error():
    wrong = sample(0, random_boxes(5, 0), random_boxes(2, 1))
    with pytest.raises(ValueError, match='5 boxes for 2 expressions'):
        evaluate([wrong])


def test_a_sample_without_name_is_an_error(samples):
    del samples[0]['sample_id']
    with pytest.raises(ValueError, match=r'0\.jpg: no `sample_id`'):
        evaluate(samples)


def test_results_are_written_whole(samples, tmp_path):
    path = tmp_path / 'deep' / 'results.jsonl'
    scores = evaluate(samples, out_file=str(path))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 60
    assert np.mean([r['iou'] for r in lines]) == pytest.approx(scores['grounding/miou'])
    assert {r['split'] for r in lines} == {'val', 'testA'}
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    'box',
    [
        [float('nan'), 0.0, 10.0, 10.0],
        [0.0, 0.0, float('inf'), 10.0],
        [5.0, 5.0, 5.0, 9.0],
        [9.0, 0.0, 0.0, 9.0],
        [60.0, 0.0, 70.0, 10.0],  # beside an image of 40 x 50 (H, W)
        [-9.0, 0.0, 0.0, 9.0],
    ],
)
def test_a_label_with_an_invalid_box_is_a_miss_and_counted(tmp_path, monkeypatch, box):
    logged = []
    monkeypatch.setattr(
        joined_metric, 'print_log', lambda text, **_: logged.append(text)
    )
    right = [0.0, 0.0, 10.0, 10.0]
    both = dict(sample(0, [box, right], [box, right]), ori_shape=(40, 50))
    path = tmp_path / 'results.jsonl'
    metrics = evaluate([both], out_file=str(path))
    assert [v for k, v in metrics.items() if 'acc' in k] == [0.5] * 4
    assert len(logged) == 1 and '1 of 2 labels' in logged[0] and '0_0' in logged[0]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert np.isfinite([line['gt_bbox'] for line in lines]).all()
    assert {line['sample_id']: line['iou'] for line in lines} == {'0_0': 0, '0_1': 1}
    assert not any('invalid' in line for line in lines)


def test_valid_boxes_are_not_reported(monkeypatch, samples):
    monkeypatch.setattr(joined_metric, 'print_log', lambda *_, **__: 1 / 0)
    evaluate(samples)


# MLflow's rule for the names of metrics (mlflow.utils.validation).
MLFLOW = re.compile(r'[/\w.\- :]+')


def test_names_are_such_that_every_logger_takes_them(samples):
    for i, one in enumerate(samples):
        one['source'] = [('a@b (c)', 'étiquette', 'x/y')[i % 3]] * len(one['text'])
    scores = evaluate(samples)
    # All, each split, each source, and each split of each source.
    assert len([key for key in scores if key.endswith('acc_0.5')]) == 1 + 2 + 3 + 6
    assert [key for key in scores if not MLFLOW.fullmatch(key)] == []


def test_names_that_become_alike_stay_apart(samples):
    for i, one in enumerate(samples):
        one['source'] = [('x/y', 'x_y')[i % 2]] * len(one['text'])
    scores = evaluate(samples)
    assert {'grounding/x_y/miou', 'grounding/x_y_/miou'} <= scores.keys()


@pytest.mark.parametrize(
    'old, new',
    [
        ('grounding/acc@0.5', 'grounding/acc_0.5'),
        ('grounding/testA/acc@0.25', 'grounding/testA/acc_0.25'),
        ('acc@0.5', 'acc_0.5'),
        ('best_score_acc@0.5', 'best_score_acc_0.5'),
        ('grounding/miou', 'grounding/miou'),
        ('coco/acc@top', 'coco/acc@top'),
        ('auto', 'auto'),
    ],
)
def test_earlier_names_have_todays(old, new):
    assert current_name(old) == new


def test_results_say_which_images_are_upright(tmp_path, samples):
    path = tmp_path / 'results.jsonl'
    evaluate(samples, out_file=str(path))
    assert 'upright' not in path.read_text()
    evaluate([dict(s, upright=True) for s in samples], out_file=str(path))
    assert all(json.loads(line)['upright'] for line in path.read_text().splitlines())


def test_of_several_boxes_the_best_of_each_expression_counts():
    """Rows in any order; an expression may have no box, and scores may be equal."""
    boxes, true = random_boxes(7, 0), random_boxes(3, 1)
    labels = [2, 0, 2, 0, 2, 0, 2]
    scores = [0.1, 0.2, 0.9, 0.7, 0.9, 0.3, 0.5]
    pred = dict(
        bboxes=boxes,
        scores=torch.tensor(scores),
        labels=torch.tensor(labels),
        label_names=[f'text {label}' for label in labels],
    )
    top = top_boxes(pred, 3)
    np.testing.assert_allclose(top[[0, 2]], boxes[[3, 2]], rtol=1e-6)
    assert top[1].isnan().all()
    assert top_scores(pred, 3).tolist() == pytest.approx([0.7, 0, 0.9])
    one = sample(0, boxes, true)
    one['pred_instances'] = pred
    scored = evaluate([one])
    expected = [slow_iou(boxes[3], true[0]), 0, slow_iou(boxes[2], true[2])]
    assert scored['grounding/miou'] == pytest.approx(np.mean(expected), abs=1e-5)
