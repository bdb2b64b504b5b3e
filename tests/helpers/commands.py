"""Commands in processes of their own, without the seconds that imports take.

A server imports what the commands import, once; each command is a fork of it.
"""

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mmdet
import pytest
from mmengine.config import config

from . import ROOT
from .configs import unformatted

MMDET_TOOLS = Path(mmdet.__file__).parent / '.mim' / 'tools'
needs_mim = pytest.mark.skipif(
    not MMDET_TOOLS.is_dir(), reason='this mmdet was installed without its tools'
)
TIMEOUT = 300  # seconds
FORKS = multiprocessing.get_context('forkserver')
FORKS.set_forkserver_preload(
    [
        'mmdet.apis',
        'mmdet.evaluation',
        'mmdet.visualization',
        'mmengine.runner',
        'projects.clip_vg',
        'projects.clip_vg.apis',
        'projects.clip_vg.self_paced.search',
    ]
)


def run_here(argv, stdout, stderr, variables=(), cwd=ROOT):
    """What a fork does: what Python does with a script, but for the imports."""
    for path, number in ((stdout, 1), (stderr, 2)):
        with open(path, 'w') as file:
            os.dup2(file.fileno(), number)
    config.FormatCode = unformatted
    os.environ.update(variables)
    os.chdir(cwd)
    sys.argv = argv
    sys.path.insert(0, str(Path(argv[0]).parent.resolve()))
    runpy.run_path(argv[0], run_name='__main__')


def _ranks(count):
    """The variables that torchrun gives to each of its processes."""
    if count == 1:
        return [{}]
    with socket.create_server(('localhost', 0)) as server:
        port = server.getsockname()[1]
    shared = dict(WORLD_SIZE=f'{count}', MASTER_ADDR='localhost', MASTER_PORT=f'{port}')
    return [dict(shared, RANK=f'{i}', LOCAL_RANK=f'{i}') for i in range(count)]


def run_script(*command, ranks=1, cwd=ROOT):
    """A script with its arguments; what ``subprocess.run`` gives of it.

    With several ``ranks`` it runs as often, as torchrun starts it; what is given is
    the text of the first, and a return code that is not 0 if any has one.
    """
    argv = [str(part) for part in command]
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder, name)) for name in ('stdout', 'stderr')]
        processes = []
        for rank, variables in enumerate(_ranks(ranks)):
            own = files if rank == 0 else [os.devnull] * 2
            process = FORKS.Process(target=run_here, args=(argv, *own, variables, cwd))
            process.start()
            processes.append(process)
        end = time.monotonic() + TIMEOUT
        for process in processes:
            process.join(max(0, end - time.monotonic()))
        codes = [process.exitcode for process in processes]
        if None in codes:
            for process in processes:
                process.kill()
            raise subprocess.TimeoutExpired(argv, TIMEOUT)
        texts = [Path(file).read_text() for file in files]
    code = next((code for code in codes if code), 0)
    return subprocess.CompletedProcess(argv, code, *texts)


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


def tool(*command, check=True, ranks=1, cwd=ROOT):
    """A script of ours, without the time of its imports."""
    done = run_script(*command, ranks=ranks, cwd=cwd)
    if check:
        ended_well(done)
    return done


def mmdet_tool(name, *args):
    """A script of MMDetection's, without the time of its imports."""
    return tool(MMDET_TOOLS / name, *args)


def call(script, *args):
    """A script in tools/, in this process: a new one spends seconds on its imports."""
    module = runpy.run_path(str(ROOT / 'tools' / script))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('sys.argv', [script, *map(str, args)])
        module['main']()


def generate(*args):
    """The generator of pseudo-labels, in this process."""
    call('generate_pseudo_labels.py', *args)
