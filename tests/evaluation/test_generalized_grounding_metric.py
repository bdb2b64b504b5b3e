"""The metric of 0..n targets: what belongs to what, in any batches and processes."""

import json
import multiprocessing
import os
import re

import mmdet
import numpy as np
import pytest
import torch
from mmdet.registry import METRICS
from mmengine.utils import digit_version

from projects.clip_vg.evaluation import (
    GeneralizedGroundingMetric,
    generalized_grounding_metric,
    joined_metric,
)
from projects.clip_vg_core.metrics.generalized import (
    MatchingRule,
    count_expression,
    summarize_sets,
)
from projects.clip_vg_core.metrics.set_results import read_set_results

from ..helpers.pages import blocks
from ..helpers.results import evaluate, random_boxes, sample, set_sample

LEFT, RIGHT = [0.0, 0, 10, 10], [20.0, 0, 30, 10]


def score(samples, **options):
    return evaluate(samples, GeneralizedGroundingMetric, **options)


@pytest.fixture
def expressions():
    """60 of (boxes, scores, targets), many of them right."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(60):
        targets = random_boxes(rng.integers(0, 4), i)
        boxes = np.concatenate([targets + rng.uniform(0, 2), random_boxes(2, i + 100)])
        kept = rng.permutation(len(boxes))[: rng.integers(0, len(boxes) + 1)]
        scores = rng.uniform(0, 1, len(boxes))
        scores[: len(targets)] = scores[: len(targets)] ** 0.2
        found.append((boxes[kept], scores[kept], targets))
    return found


@pytest.fixture
def samples(expressions):
    """20 images of three expressions."""
    return [
        set_sample(i, expressions[3 * i : 3 * i + 3], ('val', 'testA')[i % 2])
        for i in range(20)
    ]


def alone(sample):
    """The expressions of a sample in samples of their own."""
    for i, text in enumerate(sample['text']):
        one = {key: sample[key][i] for key in ('sample_id', 'split', 'source')}
        for key in ('pred_instances', 'gt_instances'):
            own = sample[key]['labels'] == i
            one[key] = {k: v[own] for k, v in sample[key].items()}
            one[key]['labels'] = torch.zeros(int(own.sum()), dtype=torch.long)
        yield dict(sample, text=text, **one)


def test_it_is_registered_and_computes_what_the_functions_do(samples, expressions):
    metric = METRICS.build(dict(type='GeneralizedGroundingMetric', score_thr=0.6))
    metric.process(None, samples)
    measures = metric.evaluate(60)
    rule = MatchingRule(0.6)
    counts = [count_expression(*expression, rule) for expression in expressions]
    for name, value in summarize_sets(counts, rule).items():
        assert measures[f'grounding/{name}'] == pytest.approx(value), name
    assert 0.1 < measures['grounding/f1_acc'] < 0.9
    parts = [measures[f'grounding/{name}/f1_acc'] for name in ('val', 'testA')]
    assert np.mean(parts) == pytest.approx(measures['grounding/f1_acc'])


def test_two_targets_and_none_predicted_perfectly_are_all_right():
    measures = score(
        [
            set_sample(0, [([RIGHT, LEFT], [0.9, 0.8], [LEFT, RIGHT])]),
            set_sample(1, [([LEFT], [0.1], [])]),
        ]
    )
    shares = {k: v for k, v in measures.items() if '/num_' not in k}
    assert shares == dict.fromkeys(shares, 1.0)
    assert len(shares) == 9


@pytest.mark.parametrize('found', [LEFT, RIGHT])
def test_one_box_of_two_is_not_right(found):
    measures = score([set_sample(0, [([found], [0.9], [LEFT, RIGHT])])])
    assert measures['grounding/f1_acc'] == 0


@pytest.mark.skipif(
    digit_version(mmdet.__version__) > digit_version('3.3.0'),
    reason='the page is about MMDetection 3.3.0',
)
def test_the_report_about_mmdetections_metric_says_what_it_does(tmp_path, monkeypatch):
    """The code of docs/generalized_grounding.md, and ours on the same predictions."""
    monkeypatch.chdir(tmp_path)
    (block,) = (b for b in blocks('python') if 'gRefCOCOMetric' in b.text)
    report = {}
    exec(compile(block.text, block.place, 'exec'), report)
    name = 'grefcoco/F1_score'
    theirs = report['perfect'][name], report['one_of_two'][name]
    left, right = (report[side] for side in ('LEFT', 'RIGHT'))
    ours = [
        score(
            [
                set_sample(0, [(found, [1.0] * len(found), [left, right])]),
                set_sample(1, [([], [], [])]),
            ]
        )['grounding/f1_acc']
        for found in ([left, right], [left])
    ]
    assert (theirs, ours) == ((0.5, 1.0), [1.0, 0.5])
    with pytest.raises(ZeroDivisionError):
        report['evaluate']({1: [left, right]})
    whole = set_sample(0, [([left, right], [1.0, 1.0], [left, right])])
    assert score([whole])['grounding/f1_acc'] == 1.0


@pytest.mark.parametrize('size', [1, 2, 7])
def test_batches_of_any_size_give_the_same(samples, size):
    whole = score(samples)
    metric = GeneralizedGroundingMetric()
    for begin in range(0, len(samples), size):
        metric.process(None, samples[begin : begin + size])
    assert metric.evaluate(60) == whole


def test_grouped_expressions_give_the_same_as_single_ones(samples, tmp_path):
    whole = score(samples, out_file=str(tmp_path / 'grouped.jsonl'))
    single = [one for sample in samples for one in alone(sample)]
    metric = GeneralizedGroundingMetric(out_file=str(tmp_path / 'single.jsonl'))
    metric.process(None, single[::-1])
    assert metric.evaluate(60) == whole
    files = [tmp_path / f'{name}.jsonl' for name in ('grouped', 'single')]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize('shares', [(20, 0), (7, 13), (1, 19)])
def test_ranks_with_unequally_many_samples(samples, monkeypatch, shares):
    expected = score(samples)
    ranks = [GeneralizedGroundingMetric(), GeneralizedGroundingMetric()]
    ranks[0].process(None, samples[: shares[0]])
    # A padding sampler shows the first sample to the last rank once more.
    ranks[1].process(None, samples[shares[0] :] + samples[:1])
    gathered = [list(rank.results) for rank in ranks]
    monkeypatch.setattr(joined_metric, 'all_gather_object', lambda _: gathered)
    assert [rank.evaluate(60) for rank in ranks] == [expected, expected]


def _score_as(rank, samples, folder):
    """One of two processes: score what a sampler would give it."""
    torch.set_num_threads(1)  # OpenMP's threads are not there after a fork
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2')
    torch.distributed.init_process_group(
        'gloo', f'file://{folder}/rendezvous', rank=rank, world_size=2
    )
    metric = GeneralizedGroundingMetric(out_file=str(folder / 'results.jsonl'))
    metric.process(None, [*samples[rank::2], samples[0]])
    (folder / f'{rank}.json').write_text(json.dumps(metric.evaluate(60)))
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_same_as_one(samples, tmp_path):
    expected = score(samples, out_file=str(tmp_path / 'expected.jsonl'))
    context = multiprocessing.get_context('fork')
    processes = [
        context.Process(target=_score_as, args=(rank, samples, tmp_path))
        for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        process.kill()
    found = [json.loads((tmp_path / f'{rank}.json').read_text()) for rank in (0, 1)]
    assert found == [expected, expected]
    files = [tmp_path / f'{name}.jsonl' for name in ('results', 'expected')]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_detector_of_classes_predicts_all_boxes_for_the_one_expression():
    """MMDetection's detectors write classes, or places in a prompt, as labels."""
    one = set_sample(0, [([LEFT, RIGHT], [0.9, 0.8], [RIGHT, LEFT])])
    one['pred_instances']['labels'] = torch.tensor([7, 3])
    one['gt_instances']['labels'] = torch.tensor([5, 5])
    assert score([one])['grounding/f1_acc'] == 1
    del one['pred_instances']['labels'], one['gt_instances']['labels']
    assert score([one])['grounding/f1_acc'] == 1


def test_single_targets_keep_working():
    """As today's detectors predict: one box each, in order, with or without scores."""
    boxes = random_boxes(4, 0)
    true = boxes.copy()
    true[0] += 200
    measures = score([sample(0, boxes, true)])
    assert (
        measures['grounding/f1_acc']
        == evaluate([sample(0, boxes, true)])['grounding/acc_0.5']
    )
    rated = sample(0, boxes, true, scores=torch.tensor([0.9, 0.9, 0.1, 0.9]))
    measures = score([rated], score_thr=0.5)
    assert measures['grounding/f1_acc'] == 0.5
    assert measures['grounding/t_acc'] == 0.75


@pytest.mark.parametrize(
    ('changes', 'found'),
    [
        (dict(pred_instances=dict(bboxes=torch.zeros(5, 4))), '5 boxes for 2'),
        (
            dict(
                pred_instances=dict(
                    bboxes=torch.zeros(3, 4), labels=torch.tensor([0, 1, 2])
                )
            ),
            r'3 boxes.*\[0, 1, 2\]',
        ),
        (
            dict(
                gt_instances=dict(bboxes=torch.zeros(1, 4), labels=torch.tensor([-1]))
            ),
            r'1 boxes.*\[-1\]',
        ),
        (dict(sample_id=[]), 'sample_id'),
        (dict(text=['a']), '2 labels.*1 '),
    ],
)
def test_what_belongs_to_no_expression_is_an_error(changes, found):
    two = set_sample(0, [([LEFT], [0.9], [LEFT])] * 2)
    with pytest.raises(ValueError, match=found):
        score([dict(two, **changes)])


def test_a_missing_sample_is_an_error(samples):
    metric = GeneralizedGroundingMetric()
    metric.process(None, samples[1:])
    with pytest.raises(RuntimeError, match='57 distinct samples.*60'):
        metric.evaluate(60)


def test_an_invalid_target_is_not_found_and_counted(monkeypatch):
    logged = []
    monkeypatch.setattr(
        joined_metric, 'print_log', lambda text, **_: logged.append(text)
    )
    outside = [60.0, 0, 70, 10]  # of an image of 40 x 50 (H, W)
    boxes = [LEFT, outside]
    two = set_sample(
        0, [(boxes, [1.0, 1], boxes), ([LEFT], [1.0], [LEFT])], ori_shape=(40, 50)
    )
    measures = score([two])
    assert measures['grounding/f1_acc'] == 0.5
    assert measures['grounding/num_matched'] == 2
    assert len(logged) == 1 and '1 of 2 labels' in logged[0] and '0_0' in logged[0]


def test_the_matching_is_logged_and_part_of_names_that_every_logger_takes(
    samples, monkeypatch
):
    logged = []
    monkeypatch.setattr(
        generalized_grounding_metric,
        'print_log',
        lambda text, **_: logged.append(text),
    )
    measures = score(samples, score_thr=0.4, overlap='giou', matcher='greedy')
    assert len(logged) == 1
    for part in ('0.4', 'GIoU >= 0.5', "'greedy'"):
        assert part in logged[0]
    assert 'grounding/testA/f1_acc_giou_0.5_greedy' in measures
    # MLflow's rule for the names of metrics (mlflow.utils.validation).
    assert not [k for k in measures if not re.fullmatch(r'[/\w.\- :]+', k)]
    assert all(isinstance(v, int | float) for v in measures.values())


def test_scores_that_only_fill_up_are_written_as_null(tmp_path):
    sample = set_sample(0, [([[0, 0, 9, 9]], [1.0], [[0, 0, 9, 9]])])
    for scored, expected in ((True, [1.0]), (False, [None])):
        sample['pred_instances']['scored'] = scored
        path = tmp_path / 'results.jsonl'
        assert score([sample], out_file=str(path))['grounding/f1_acc'] == 1
        assert json.loads(path.read_text())['scores'] == expected
        (read,) = read_set_results(path, MatchingRule())
        assert read['scores'] == expected and read['found'] == [True]


def test_the_file_has_the_boxes_that_count_and_the_best(samples, tmp_path):
    path = tmp_path / 'deep' / 'results.jsonl'
    measures = score(samples, out_file=str(path))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 60
    right = np.mean([row['f1'] == 1 for row in rows])
    assert right == measures['grounding/f1_acc']
    assert sum(len(r['gt_bboxes']) for r in rows) == measures['grounding/num_targets']
    for row in rows:
        assert len(row['bboxes']) == len(row['scores'])
        assert all(s >= 0.7 for s in row['scores'][1:])
    assert set(rows[0]) == {
        *('sample_id', 'image', 'text', 'bboxes', 'scores', 'gt_bboxes', 'f1'),
        *('split', 'source'),
    }
