"""Run commands: one after another, or side by side through Ray."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ['LAUNCHERS', 'Job', 'end_with_parent', 'launch_command', 'run_jobs']

LAUNCHERS = ('none', 'pytorch', 'slurm')
_TAIL = 15  # lines of a failed job's log that an error shows


@dataclass(frozen=True)
class Job:
    """A command, and the file that takes what it prints."""

    command: tuple[str, ...]
    log: str


def launch_command(
    script: str | Path, arguments: Sequence[str], launcher: str, processes: int
) -> tuple[str, ...]:
    """The command line that starts a script.

    Args:
        script (str or Path): A Python file that knows ``--launcher``.
        arguments (Sequence[str]): Its arguments.
        launcher (str): 'none', 'pytorch' (torchrun on this machine) or 'slurm' (srun;
            what it needs beyond the number of tasks comes from its ``SLURM_*`` or
            ``SRUN_ARGS`` environment variables).
        processes (int): How many, one for each GPU.

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


def _run(job: Job) -> int:
    log = Path(job.log)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('a', encoding='utf-8') as file:
        file.write(f'$ {" ".join(job.command)}\n')
        file.flush()
        return subprocess.run(
            job.command,
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
            preexec_fn=end_with_parent,
        ).returncode


def run_jobs(jobs: Sequence[Job], at_once: int = 1, gpus: int = 0) -> None:
    """Run jobs to their end.

    Args:
        jobs (Sequence[Job]): They do not depend on each other.
        at_once (int): More than 1 needs Ray, which schedules them on this machine or
            the cluster it is connected to. Defaults to 1.
        gpus (int): That Ray keeps for a job. Defaults to 0.

    Raises:
        RuntimeError: A job failed; it names the log and shows its end.
        ImportError: Ray is not installed.
    """
    if at_once == 1 or len(jobs) < 2:
        for job in jobs:
            _check(job, _run(job))
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
        _check(waiting.pop(ready), ray.get(ready))


def _check(job: Job, code: int) -> None:
    if code:
        tail = Path(job.log).read_text(encoding='utf-8', errors='replace').splitlines()
        raise RuntimeError(
            f'{" ".join(job.command)} ended with {code}. The end of {job.log}:\n'
            + '\n'.join(tail[-_TAIL:])
            + '\nMend it and give the same command again: what is finished stays.'
        )
