"""The commands: export a checkpoint, score what is served."""

import json

import pytest

from projects.clip_vg.apis import GroundingInferencer
from projects.clip_vg.deployment.quantize import spread
from projects.clip_vg_core.utils.atomic import file_sha256

from ..helpers import ROOT
from ..helpers.commands import ended_well, run_script
from ..helpers.configs import runner_config

for package in ('onnxscript', 'openvino', 'onnxruntime', 'nncf'):
    pytest.importorskip(package)


def run(tool, *args):
    return run_script(f'tools/deployment/{tool}.py', *args)


@pytest.fixture
def questions(shapes, tmp_path):
    names = [path.name for path in sorted((shapes / 'images').glob('*.jpg'))[:6]]
    path = tmp_path / 'questions.jsonl'
    path.write_text(
        ''.join(
            json.dumps(dict(image=name, expression=text)) + '\n'
            for name in names
            for text in ('red circle', 'the star on the left')
        )
    )
    return path


def test_a_checkpoint_becomes_a_folder_that_is_scored(
    checkpoint, shapes, sources, questions, tmp_path
):
    out = tmp_path / 'exported'
    calibration = ['--calibration-images', shapes / 'images']
    calibration += ['--calibration-expressions', questions]
    ended_well(run('export', checkpoint, '--out-dir', out, '--int8', *calibration))
    said = json.loads((out / 'deployment.json').read_text())
    assert said['checkpoint'] == dict(file='best.pth', sha256=file_sha256(checkpoint))
    assert sorted(said['graphs']) == ['float', 'int8']
    cfg = runner_config(shapes, sources, tmp_path / 'work')
    cfg.test_dataloader = cfg.val_dataloader
    cfg.test_evaluator = dict(
        type='GroundingMetric', out_file=str(tmp_path / 'results.jsonl')
    )
    cfg.test_cfg = dict(type='TestLoop')
    cfg.dump(tmp_path / 'config.py')
    # Without --int8 its graphs would go: not unasked.
    assert run('export', checkpoint, '--out-dir', out).returncode
    assert json.loads((out / 'deployment.json').read_text()) == said
    options = ['--precision', 'int8', '--threads', 1]
    ended_well(run('test', tmp_path / 'config.py', out, *options))
    lines = (tmp_path / 'results.jsonl').read_text().splitlines()
    served = GroundingInferencer(out, precision='int8')
    for line in map(json.loads, lines[:5]):
        (answer,) = served(line['image'], line['text'])['predictions']
        assert answer['bboxes'][0] == pytest.approx(line['bbox'], abs=0.02)
    ended_well(run('export', checkpoint, '--out-dir', out, '--overwrite'))
    assert {path.name for path in out.iterdir()} - {'.lock'} == {
        'deployment.json',
        'image.onnx',
        'grounding.onnx',
        'merges.txt',
    }


def test_every_tool_takes_an_exported_folder(
    folder, checkpoint, shapes, sources, tmp_path
):
    cfg = runner_config(shapes, sources, tmp_path / 'work')
    cfg.update(
        test_dataloader=cfg.val_dataloader,
        test_evaluator=cfg.val_evaluator,
        test_cfg=dict(type='TestLoop'),
    )
    cfg.dump(tmp_path / 'config.py')
    config = tmp_path / 'config.py'
    ended_well(run_script('tools/test.py', config, folder))
    out = tmp_path / 'scores'
    ended_well(
        run_script('tools/score_reliability.py', config, folder, '--out-dir', out)
    )
    said = json.loads((out / f'{folder.name}__one.json').read_text())
    assert said['measurer']['sha256'] == file_sha256(folder / 'deployment.json')
    refused = run('export', checkpoint, '--out-dir', folder)
    assert 'FileExistsError' in refused.stderr
    assert str(folder) in refused.stderr
    assert '--overwrite' in refused.stderr
    refused = run('export', folder, '--out-dir', tmp_path / 'again')
    assert refused.returncode
    assert 'is an exported detector' in refused.stderr


def test_calibration_without_int8_or_by_half_is_refused(tmp_path):
    for options, said in (
        (['--calibration-images', tmp_path], 'together'),
        (
            ['--calibration-images', tmp_path, '--calibration-expressions', 'a.csv'],
            'calibration is for --int8',
        ),
    ):
        done = run('export', 'a.pth', '--out-dir', tmp_path, *options)
        assert done.returncode == 2
        assert said in done.stderr


def test_missing_calibration_data_are_told_before_anything_is_written(
    checkpoint, tmp_path
):
    nowhere, out = tmp_path / 'nowhere', tmp_path / 'out'
    for weights, named in (
        (ROOT / 'demo/clip_vg_tiny.pth', nowhere),
        (checkpoint, checkpoint),  # its config has no training data
    ):
        options = ['--out-dir', out, '--int8', '--data-root', nowhere]
        done = run('export', weights, *options)
        assert done.returncode and 'Traceback' not in done.stderr
        assert str(named) in done.stderr and '--calibration-images' in done.stderr
        assert not list(out.glob('*.onnx'))


def test_pictures_are_spread_evenly():
    assert spread(3, 128).tolist() == [0, 1, 2]
    assert spread(100, 4).tolist() == [0, 33, 66, 99]
    assert spread(1, 128).tolist() == [0]
