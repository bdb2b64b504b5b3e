"""Predictions of any model, scored and shown by the commands."""

import json
import sys

import pytest

from projects.clip_vg_core.data.readers import read_annotations

from .helpers.commands import run, tool
from .helpers.layout_files import WRITERS


@pytest.fixture
def truth(shapes):
    return [
        *('--gt', shapes / 'shapes/instances.json'),
        *('--split-file', shapes / 'shapes/refs(synthetic).p', '--split', 'val'),
    ]


@pytest.fixture
def predictions(shapes, tmp_path):
    """A file of the true boxes in a model's words, and one that lacks a third."""
    table = read_annotations(
        shapes / 'shapes/instances.json', shapes / 'shapes/refs(synthetic).p', ['val']
    )
    rows = [
        dict(sample_id=label['sample_id'], response=f'It is at {label["bbox"]}.')
        for label in table
    ]
    paths = tmp_path / 'all.jsonl', tmp_path / 'some.jsonl'
    for path, part in zip(paths, (rows, rows[: len(rows) * 2 // 3]), strict=True):
        path.write_text(''.join(json.dumps(row) + '\n' for row in part))
    return paths


def test_the_table_says_what_is_right_and_what_is_missing(predictions, truth, tmp_path):
    out = tmp_path / 'results.jsonl'
    done = tool('tools/evaluate_predictions.py', predictions[1], *truth, '--out', out)
    results = [json.loads(line) for line in out.read_text().splitlines()]
    hits = sum(result['iou'] > 0.99 for result in results)
    assert hits == len(results) * 2 // 3
    row = next(line for line in done.stderr.splitlines() if line.startswith('all'))
    assert row.split()[1:4] == [str(len(results)), *[f'{hits / len(results):.4f}'] * 2]
    assert f'{len(results) - hits} of {len(results)}' in done.stderr


def test_two_models_are_compared_on_a_page(predictions, truth, tmp_path):
    out = tmp_path / 'report.html'
    tool(
        *('tools/analysis/report.py', predictions[0], '--compare', predictions[1]),
        *(*truth, '--out', out),
    )
    assert {path.stem for path in predictions} <= set(
        out.read_text().replace('.', ' ').replace('<', ' ').replace('>', ' ').split()
    )


def test_scoring_starts_without_pytorch(predictions, truth):
    code = (
        'import runpy, sys\n'
        'runpy.run_path(sys.argv[0], run_name="__main__")\n'
        'assert not {"torch", "mmengine", "mmdet", "scipy"} & set(sys.modules)'
    )
    run(
        *(sys.executable, '-c', f'import sys; sys.argv = sys.argv[1:]\n{code}'),
        *('tools/evaluate_predictions.py', predictions[0], *truth),
    )


@pytest.fixture
def grefcoco(tmp_path):
    """Labels with 1, 0 and 2 targets; predictions: right, one too many, one missing."""
    files, labels = WRITERS['grefcoco_json'](tmp_path)
    boxes = [list(boxes) for _, boxes, _ in labels]
    assert [len(of_label) for of_label in boxes] == [1, 0, 2]
    boxes[1].append([0, 0, 50, 50])
    del boxes[2][0]
    path = tmp_path / 'predictions.jsonl'
    path.write_text(
        ''.join(
            json.dumps(dict(image=image, text=text, boxes=own, scores=[0.8] * len(own)))
            + '\n'
            for own, (image, _, text) in zip(boxes, labels, strict=True)
        )
    )
    truth = ('--gt', files['ann_file'], '--split-file', files['split_file'])
    return [path, *truth]


def of_all(done):
    """The columns of the table, as printed for all labels."""
    lines = done.stderr.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith('all '))
    header = next(line for line in reversed(lines[:at]) if ' labels ' in line)
    return dict(zip(header.split(), lines[at].split()[1:], strict=True))


def test_labels_with_any_number_of_targets_are_scored_as_sets(grefcoco, tmp_path):
    out = tmp_path / 'results.jsonl'
    done = tool('tools/evaluate_predictions.py', *grefcoco, '--out', out)
    for part in ('1 of 3', "'optimal'", 'IoU >= 0.5', 'score >= 0.7'):
        assert part in done.stderr
    table = of_all(done)
    assert (table['labels'], table['f1_acc']) == ('3', '0.3333')
    assert (table['n_acc'], table['t_acc']) == ('0.0000', '1.0000')
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(row['f1'] for row in rows) == [0, pytest.approx(2 / 3), 1]
    # What it has written, it reads.
    again = tool('tools/evaluate_predictions.py', out, *grefcoco[1:])
    assert of_all(again) == table


def test_the_matching_of_sets_is_chosen(grefcoco):
    options = ('--overlap', 'giou', '--matcher', 'greedy', '--score-thr', '0.9')
    table = of_all(tool('tools/evaluate_predictions.py', *grefcoco, *options))
    assert table['f1_acc_giou_0.5_greedy'] == '0.3333'  # that without a target
    assert (table['n_acc'], table['t_acc']) == ('1.0000', '0.0000')


def test_single_targets_are_scored_by_one_box_or_as_sets(grefcoco, predictions, truth):
    done = tool('tools/evaluate_predictions.py', *grefcoco, '--targets', 'one')
    table = of_all(done)
    assert (table['labels'], table['acc_0.9']) == ('1', '1.0000')
    assert '1 of 3' in done.stderr  # left out without a target
    sets = ('--targets', 'any')
    sets = of_all(tool('tools/evaluate_predictions.py', predictions[0], *truth, *sets))
    assert sets['f1_acc'] == sets['t_acc'] == '1.0000'
    assert 'n_acc' not in sets


def test_the_page_of_errors_is_of_labels_with_one_target(grefcoco, tmp_path):
    out = tmp_path / 'report.html'
    done = tool('tools/analysis/report.py', *grefcoco, '--out', out)
    assert '1 of 3' in done.stderr and 'left man' in out.read_text()
