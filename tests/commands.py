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

from .conftest import ROOT

__all__ = ['ended_well', 'run_script']

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
