"""A user's own ``projects/`` beside ours, run from the user's folder."""

import importlib.metadata
import os
import subprocess
import sys

import pytest

from .helpers import ROOT
from .helpers.commands import MMDET_TOOLS, needs_mim
from .helpers.configs import CONFIG

MINE = '''
"""A transform of the user's own."""
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class Darken(BaseTransform):
    def transform(self, results):
        results['img'] = results['img'] // 2
        return results
'''
USES_BOTH = """
custom_imports = dict(
    imports=['projects.mine', 'projects.clip_vg'], allow_failed_imports=False)
train_dataloader['dataset']['pipeline'] = [
    dict(type='LoadGroundingImage'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Darken'),
    dict(type='PILResize', size=64),
    dict(type='Letterbox', size=64),
    dict(type='PackGroundingInputs')]
train_cfg['max_epochs'] = 1
param_scheduler = []
"""
# Without our folder on the path, the installed package must be found.
PATHS = {
    'mine alone': ['.'],
    'mine first': ['.', str(ROOT)],
    'ours first': [str(ROOT), '.'],
}


@pytest.fixture
def folder(tmp_path, shapes):
    (tmp_path / 'projects/mine').mkdir(parents=True)
    (tmp_path / 'projects/mine/__init__.py').write_text(MINE)
    (tmp_path / 'mine.py').write_text(CONFIG.format(root=ROOT, data=shapes) + USES_BOTH)
    return tmp_path


def run(folder, path, *command):
    """Run Python in ``folder`` with these folders on its path."""
    if path == 'mine alone' and not installed():
        pytest.skip('our package is not installed')
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(PATHS[path])),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def installed():
    try:
        return importlib.metadata.distribution('clip-vg-mmdet') is not None
    except importlib.metadata.PackageNotFoundError:
        return False


@pytest.mark.parametrize('path', PATHS)
def test_both_are_found(folder, path):
    found = run(
        folder,
        path,
        '-c',
        'from importlib.util import find_spec as find;'
        'print(find("projects.mine").origin, find("projects.clip_vg").origin)',
    ).split()
    assert found[0] == str(folder / 'projects/mine/__init__.py')
    assert found[1] == str(ROOT / 'projects/clip_vg/__init__.py')


@pytest.mark.parametrize(
    'tool, path',
    [
        (ROOT / 'tools/train.py', 'mine first'),
        pytest.param(MMDET_TOOLS / 'train.py', 'mine alone', marks=needs_mim),
    ],
    ids=['ours', "mmdet's, ours installed"],
)
def test_a_config_of_both_trains(folder, tool, path):
    run(folder, path, tool, 'mine.py', '--work-dir', 'out')
    assert (folder / 'out/epoch_1.pth').is_file()
    assert "type='Darken'" in (folder / 'out/mine.py').read_text()
