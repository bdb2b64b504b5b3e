"""Commands in processes of their own, without the seconds that imports take.

A server imports what the commands import, once; each command is a fork of it.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import mmdet
import pytest

from . import ROOT

MMDET_TOOLS = Path(mmdet.__file__).parent / '.mim' / 'tools'
needs_mim = pytest.mark.skipif(
    not MMDET_TOOLS.is_dir(), reason='this mmdet was installed without its tools'
)
TIMEOUT = 300  # seconds
_FORKS = multiprocessing.get_context('forkserver')
_FORKS.set_forkserver_preload(
    [
        'mmdet.apis',
        'mmdet.evaluation',
        'mmdet.visualization',
        'mmengine.runner',
        'projects.clip_vg',
        'projects.clip_vg.apis',
        'projects.clip_vg.engine.self_paced',
    ]
)


def _run(argv, said, complained):
    """What a fork does: what Python does with a script, but for the imports."""
    for path, number in ((said, 1), (complained, 2)):
        with open(path, 'w') as file:
            os.dup2(file.fileno(), number)
    os.chdir(ROOT)
    sys.argv = argv
    sys.path.insert(0, str(Path(argv[0]).parent.resolve()))
    runpy.run_path(argv[0], run_name='__main__')


def run_script(*command):
    """A script of ours with its arguments; what ``subprocess.run`` gives of it."""
    argv = [str(part) for part in command]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ('stdout', 'stderr')]
        process = _FORKS.Process(target=_run, args=(argv, *map(str, files)))
        process.start()
        process.join(TIMEOUT)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(argv, TIMEOUT)
        texts = [file.read_text() for file in files]
    return subprocess.CompletedProcess(argv, process.exitcode, *texts)


def ended_well(done):
    """Fail with the end of what the command said if it failed."""
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def run(*command, check=True, cwd=ROOT, timeout=300, **env):
    """A command in a process of its own, as its user starts it."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=dict(os.environ, PYTHONPATH=str(ROOT), **env),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if check:
        ended_well(done)
    return done


def tool(*command, check=True):
    """A script of ours, without the time of its imports."""
    done = run_script(*command)
    if check:
        ended_well(done)
    return done


def mmdet_tool(name, *args):
    """A script of MMDetection's, started as its user starts it."""
    return run(sys.executable, MMDET_TOOLS / name, *args)


def call(script, *args):
    """A script in tools/, in this process: a new one spends seconds on its imports."""
    module = runpy.run_path(str(ROOT / 'tools' / script))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('sys.argv', [script, *map(str, args)])
        module['main']()


def generate(*args):
    """The generator of pseudo-labels, in this process."""
    call('generate_pseudo_labels.py', *args)
