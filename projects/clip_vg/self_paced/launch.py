"""Runs of the search as commands: one after another, or side by side through Ray."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from ..checkpoints.safe_loading import load_from_local
from ..checkpoints.work_dir import last_checkpoint

__all__ = ['Job', 'Launcher', 'RunResult', 'launch_command', 'run_jobs']

_TAIL = 15  # lines of a failed job's log that an error shows


@dataclass(frozen=True)
class Job:
    """A command, and the file that its output is appended to."""

    command: tuple[str, ...]
    log: str


@dataclass(frozen=True)
class RunResult:
    """Best validation of a finished training run, and the path of its checkpoint."""

    score: float
    checkpoint: str


@dataclass(frozen=True)
class Launcher:
    """Executes training runs and scorings as commands; does not change their results.

    Args:
        tools (Path): Folder of ``train.py`` and ``score_reliability.py``.
        launcher (str): 'none', 'pytorch' or 'slurm'. Defaults to 'none'.
        processes (int): Processes of one run. Defaults to 1.
        jobs (int): Training runs side by side, through Ray. Defaults to 1.
        gpus (int): GPUs of one training run, for Ray. Defaults to 0.
    """

    tools: Path
    launcher: str = 'none'
    processes: int = 1
    jobs: int = 1
    gpus: int = 0

    def train(
        self, configs: Mapping[Path, Config]
    ) -> Iterator[tuple[Path, RunResult, float]]:
        """Execute training runs, or resume them.

        Args:
            configs (Mapping[Path, Config]): Config of each work dir, which has it as
                ``config.py``.

        Yields:
            tuple[Path, RunResult, float]: Work dir, result and seconds of each as it
            finishes, in any order.

        Raises:
            RuntimeError: A training run failed, or ended before its last epoch.
            ValueError: It has finished without a best checkpoint.
        """
        jobs = {
            # `--resume` also where there is no checkpoint yet: one command for both.
            self._job(
                'train.py',
                [f'{folder / "config.py"}', '--work-dir', f'{folder}', '--resume'],
                folder / 'log.txt',
            ): folder
            for folder in configs
        }
        for job, seconds in run_jobs(list(jobs), self.jobs, self.gpus):
            folder = jobs[job]
            epochs = configs[folder].train_cfg.max_epochs
            result = _read_result(folder, epochs)
            if result is None:
                raise RuntimeError(
                    f'{folder} ended before its {epochs} epochs without an error: see '
                    'its log.txt, and rerun the same command to resume.'
                )
            yield folder, result, seconds

    def score(
        self, config: Path, measurer: Path | str, name: str, out_dir: Path
    ) -> None:
        """Score all labels of a config with a measurer.

        Args:
            config (Path): Its folder takes the logs.
            measurer (Path or str): A checkpoint, or an option of the scoring tool.
            name (str): The measurer's name in reliability files.
            out_dir (Path): Folder of the reliability files.
        """
        arguments = [
            *(f'{config}', f'{measurer}'),
            # With `=`, as a name may begin with a dash.
            *('--out-dir', f'{out_dir}', f'--name={name}'),
            # A folder of its own: MMEngine would log into work_dirs.
            *('--work-dir', f'{config.parent}'),
        ]
        log = config.parent / 'score.txt'
        list(run_jobs([self._job('score_reliability.py', arguments, log)]))

    def _job(self, script: str, arguments: Sequence[str], log: Path) -> Job:
        command = launch_command(
            self.tools / script, arguments, self.launcher, self.processes
        )
        return Job(command, str(log))


def _read_result(work_dir: Path, max_epochs: int) -> RunResult | None:
    """Result of a training run; None if it has not come to its last epoch."""
    last = last_checkpoint(work_dir)
    if last is None:
        return None
    checkpoint = load_from_local(str(last), map_location='cpu')
    if checkpoint['meta']['epoch'] < max_epochs:
        return None
    info = checkpoint['message_hub']['runtime_info']
    best = info.get('best_ckpt')
    if best is None:
        raise ValueError(
            f'{last}: the training run has no best checkpoint. Set '
            'default_hooks.checkpoint.save_best and validate at least once.'
        )
    # By name: the path was written before the folder was moved or copied.
    return RunResult(float(info['best_score']), str(work_dir / Path(best).name))


def launch_command(
    script: str | Path, arguments: Sequence[str], launcher: str, processes: int
) -> tuple[str, ...]:
    """Command line that starts a script.

    Args:
        script (str or Path): A Python file that takes ``--launcher``.
        arguments (Sequence[str]): Its arguments.
        launcher (str): 'none', 'pytorch' (torchrun on this machine) or 'slurm' (srun;
            what it needs beyond the number of tasks comes from its ``SLURM_*`` or
            ``SRUN_ARGS`` environment variables).
        processes (int): Number of processes, one for each GPU.

    Returns:
        tuple[str, ...]: The command.
    """
    own = (str(script), *arguments)
    if launcher == 'none':
        return (sys.executable, *own)
    own = (*own, '--launcher', launcher)
    if launcher == 'pytorch':
        start = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node']
        return (sys.executable, *start, str(processes), *own)
    extra = os.environ.get('SRUN_ARGS', '').split()
    start = ['srun', f'--ntasks={processes}', '--kill-on-bad-exit=1', *extra]
    return (*start, sys.executable, '-u', *own)


def end_with_parent() -> None:
    """Let a started command end when this process is killed (Linux).

    Else it would go on, and the search, started again, would train beside it.
    """
    if sys.platform == 'linux':
        set_death_signal = 1  # PR_SET_PDEATHSIG of linux/prctl.h
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)


def _run(job: Job) -> tuple[int, float]:
    """Return code and seconds of a command."""
    started = time.monotonic()
    log = Path(job.log)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('a', encoding='utf-8') as file:
        file.write(f'$ {" ".join(job.command)}\n')
        file.flush()
        code = subprocess.run(
            job.command,
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
            preexec_fn=end_with_parent,
        ).returncode
    return code, round(time.monotonic() - started, 1)


def run_jobs(
    jobs: Sequence[Job], at_once: int = 1, gpus: int = 0
) -> Iterator[tuple[Job, float]]:
    """Run jobs to their end.

    Args:
        jobs (Sequence[Job]): Independent jobs.
        at_once (int): More than 1 needs Ray, which schedules them on this machine or
            the cluster it is connected to. Defaults to 1.
        gpus (int): GPUs that Ray reserves for a job. Defaults to 0.

    Yields:
        tuple[Job, float]: Each job as it finishes, and its seconds.

    Raises:
        RuntimeError: A job failed; it names the log and shows its end.
        ImportError: Ray is not installed.
    """
    if at_once == 1 or len(jobs) < 2:
        for job in jobs:
            yield job, _checked(job, *_run(job))
        return
    try:
        import ray
    except ImportError as error:
        raise ImportError(
            'Trials side by side need Ray: pip install -e ".[ray]" in the '
            'checkout, or run without --jobs.'
        ) from error
    if not ray.is_initialized():
        own = gpus or not os.environ.get('RAY_ADDRESS')
        ray.init(
            num_cpus=at_once if own and not gpus else None,
            include_dashboard=False,
            log_to_driver=False,
        )
    remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(_run)
    waiting = {remote.remote(job): job for job in jobs}
    while waiting:
        (ready,), _ = ray.wait(list(waiting), num_returns=1)
        job = waiting.pop(ready)
        yield job, _checked(job, *ray.get(ready))


def _checked(job: Job, code: int, seconds: float) -> float:
    """The seconds of a job that has not failed."""
    if code:
        text = Path(job.log).read_text(encoding='utf-8', errors='replace')
        raise RuntimeError(
            f'{" ".join(job.command)} ended with {code}. The end of {job.log}:\n'
            f'{_end_of(text.splitlines())}\n'
            'Fix it and rerun the same command to resume: what is finished stays.'
        )
    return seconds


def _end_of(lines: list[str]) -> str:
    """The last lines of a log; of a command that ended with a sentence, that alone."""
    tail = lines[-_TAIL:]
    is_error = [re.match(r'\w+(Error|Exception): ', line) for line in tail]
    if any(is_error) and not any('Traceback' in line for line in lines):
        last = max(number for number, found in enumerate(is_error) if found)
        tail = tail[last:]
    return '\n'.join(tail)
