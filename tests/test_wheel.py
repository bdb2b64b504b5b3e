"""The wheel in an environment of its own, outside the repository."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from .helpers import ROOT

# What a user does who has nothing but the wheel; MMEngine's own words go to stderr.
SCRIPT = """
import json, runpy, sys
import projects.clip_vg
from projects.clip_vg import get_path
from projects.clip_vg.apis import GroundingInferencer

data, work_dir = sys.argv[1:]
config = get_path('configs/clip_vg_synthetic.py')
sys.argv = [
    'train.py', str(config), '--work-dir', work_dir, '--cfg-options',
    *(f'{split}_dataloader.dataset.data_root={data}' for split in ('train', 'val')),
    'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
    'val_cfg=None', 'val_dataloader=None', 'val_evaluator=None',
    'train_cfg.max_epochs=1', 'param_scheduler.0.total_steps=1',
    'default_hooks.checkpoint.interval=1', 'default_hooks.checkpoint.save_best=None',
]
sys.path.insert(0, str(get_path('tools')))
runpy.run_path(str(get_path('tools/train.py')), run_name='__main__')
predictions = [
    GroundingInferencer(checkpoint)(get_path('demo/shapes.jpg'), 'big star')
    for checkpoint in (get_path('demo/clip_vg_tiny.pth'), work_dir)
]
print(json.dumps(dict(
    package=projects.clip_vg.__file__, config=str(config),
    version=projects.clip_vg.__version__,
    boxes=[p['predictions'][0]['bboxes'][0] for p in predictions])))
"""


def run(*command, cwd=None, **env):
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=dict(PATH=os.environ['PATH'], OMP_NUM_THREADS='2', **env),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """Built from a copy: a build leaves files beside its sources."""
    copy = tmp_path_factory.mktemp('sources') / 'copy'
    copy.mkdir()
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
    for name in ('configs', 'demo', 'projects', 'tools'):
        shutil.copytree(ROOT / name, copy / name)
    # Of an earlier build, whose module is gone since.
    stale = copy / 'build/lib/projects/clip_vg/gone.py'
    stale.parent.mkdir(parents=True)
    stale.touch()
    out = copy.parent / 'dist'
    done = run(
        *(sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation'),
        *('-w', out, copy),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope='module')
def python(wheel, tmp_path_factory):
    """A Python that has our dependencies and the wheel, and not the repository."""
    folder = tmp_path_factory.mktemp('environment') / 'venv'
    done = run(sys.executable, '-m', 'venv', '--without-pip', folder)
    assert done.returncode == 0, done.stderr
    (site,) = folder.glob('lib/python*/site-packages')
    # Their folder is searched, and the .pth of our editable install in it is not read.
    dependencies = sysconfig.get_path('purelib')
    (site / 'dependencies.pth').write_text(f'{dependencies}\n')
    done = run(
        *(sys.executable, '-m', 'pip', '--python', folder / 'bin/python', 'install'),
        *('--no-deps', '--no-index', wheel),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / 'bin/python'


def test_it_brings_configs_tools_and_demos_and_nothing_that_is_gone(wheel):
    mim = 'projects/clip_vg/.mim/'
    names = zipfile.ZipFile(wheel).namelist()
    brought = {name.removeprefix(mim) for name in names if name.startswith(mim)}
    there = {
        str(path.relative_to(ROOT))
        for folder in ('configs', 'demo', 'tools')
        for path in (ROOT / folder).rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    }
    assert brought == there | {'metafile.yml'}
    assert not any(name.endswith('gone.py') for name in names)


def test_it_trains_and_predicts(python, shapes, tmp_path):
    done = run(python, '-c', SCRIPT, shapes, tmp_path / 'run', cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    installed = Path(found['package']).parent
    assert installed.is_relative_to(python.parents[1])
    assert Path(found['config']).is_relative_to(installed)
    assert (tmp_path / 'run/epoch_1.pth').is_file()
    for left, top, right, bottom in found['boxes']:
        assert 0 <= left <= right and 0 <= top <= bottom


def test_a_folder_that_hides_it_is_named(python, tmp_path):
    foreign = tmp_path / 'projects' / '__init__.py'
    foreign.parent.mkdir()
    foreign.touch()
    done = run(python, '-c', 'import projects.clip_vg', PYTHONPATH=str(tmp_path))
    assert done.returncode and str(foreign) in done.stderr.splitlines()[-1]
