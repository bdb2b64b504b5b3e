"""Command lines of the launchers, what a failed job reports, and when runs end."""

import os
import sys
import time

import pytest
import torch
from mmengine.config import Config

from projects.clip_vg.self_paced.launch import Job, Launcher, launch_command, run_jobs

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
    list(run_jobs([Job(command, str(tmp_path / 'log.txt'))]))
    arguments = (tmp_path / 'log.txt').read_text().splitlines()[1].split()
    assert arguments[0] == '--ntasks=4'
    assert {'--partition=gpu', '--gres=gpu:4'} <= set(arguments)
    assert arguments[-4:] == ['train.py', 'c.py', '--launcher', 'slurm']


def test_a_failed_job_shows_the_end_of_its_log(tmp_path):
    script = "print('first'); raise ValueError('what is wrong')"
    job = Job((sys.executable, '-c', script), str(tmp_path / 'log.txt'))
    with pytest.raises(RuntimeError, match=r'(?s)ended with 1.*log.txt.*what is wrong'):
        list(run_jobs([job]))


def test_of_a_job_that_ended_with_a_sentence_nothing_else_is_shown(tmp_path):
    script = "print('Retrying', flush=True); raise SystemExit('ValueError: no weights')"
    job = Job((sys.executable, '-c', script), str(tmp_path / 'log.txt'))
    with pytest.raises(RuntimeError, match='no weights') as error:
        list(run_jobs([job]))
    assert '\nRetrying' not in str(error.value)


class Lazily:
    """Jobs that run where this is iterated over."""

    def __init__(self, jobs):
        self.jobs = jobs

    def __iter__(self):
        return run_jobs(self.jobs)


def test_training_runs_give_their_results_and_an_early_end_is_named(tmp_path):
    """A stand-in for train.py prints its arguments."""
    tool = 'import sys; print("arguments:", *sys.argv[1:])'
    (tmp_path / 'train.py').write_text(tool)
    cfg = Config(dict(train_cfg=dict(max_epochs=2)))
    runs = {tmp_path / name: cfg for name in ('one', 'two')}
    for folder, epoch in zip(runs, (2, 1), strict=True):
        folder.mkdir()
        info = dict(best_score=0.25, best_ckpt='elsewhere/best_epoch_2.pth')
        state = dict(meta=dict(epoch=epoch), message_hub=dict(runtime_info=info))
        torch.save(state, folder / f'epoch_{epoch}.pth')
    results = Launcher(tmp_path).train(runs)
    folder, result, seconds = next(results)
    assert (folder, result.score) == (tmp_path / 'one', 0.25)
    assert result.checkpoint == str(folder / 'best_epoch_2.pth')
    assert seconds >= 0
    log = (folder / 'log.txt').read_text().splitlines()
    expected = f'arguments: {folder}/config.py --work-dir {folder} --resume'
    assert log[1] == expected
    with pytest.raises(RuntimeError, match=rf'{tmp_path}/two .*2 epochs'):
        next(results)


def test_a_scoring_is_told_its_measurer_and_its_folders(tmp_path):
    tool = 'import sys; print("arguments:", *sys.argv[1:])'
    (tmp_path / 'score_reliability.py').write_text(tool)
    folder = tmp_path / 'm'
    folder.mkdir()
    for measurer in ('--agreement', tmp_path / 'x.pth'):
        Launcher(tmp_path).score(folder / 'score.py', measurer, '-n', tmp_path / 'r')
        arguments = (folder / 'score.txt').read_text().splitlines()[-1]
        assert arguments == (
            f'arguments: {folder}/score.py {measurer} --out-dir {tmp_path}/r --name=-n '
            f'--work-dir {folder}'
        )


@pytest.mark.skipif(sys.platform != 'linux', reason='PR_SET_PDEATHSIG is of Linux')
def test_a_job_ends_with_the_process_that_started_it(tmp_path):
    """Else a killed search would leave a training run behind."""
    number = tmp_path / 'pid'
    job = (
        'import os, sys, time; open(sys.argv[1], "w").write(str(os.getpid())); '
        'time.sleep(60)'
    )
    command = (sys.executable, '-c', job, str(number))
    jobs = [Job(command, str(tmp_path / 'log.txt'))]
    # `list` takes what `run_jobs` yields, so runs the job, in the process.
    process = FORKS.Process(target=list, args=(Lazily(jobs),))
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
            if file.read().split()[2] == 'Z':  # dead, and not yet waited for
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
    finished = [job for job, _ in run_jobs(jobs, at_once=2)]
    assert set(finished) == set(jobs) and len(finished) == 3
    assert all((tmp_path / f'{i}').read_text() == 'done' for i in range(3))


def test_without_ray_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'ray', None)
    jobs = [Job((sys.executable, '-c', ''), str(tmp_path / 'log.txt'))] * 2
    with pytest.raises(ImportError, match=r'pip install .*\[ray\]'):
        list(run_jobs(jobs, at_once=2))
