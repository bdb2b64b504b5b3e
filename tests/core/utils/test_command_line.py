"""Errors of ours end a command by their message; others keep their traceback."""

import json

import pytest
from mmengine.config import Config

from projects.clip_vg_core.data.readers import read_annotations
from projects.clip_vg_core.utils.command_line import run_command

from ...helpers import ROOT
from ...helpers.commands import run_script
from ...helpers.configs import runner_config


def ended(main):
    with pytest.raises(SystemExit) as caught:
        run_command(main)
    return str(caught.value.code)


def test_an_error_of_ours_is_its_message(tmp_path):
    path = tmp_path / 'labels.jsonl'
    path.write_text('{"filename": "a.jpg"}\n')
    said = ended(lambda: read_annotations(path))
    assert said.startswith('ValueError: ')
    assert 'labels.jsonl' in said


def test_an_error_from_elsewhere_keeps_its_traceback(tmp_path, monkeypatch):
    for main, kind in (
        (lambda: int('x'), ValueError),
        (lambda: json.loads('{'), ValueError),
        (lambda: Config.fromfile(tmp_path / 'none.py'), FileNotFoundError),
        (lambda: {}['x'], KeyError),
    ):
        with pytest.raises(kind):
            run_command(main)
    monkeypatch.setenv('CLIP_VG_TRACEBACK', '1')
    with pytest.raises(FileNotFoundError):
        run_command(lambda: read_annotations(tmp_path / 'none.jsonl'))


@pytest.mark.parametrize('workers', [0, 1])
def test_a_missing_image_is_one_message(workers, shapes, sources, tmp_path):
    """Also where a worker of the data loader misses it."""
    cfg = runner_config(shapes, sources, tmp_path / 'run')
    cfg.train_dataloader.num_workers = workers
    cfg.train_dataloader.dataset.data_prefix.img = str(tmp_path / 'nowhere')
    cfg.custom_imports = dict(imports=['projects.clip_vg'])
    cfg.dump(str(tmp_path / 'cfg.py'))
    done = run_script('tools/train.py', tmp_path / 'cfg.py')
    assert done.returncode == 1
    assert 'Traceback' not in done.stderr
    assert str(tmp_path / 'nowhere') in done.stderr.splitlines()[-1]


def test_data_is_looked_at_before_the_model_is_built(tmp_path, shapes):
    """Weights that cannot be downloaded are not what a missing file costs."""
    config = ROOT / 'configs/clip_vg_refcoco.py'
    command = ('tools/train.py', config, '--work-dir', tmp_path, '--cfg-options')
    nowhere = tmp_path / 'nowhere'
    done = run_script(*command, f'train_dataloader.dataset.data_root={nowhere}')
    assert done.returncode == 1
    assert 'Traceback' not in done.stderr
    assert str(nowhere) in done.stderr
    assert 'could not be downloaded' not in done.stderr
    image = tmp_path / 'none.jpg'
    done = run_script(
        *('demo/ground.py', image, 'left man', '--checkpoint', tmp_path / 'none.pth'),
        *('--out-dir', tmp_path),
    )
    assert f'{image}: no such image' in done.stderr
    assert done.stderr.count('\n') == 1


def test_weights_that_cannot_be_downloaded_are_one_message(tmp_path, shapes):
    config = ROOT / 'configs/clip_vg_synthetic.py'
    loaders = ('train', 'val', 'test')
    options = [f'{key}_dataloader.dataset.data_root={shapes}' for key in loaders]
    done = run_script(
        *('tools/train.py', config, '--work-dir', tmp_path),
        *('--cfg-options', *options, 'model.visual_encoder.pretrained=openai'),
        'model.visual_encoder.arch=ViT-B-16-quickgelu',
    )
    assert done.returncode == 1
    assert 'Traceback' not in done.stderr
    assert "'openai'" in done.stderr
    assert 'could not be downloaded' in done.stderr
