"""One process at a time writes into a folder."""

import os
import subprocess
import sys
import time

import pytest

from projects.clip_vg_core.utils.folder_lock import is_first_process, lock_folder

from ...helpers import ROOT

HOLD = (
    'import sys, time\n'
    'from projects.clip_vg_core.utils.folder_lock import lock_folder\n'
    'from multiprocessing import Process\nlock = lock_folder(sys.argv[1])\n'
    'lock.__enter__()\n'
    'Process(target=time.sleep, args=(30,), daemon=True).start(); '
    'print("held", flush=True); time.sleep(60)'
)


def enter(folder):
    """Lock a folder for a moment."""
    with lock_folder(folder):
        pass


@pytest.fixture
def other(tmp_path):
    """Another process, and a worker of it, with the folder."""
    process = subprocess.Popen(
        [sys.executable, '-c', HOLD, str(tmp_path / 'out')],
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
    )
    assert process.stdout.readline() == 'held\n'
    yield process
    process.kill()


def test_the_second_is_refused_until_the_first_has_ended(tmp_path, other):
    with pytest.raises(RuntimeError, match=f'out is in use .*{other.pid}'):
        enter(tmp_path / 'out')
    other.kill()  # its worker lives on for a while
    other.wait()
    end = time.monotonic() + 10
    while True:
        try:
            enter(tmp_path / 'out')
            break
        except RuntimeError:
            assert time.monotonic() < end
            time.sleep(0.1)


def test_within_a_process_as_well(tmp_path):
    with lock_folder(tmp_path / 'out'):
        with pytest.raises(RuntimeError, match='in use'):
            enter(tmp_path / 'x' / '..' / 'out')
        with lock_folder(tmp_path / 'another'):
            pass
    enter(tmp_path / 'out')


@pytest.mark.parametrize('name', ['RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'])
def test_of_several_processes_the_first_holds_it(tmp_path, monkeypatch, name):
    with lock_folder(tmp_path):
        assert is_first_process()
        monkeypatch.setenv(name, '1')
        assert not is_first_process()
        with lock_folder(tmp_path):
            pass
        monkeypatch.setenv(name, '0')
        assert is_first_process()
