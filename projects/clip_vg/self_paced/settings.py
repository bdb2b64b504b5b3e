"""How to search, and with what."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..engine.launch import Job, launch_command

__all__ = ['Resources', 'Settings']


@dataclass(frozen=True)
class Settings:
    """How to search.

    Args:
        strategy (str): 'greedy', 'grid' or 'fixed' search thresholds by training;
            'valley' reads them off the histograms; 'online' selects within one
            training. Defaults to 'greedy', as the paper.
        criterion (str): 'val', the accuracy on the config's validation, as the paper;
            'label-free', the agreement with pseudo-labels of held-out images.
            Defaults to 'val'.
        start (float): First threshold. Defaults to 0.5.
        step (float): Between thresholds. Defaults to 0.1.
        valley (str): 'otsu' or 'mixture'. Defaults to 'otsu'.
        order (tuple[str, ...], optional): Sources from simple to complex. Defaults to
            None: by the mean number of entities, or words.
        folds (int): Measurers that score images they have not seen: 2 and more
            trainings each. Defaults to 1: one measurer scores what it was trained
            on, as the paper.
        agreement (bool): Whether CLIP's own agreement of crops with expressions
            measures, and no measurer is trained; 'online' begins with it. Defaults
            to False.
    """

    strategy: str = 'greedy'
    criterion: str = 'val'
    start: float = 0.5
    step: float = 0.1
    valley: str = 'otsu'
    order: tuple[str, ...] | None = None
    folds: int = 1
    agreement: bool = False


@dataclass(frozen=True)
class Resources:
    """With what to search; it does not change the result.

    Args:
        tools (Path): Folder of ``train.py`` and ``score_reliability.py``.
        launcher (str): 'none', 'pytorch' or 'slurm'. Defaults to 'none'.
        processes (int): Of one training. Defaults to 1.
        jobs (int): Trials at once, by Ray. Defaults to 1.
        gpus (int): Of one trial, for Ray. Defaults to 0.
    """

    tools: Path
    launcher: str = 'none'
    processes: int = 1
    jobs: int = 1
    gpus: int = 0

    def job(self, script: str, arguments: Sequence[str], log: Path) -> Job:
        """A command of one of the tools."""
        command = launch_command(
            self.tools / script, arguments, self.launcher, self.processes
        )
        return Job(command, str(log))
