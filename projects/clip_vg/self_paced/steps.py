"""The finished steps of a search in its work dir, and how the next one is taken."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from projects.clip_vg_core.utils.file_names import file_name
from projects.clip_vg_core.utils.resumable import append_line, read_journal

from .launch import Launcher
from .trials import write_config
from .validation import Validation

__all__ = ['Steps']

# What a search makes, and nothing else that may be in its folder.
_FOLDERS = ('trials', 'measurers', 'reliability', 'corrected', 'final', 'report')
_FILES = ('curriculum.json', 'report.html', 'journal.jsonl')


class Steps:
    """Steps of a search: each taken once, noted in ``journal.jsonl``.

    Args:
        work_dir (Path): Output folder, which the caller has locked.
        launcher (Launcher): Executes training runs and scorings.
        validation (Validation): What scores are of.
    """

    def __init__(
        self, work_dir: Path, launcher: Launcher, validation: Validation
    ) -> None:
        self.work_dir, self.launcher = work_dir, launcher
        self.validation = validation
        self.reliability_dir = work_dir / 'reliability'
        self.lines: dict[str, dict[str, Any]] = {}

    def open(self, settings: Mapping[str, Any], overwrite: bool) -> None:
        """Read the finished steps, or begin.

        Args:
            settings (Mapping): What decides the results, as JSON.
            overwrite (bool): Whether a search of other settings is removed first.

        Raises:
            ValueError: There is a search of other settings.
        """
        path = self.work_dir / 'journal.jsonl'
        try:
            self.lines = read_journal(path, settings)
        except ValueError:
            if not overwrite:
                raise
            for name in _FOLDERS:
                shutil.rmtree(self.work_dir / name, ignore_errors=True)
            for name in _FILES:
                (self.work_dir / name).unlink(missing_ok=True)
            self.lines = read_journal(path, settings)

    def finish(self, step: str, **result: Any) -> None:
        """Note a finished step in the journal."""
        self.lines[step] = dict(step=step, **result)
        append_line(self.work_dir / 'journal.jsonl', self.lines[step])

    def folder(self, kind: str, name: str) -> Path:
        """Work dir of a training run, by the kind and the name of the run."""
        return self.work_dir / kind / file_name(name)

    def checkpoint(self, name: str) -> Path:
        """Best checkpoint of a finished training run."""
        return self.work_dir / self.lines[name]['checkpoint']

    def train(self, configs: Mapping[str, Config], kind: str) -> list[dict[str, Any]]:
        """Execute the training runs that are not finished.

        Args:
            configs (Mapping[str, Config]): Name and config of each.
            kind (str): Their parent folder in the work dir.

        Returns:
            list[dict]: Their lines of the journal: ``score``, ``checkpoint`` (relative
            to the work dir), ``seconds``.
        """
        names = {
            self.folder(kind, name): name for name in configs if name not in self.lines
        }
        for folder, name in names.items():
            write_config(configs[name], folder / 'config.py')
        runs = self.launcher.train({f: configs[name] for f, name in names.items()})
        for folder, result, seconds in runs:
            self.finish(
                names[folder],
                score=result.score,
                # Relative, so that a search that was moved or copied can go on.
                checkpoint=os.path.relpath(result.checkpoint, self.work_dir),
                seconds=seconds,
            )
            text = self.validation.describe(result.score)
            print_log(f'{names[folder]}: {text}', logger='current')
        return [self.lines[name] for name in configs]

    def score(self, name: str, how: Path | str, cfg: Config, folder: Path) -> None:
        """Score all sources with a measurer, unless that is done.

        Args:
            name (str): Of the measurer, in reliability files.
            how (Path or str): A checkpoint, or an option of the scoring tool.
            cfg (Config): Its training labels are scored.
            folder (Path): Takes the config and the logs.
        """
        step = f'score_{name}'
        if step not in self.lines:
            write_config(cfg, folder / 'score.py')
            self.launcher.score(folder / 'score.py', how, name, self.reliability_dir)
            self.finish(step)
