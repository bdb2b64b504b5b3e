"""`make clean` removes what the targets made, and nothing of the user's."""

import shutil
import subprocess

import pytest

from .helpers import ROOT

# In the place of the venv's Python: makes the folders that a command is told to.
PYTHON = """#!/bin/sh
make() { mkdir -p $1 && echo made > $1/file; }
case $1 in *run_doc.py) make data/photographs; make data/labelled;
    make work_dirs/clip_vg_synthetic_multi_source_valley;; esac
while [ $# -gt 1 ]; do
    case $1 in --work-dir) make $2;; --out-dir) case $2 in data/*) make $2;; esac;; esac
    shift
done
"""


@pytest.fixture
def clone(tmp_path):
    """A clone whose `.venv` is installed, as far as make can see."""
    for name in ('setup.py', 'constraints.txt', 'constraints-web.txt', 'Makefile'):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / '.venv/bin/python'
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON)
    python.chmod(0o755)
    (tmp_path / '.venv/.installed').touch()
    (tmp_path / 'build/docs').mkdir(parents=True)
    return tmp_path


def make(clone, *targets):
    done = subprocess.run(
        ['make', *targets], cwd=clone, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def put(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('mine')
    return path


def test_what_the_targets_made_is_removed(clone):
    make(clone, 'quickstart', 'tutorial')
    make(clone, 'quickstart', 'SEED=1')
    made = {path.name for path in clone.glob('*/*') if not path.name.startswith('.')}
    assert {'synthetic', 'synthetic_seed1', 'photographs', 'labelled'} <= made
    assert 'clip_vg_synthetic_seed1' in made
    make(clone, 'clean')
    kept = {path.name for path in clone.iterdir()}
    assert kept == {'setup.py', 'constraints.txt', 'constraints-web.txt', 'Makefile'}


def test_what_the_user_made_stays(clone):
    mine = [
        *(put(clone / 'data' / name / 'x.jpg') for name in ('photographs', 'coco')),
        put(clone / 'data/labelled/labels.jsonl'),
        put(clone / 'data/synthetic_mine/labels.jsonl'),
        put(clone / 'work_dirs/clip_vg_synthetic/epoch_12.pth'),
        put(clone / 'work_dirs/clip_vg_refcoco/epoch_110.pth'),
        put(clone / 'build/mine.txt'),
    ]
    make(clone, 'quickstart', 'tutorial')
    # In folders of the targets, with the time of an older file.
    added = put(clone / 'data/synthetic/labels.jsonl')
    shutil.copystat(ROOT / 'setup.py', added)
    said = make(clone, 'clean')
    assert all(path.read_text() == 'mine' for path in (*mine, added))
    assert 'data/photographs stays' in said
    assert 'data/synthetic stays' in said
    valley = 'work_dirs/clip_vg_synthetic_multi_source_valley'
    assert not (clone / valley).exists()


def test_what_the_user_added_stays_after_another_run(clone):
    make(clone, 'quickstart')
    added = put(clone / 'work_dirs/clip_vg_synthetic/notes.txt')
    make(clone, 'quickstart')
    make(clone, 'clean')
    assert added.is_file()
    assert not (clone / 'data').exists()


def test_a_folder_that_is_no_venv_is_not_replaced(clone):
    mine = put(clone / 'env/mine.txt')
    done = subprocess.run(
        ['make', 'install', 'VENV=env'], cwd=clone, capture_output=True, text=True
    )
    assert done.returncode
    assert 'env' in done.stdout and 'VENV' in done.stdout
    make(clone, 'clean', 'VENV=env')
    assert mine.is_file()
