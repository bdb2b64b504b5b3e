"""Command lines of the launchers, and what a failed job says."""

import os
import sys
import time

import pytest

from projects.clip_vg.engine.launch import Job, launch_command, run_jobs

from ..helpers.commands import FORKS


def test_commands():
    none = launch_command('train.py', ['c.py'], 'none', 1)
    assert none == (sys.executable, 'train.py', 'c.py')
    pytorch = launch_command('train.py', ['c.py'], 'pytorch', 2)
    assert pytorch[-4:] == ('train.py', 'c.py', '--launcher', 'pytorch')
    assert '2' in pytorch and 'torch.distributed.run' in pytorch


def test_slurm_starts_the_script_once_a_task(tmp_path, monkeypatch):
    """A stand-in for srun shows what it was given."""
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\necho "$@"\n')
    srun.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
    monkeypatch.setenv('SRUN_ARGS', '--partition=gpu --gres=gpu:4')
    command = launch_command('train.py', ['c.py'], 'slurm', 4)
    run_jobs([Job(command, str(tmp_path / 'log.txt'))])
    said = (tmp_path / 'log.txt').read_text().splitlines()[1].split()
    assert said[0] == '--ntasks=4'
    assert {'--partition=gpu', '--gres=gpu:4'} <= set(said)
    assert said[-4:] == ['train.py', 'c.py', '--launcher', 'slurm']


def test_a_failed_job_shows_the_end_of_its_log(tmp_path):
    script = "print('first'); raise ValueError('what is wrong')"
    job = Job((sys.executable, '-c', script), str(tmp_path / 'log.txt'))
    with pytest.raises(RuntimeError, match=r'(?s)ended with 1.*log.txt.*what is wrong'):
        run_jobs([job])


@pytest.mark.skipif(sys.platform != 'linux', reason='PR_SET_PDEATHSIG is of Linux')
def test_a_job_ends_with_the_process_that_started_it(tmp_path):
    """Else a killed search would leave a training behind."""
    number = tmp_path / 'pid'
    job = (
        'import os, sys, time; open(sys.argv[1], "w").write(str(os.getpid())); '
        'time.sleep(60)'
    )
    command = (sys.executable, '-c', job, str(number))
    jobs = [Job(command, str(tmp_path / 'log.txt'))]
    process = FORKS.Process(target=run_jobs, args=(jobs,))
    process.start()
    limit = time.time() + 60
    while not number.exists() or not number.read_text():
        assert time.time() < limit
        time.sleep(0.05)
    process.kill()
    process.join()
    child = int(number.read_text())
    while time.time() < limit:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        with open(f'/proc/{child}/stat') as file:
            if file.read().split()[2] == 'Z':  # dead, nobody has asked yet
                return
        time.sleep(0.05)
    pytest.fail('the job is still running')


def test_side_by_side_through_ray(tmp_path):
    pytest.importorskip('ray')
    script = 'import sys; open(sys.argv[1], "w").write("done")'
    jobs = [
        Job(
            (sys.executable, '-c', script, str(tmp_path / f'{i}')),
            str(tmp_path / f'{i}.log'),
        )
        for i in range(3)
    ]
    run_jobs(jobs, at_once=2)
    assert all((tmp_path / f'{i}').read_text() == 'done' for i in range(3))


def test_without_ray_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'ray', None)
    jobs = [Job((sys.executable, '-c', ''), str(tmp_path / 'log.txt'))] * 2
    with pytest.raises(ImportError, match=r'pip install .*\[ray\]'):
        run_jobs(jobs, at_once=2)
