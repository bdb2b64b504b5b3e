"""Self-paced adapting by itself: measure, select, train, and choose (SSA and MSA)."""

import hashlib
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.logging import print_log

from projects.clip_vg_core.curriculum.reliability_file import (
    read_reliability,
    reliability_path,
)
from projects.clip_vg_core.curriculum.search import (
    STRATEGIES,
    MultiSourceResult,
    Pick,
    SourceResult,
    Trial,
    WalkResult,
    follow,
    multi_source,
)
from projects.clip_vg_core.curriculum.selection import VALLEYS, select_reliable
from projects.clip_vg_core.utils.file_names import file_name
from projects.clip_vg_core.utils.folder_lock import lock_folder

from ..engine.launch import run_jobs
from ..engine.trial import (
    hold_out,
    keep_sources,
    read_result,
    source_names,
    with_online,
    with_selection,
    write_config,
)
from .journal import Journal
from .measurers import Measurers
from .record import trial_name, write_record
from .settings import Resources, Settings
from .source_order import complexity

__all__ = ['SelfPaced']


class SelfPaced:
    """A search in a work dir: one source is SSA, several are MSA.

    Every trial is an ordinary training in ``trials/<name>``, with its ``config.py``;
    reliability files are in ``reliability``; ``journal.jsonl`` has what is finished,
    and ``curriculum.json`` everything that was found (method, sections 5, 6 and 8).

    Args:
        cfg (Config): Trains on the sources, validates on something.
        work_dir (str or Path): Where to.
        settings (Settings): How to search.
        resources (Resources): With what.

    Raises:
        ValueError: The config cannot be searched, the order names other sources, or
            a source has the name of CLIP's agreement.
    """

    def __init__(
        self,
        cfg: Config,
        work_dir: str | Path,
        settings: Settings,
        resources: Resources,
    ) -> None:
        self.work_dir = Path(work_dir)
        self.settings, self.resources = settings, resources
        if cfg.train_dataloader.dataset.type != 'RefExpDataset':
            raise ValueError(
                'The search needs train_dataloader.dataset of type RefExpDataset with '
                'one annotation file for each source, found '
                f'{cfg.train_dataloader.dataset.type}.'
            )
        if not cfg.default_hooks.get('checkpoint', {}).get('save_best'):
            raise ValueError(
                'The search compares best checkpoints: set '
                "default_hooks.checkpoint.save_best='grounding/acc_0.5'."
            )
        self.dataset = DATASETS.build(cfg.train_dataloader.dataset)
        self.dataset.full_init()
        self.files = {file.source: file for file in self.dataset.label_files}
        cfg = source_names(cfg, list(self.files))
        self.cfg = hold_out(cfg) if settings.criterion == 'label-free' else cfg
        self.counted, self.complexity = complexity(
            self.dataset, self.dataset.label_files
        )
        self.sources = list(
            settings.order or sorted(self.files, key=lambda name: self.complexity[name])
        )
        if sorted(self.sources) != sorted(self.files):
            raise ValueError(
                f'order={list(self.sources)}, but the sources are {list(self.files)}.'
            )
        self.reliability_dir = self.work_dir / 'reliability'
        self.measurers = Measurers(self)
        self.trials: dict[str, dict[str, Any]] = {}

    def open_journal(self, overwrite: bool = False) -> None:
        """Begin the search, or continue it."""
        text = self.cfg.pretty_text
        path = self.work_dir / 'journal.jsonl'
        settings = dict(
            asdict(self.settings),
            config_sha256=hashlib.sha256(text.encode()).hexdigest(),
            labels={n: f.fingerprint for n, f in self.files.items()},
            val_labels=self._val_fingerprint(),
        )
        try:
            self.journal = Journal(path, settings)
        except ValueError:
            if not overwrite:
                raise
            with lock_folder(self.work_dir):
                self._forget()
            self.journal = Journal(path, settings)

    def _val_fingerprint(self) -> str | None:
        """Of the labels that trials are compared on, where they are ours."""
        if self.settings.criterion == 'label-free':
            return None
        dataset = DATASETS.build(self.cfg.val_dataloader.dataset)
        return dataset.fingerprint() if hasattr(dataset, 'fingerprint') else None

    def _forget(self) -> None:
        """Remove what an earlier search made, and nothing else."""
        for name in ('trials', 'measurers', 'reliability', 'final', 'report'):
            shutil.rmtree(self.work_dir / name, ignore_errors=True)
        for name in ('curriculum.json', 'report.html', 'journal.jsonl'):
            (self.work_dir / name).unlink(missing_ok=True)

    def run(self, overwrite: bool = False) -> Path:
        """Search, or go on searching.

        Args:
            overwrite (bool): Whether a search that was begun with other settings or
                labels is removed first. Defaults to False.

        Returns:
            Path: ``curriculum.json``.

        Raises:
            RuntimeError: A trial failed, or the work dir is in use.
            ValueError: The work dir belongs to other settings, or nothing could be
                selected.
        """
        self.open_journal(overwrite)
        strategy = self.settings.strategy
        if strategy != 'online' or self.settings.agreement:
            self.measurers.run()
        if strategy == 'online':
            found = self._online()
        else:
            found = self._valley() if strategy == 'valley' else self._search()
        if not found.trial:
            raise ValueError(
                'No threshold left enough labels to train on: look at the histograms '
                f'of {self.reliability_dir}; the measurers may have learnt nothing.'
            )
        path = write_record(self, found)
        self.journal.close()
        return path

    def train(self, configs: Mapping[str, Config], kind: str) -> list[dict[str, Any]]:
        """Run trainings that are not finished.

        Args:
            configs (Mapping[str, Config]): Name and config of each.
            kind (str): The folder they are in, and their step in the journal.

        Returns:
            list[dict]: Lines of the journal: ``score``, ``checkpoint`` (relative to
            the work dir), ``seconds``.
        """
        missing = [name for name in configs if name not in self.journal.steps]
        at_once = [missing] if self.resources.jobs > 1 else [[name] for name in missing]
        for names in at_once:
            started = time.monotonic()
            jobs = []
            for name in names:
                folder = self.work_dir / kind / file_name(name)
                config = folder / 'config.py'
                write_config(configs[name], config)
                arguments = [str(config), '--work-dir', str(folder), '--resume']
                jobs.append(
                    self.resources.job('train.py', arguments, folder / 'log.txt')
                )
            run_jobs(jobs, self.resources.jobs, self.resources.gpus)
            seconds = round(time.monotonic() - started, 1)
            for name in names:
                folder = self.work_dir / kind / file_name(name)
                self._note(name, folder, configs[name], seconds)
        return [self.journal.steps[name] for name in configs]

    def _note(self, name: str, folder: Path, cfg: Config, seconds: float) -> None:
        """Put a finished training into the journal."""
        result = read_result(folder, cfg.train_cfg.max_epochs)
        if result is None:
            raise RuntimeError(
                f'{folder} ended before its {cfg.train_cfg.max_epochs} epochs without '
                'an error: see its log.txt, and give the same command again.'
            )
        self.journal.done(
            name,
            score=result.score,
            checkpoint=os.path.relpath(result.checkpoint, self.work_dir),
            seconds=seconds,
        )
        print_log(f'{name}: {result.score:.4f}', logger='current')

    def reliability(self, pick: Pick) -> np.ndarray:
        """Reliability of a source's labels under a measurer."""
        path = self.reliability_path(pick.measurer, pick.source)
        return read_reliability(path, self.files[pick.source])

    def reliability_path(self, measurer: str, source: str) -> Path:
        """Where a measurer's word on a source is."""
        return reliability_path(self.reliability_dir, measurer, source)

    def count(self, trial: Trial) -> list[int]:
        """How many labels each pick of a trial keeps."""
        return [
            len(select_reliable(self.reliability(pick), pick.threshold))
            for pick in trial
        ]

    def trial_config(self, trial: Trial) -> Config:
        """The config of an ordinary training on what a trial selects."""
        return with_selection(
            keep_sources(self.cfg, [pick.source for pick in trial]),
            {
                pick.source: dict(
                    reliability=str(self.reliability_path(pick.measurer, pick.source)),
                    threshold=pick.threshold,
                )
                for pick in trial
            },
        )

    def evaluate(self, trials: Sequence[Trial]) -> dict[Trial, float]:
        """Scores of trials; -inf where a trial has not enough labels for a batch.

        Args:
            trials (Sequence[Trial]): They do not depend on each other.

        Returns:
            dict[Trial, float]: The best validation of each.
        """
        least = self.cfg.train_dataloader.batch_size * self.resources.processes
        names = {trial: trial_name(trial) for trial in trials}
        counts = {trial: self.count(trial) for trial in trials}
        enough = [trial for trial in trials if min(counts[trial]) >= least]
        lines = self.train({names[t]: self.trial_config(t) for t in enough}, 'trials')
        scores = dict.fromkeys(trials, float('-inf'))
        scores.update({t: line['score'] for t, line in zip(enough, lines, strict=True)})
        for trial in trials:
            line = self.journal.steps.get(names[trial], {})
            self.trials[names[trial]] = dict(
                name=names[trial],
                picks=[
                    dict(asdict(pick), labels=kept)
                    for pick, kept in zip(trial, counts[trial], strict=True)
                ],
                labels=sum(counts[trial]),
                score=line.get('score'),
                checkpoint=line.get('checkpoint'),
                seconds=line.get('seconds'),
            )
        return scores

    def _search(self) -> MultiSourceResult:
        make = STRATEGIES[self.settings.strategy]
        search = multi_source(
            self.sources,
            self.measurers.names,
            lambda: make(start=self.settings.start, step=self.settings.step),
            self.settings.start,
        )
        return follow(search, self.evaluate)

    def _valley(self) -> MultiSourceResult:
        """Thresholds from the histograms, then one training."""
        picks = []
        decided = []
        for source in self.sources:
            # A measurer of another source has not memorised this one's errors.
            measurers = self.measurers.names[source]
            others = [name for name in measurers if name != source] or measurers
            valleys = {
                name: VALLEYS[self.settings.valley](
                    self.reliability(Pick(source, name, 0.0))
                )
                for name in others
            }
            best = max(others, key=lambda name: valleys[name].separation)
            threshold = round(valleys[best].threshold, 4)
            picks.append(Pick(source, best, threshold))
            walk = WalkResult(threshold, float('nan'), (threshold,))
            separations = {n: v.separation for n, v in valleys.items()}
            decided.append(SourceResult(source, separations, best, walk, True))
        trial = tuple(picks)
        score = self.evaluate([trial])[trial]
        return MultiSourceResult(trial if score > -np.inf else (), score, decided)

    def _online(self) -> MultiSourceResult:
        """One training that selects as it goes."""
        cfg = with_online(
            with_selection(keep_sources(self.cfg, self.sources), None),
            self.reliability_dir,
            threshold=self.settings.valley,
            prior=self.measurers.prior,
        )
        (line,) = self.train({'online': cfg}, 'trials')
        trial = tuple(Pick(source, 'online', float('nan')) for source in self.sources)
        self.trials['online'] = dict(line, name='online', picks=[], labels=None)
        self.trials['online'].pop('step')
        return MultiSourceResult(trial, line['score'])
