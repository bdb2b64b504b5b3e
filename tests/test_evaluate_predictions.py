"""Predictions of any model, scored and shown by the commands."""

import json
import sys

import pytest

from projects.clip_vg_core.data.readers import read_annotations

from .helpers.commands import run, tool


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
