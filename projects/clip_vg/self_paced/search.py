"""Self-paced adapting as one command: measure, select, train and compare (SSA, MSA)."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.registry import DATASETS
from mmengine.config import Config

from projects.clip_vg_core.curriculum.reliability_file import (
    read_reliability,
    reliability_path,
)
from projects.clip_vg_core.curriculum.search import STRATEGIES as THRESHOLD_SEARCHES
from projects.clip_vg_core.curriculum.search import (
    MultiSourceResult,
    Pick,
    SourceResult,
    Trial,
    WalkResult,
    multi_source,
    number_of_trials,
)
from projects.clip_vg_core.curriculum.search_settings import Settings
from projects.clip_vg_core.curriculum.selection import VALLEYS, select_reliable
from projects.clip_vg_core.utils.atomic import replacing
from projects.clip_vg_core.utils.folder_lock import lock_folder

from .agreements import Agreements
from .correction import CorrectionRounds
from .launch import Launcher
from .measuring import Measurers
from .source_order import complexity
from .steps import Steps
from .trials import (
    hold_out,
    name_sources,
    select_sources,
    trial_name,
    with_online,
    with_selection,
)
from .validation import Validation

__all__ = ['SelfPaced']


class SelfPaced:
    """Search in a work dir: of one source SSA, of several MSA.

    Every trial is an ordinary training run in ``trials/<name>``, with its
    ``config.py``; reliability files are in ``reliability``; ``journal.jsonl`` has the
    finished steps, and ``curriculum.json`` all results (method, sections 5, 6 and 8).

    Args:
        cfg (Config): Trains on the sources and has a validation.
        work_dir (str or Path): Output folder.
        settings (Settings): What decides the result.
        launcher (Launcher): Executes training runs and scorings; anything with its
            ``train``, ``score`` and ``processes``.

    Raises:
        ValueError: The config cannot be searched, the order names other sources, or
            a source has the name of zero-shot CLIP matching.
    """

    def __init__(
        self,
        cfg: Config,
        work_dir: str | Path,
        settings: Settings,
        launcher: Launcher,
    ) -> None:
        self.work_dir = Path(work_dir)
        self.settings = settings
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
        cfg = name_sources(cfg, list(self.files))
        self.cfg = hold_out(cfg) if settings.criterion == 'label-free' else cfg
        self.counted, self.complexity = complexity(self.dataset)
        self.sources = list(
            settings.order or sorted(self.files, key=lambda name: self.complexity[name])
        )
        if sorted(self.sources) != sorted(self.files):
            raise ValueError(
                f'order={list(self.sources)}, but the sources are {list(self.files)}.'
            )
        self.validation = Validation(self.cfg, settings.criterion == 'label-free')
        self.steps = Steps(self.work_dir, launcher, self.validation)
        files = {source: self.files[source] for source in self.sources}
        self.measurers = Measurers(self.cfg, settings, files, self.steps)
        self.agreements = Agreements(self.dataset, self.steps.reliability_dir)
        self.rounds: CorrectionRounds | None = None
        if settings.correct:
            trained_on = self.dataset
            if settings.criterion == 'label-free':  # without what is held out
                trained_on = DATASETS.build(self.cfg.train_dataloader.dataset)
            self.rounds = CorrectionRounds(
                self.cfg, settings, self.measurers, self.steps, trained_on
            )
            self.agreements = self.rounds.agreements
        self.trials: dict[str, dict[str, Any]] = {}

    def plan(self) -> str:
        """Plan of the search and its cost in training runs; several lines."""
        settings, count = self.settings, len(self.sources)
        models = len(self.measurers.models)
        how = 'correction' if self.rounds else f'strategy {settings.strategy}'
        lines = [
            f'{"SSA" if count == 1 else "MSA"}, {how}, '
            f'criterion {settings.criterion} ({self.validation.metric}), '
            f'in {self.work_dir}',
            'Sources, from simple to complex'
            + ('' if settings.order else f' by {self.counted} (or --order)')
            + ':',
        ]
        lines += [
            f'  {name}: {self.files[name].count:,} labels, '
            f'{self.complexity[name]:.2f} {self.counted} each'
            for name in self.sources
        ]
        if self.rounds is not None:
            return '\n'.join([*lines, *self.rounds.plan()])
        fewest = most = 1
        lines += [self.measurers.told] if self.measurers.told else []
        if settings.is_trained and settings.strategy != 'online':
            lines.append(f'{_many(models, "measurer")} to train.')
        if settings.strategy == 'online':
            models = 0
            lines.append('1 training run that scores its labels twice and selects.')
        elif settings.strategy == 'valley':
            lines.append('1 training run on the labels above the valleys.')
        else:
            low, high = number_of_trials(
                settings.strategy, settings.start, settings.step
            )
            measurers = len(self.measurers.of[self.sources[0]])
            lines.append(
                f'Per source: {_many(measurers, "measurer")} compared at h = '
                f'{settings.start:g}, then {_many(low, "threshold run", high)}.'
            )
            if measurers > 1:
                lines.append(
                    f'The run of the best measurer at h = {settings.start:g} is its '
                    'first threshold run.'
                )
            fewest, most = (count * (measurers - 1 + runs) for runs in (low, high))
        lines.append(
            f'Total: {_many(models + fewest, "training run", models + most)} of '
            f'{_many(self.cfg.train_cfg.max_epochs, "epoch")}.'
        )
        return '\n'.join(lines)

    def run(self, overwrite: bool = False) -> Path:
        """Search, or resume the search.

        Args:
            overwrite (bool): Whether a search that was begun with other settings or
                labels is removed first. Defaults to False.

        Returns:
            Path: ``curriculum.json``.

        Raises:
            RuntimeError: A training run failed, or the work dir is in use.
            ValueError: The work dir belongs to other settings, or no threshold
                selects enough labels.
        """
        with lock_folder(self.work_dir):
            self.steps.open(self._described(), overwrite)
            return self._search()

    def _search(self) -> Path:
        settings = self.settings
        if self.rounds is not None:
            name = self.rounds.run()
            self.trials = self.rounds.trials
            return self._write_record(name, self.trials[name]['score'])
        if settings.strategy != 'online' or not settings.is_trained:
            self.measurers.run()
        if not settings.is_trained:
            for source in self.sources:
                self.agreements.measure(self.measurers.common, source)
        if settings.strategy == 'online':
            result = self._online()
        elif settings.strategy == 'valley':
            result = self._valley()
        else:
            result = multi_source(
                self.sources,
                self.measurers.of,
                self.evaluate,
                THRESHOLD_SEARCHES[settings.strategy],
                settings.start,
                settings.step,
                settings.unhelpful == 'keep',
            )
        if not result.trial:
            raise ValueError(
                'No threshold left enough labels to train on: look at the histograms '
                f'of {self.steps.reliability_dir}; the measurers may have learnt '
                'nothing.'
            )
        online = settings.strategy == 'online'
        name = 'online' if online else trial_name(result.trial)
        return self._write_record(name, result.score, result.sources)

    def _described(self) -> dict[str, Any]:
        """What decides the result, for the journal."""
        text = self.cfg.pretty_text
        return dict(
            self.settings.described(),
            config_sha256=hashlib.sha256(text.encode()).hexdigest(),
            labels={name: file.fingerprint for name, file in self.files.items()},
            val_labels=self.validation.fingerprint(),
        )

    def _reliability_path(self, pick: Pick) -> Path:
        return reliability_path(self.steps.reliability_dir, pick.measurer, pick.source)

    def _reliability(self, pick: Pick) -> np.ndarray:
        """Reliability of a source's labels under a measurer, float32 of shape (N, )."""
        return read_reliability(self._reliability_path(pick), self.files[pick.source])

    def _config(self, trial: Trial) -> Config:
        """Config of an ordinary training run on the labels that a trial selects."""
        cfg = with_selection(
            select_sources(self.cfg, [pick.source for pick in trial]),
            {
                pick.source: dict(
                    reliability=str(self._reliability_path(pick)),
                    threshold=pick.threshold,
                )
                for pick in trial
            },
            'selected' if self.settings.equal == 'epochs' else None,
        )
        if self.settings.init == 'previous' and (before := self._previous(trial)):
            cfg.load_from = str(self.steps.checkpoint(before))
        return cfg

    def _previous(self, trial: Trial) -> str | None:
        """Name of the training run that a trial builds on; None: there is none."""
        if (name := trial_name(trial[:-1])) in self.steps.lines:
            return name
        return self.measurers.run_of(trial[-1].measurer)

    def evaluate(self, trials: Sequence[Trial]) -> list[float]:
        """Best validation score of trials; -inf of one that selects less than a batch.

        Args:
            trials (Sequence[Trial]): Independent trials.

        Returns:
            list[float]: Their scores.
        """
        least = self.cfg.train_dataloader.batch_size * self.steps.launcher.processes
        counts = {
            trial: [
                len(select_reliable(self._reliability(pick), pick.threshold))
                for pick in trial
            ]
            for trial in trials
        }
        enough = [trial for trial in trials if min(counts[trial]) >= least]
        self.steps.train({trial_name(t): self._config(t) for t in enough}, 'trials')
        for trial in trials:
            name = trial_name(trial)
            line = self.steps.lines.get(name, {})
            self.trials[name] = dict(
                name=name,
                picks=[
                    dict(asdict(pick), labels=count)
                    for pick, count in zip(trial, counts[trial], strict=True)
                ],
                labels=sum(counts[trial]),
                score=line.get('score'),
                checkpoint=line.get('checkpoint'),
                seconds=line.get('seconds'),
            )
        return [
            self.steps.lines[trial_name(trial)]['score'] if trial in enough else -np.inf
            for trial in trials
        ]

    def _valley(self) -> MultiSourceResult:
        """Thresholds off the histograms, then one training run."""
        picks = []
        decided = []
        for source in self.sources:
            # A measurer of another source has not memorised this one's errors.
            names = self.measurers.of[source]
            others = [name for name in names if name != source] or names
            valleys = {
                name: VALLEYS[self.settings.valley](
                    self._reliability(Pick(source, name, 0.0))
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
        (score,) = self.evaluate([trial])
        return MultiSourceResult(trial if score > -np.inf else (), score, decided)

    def _online(self) -> MultiSourceResult:
        """One training run that selects as it goes."""
        trial = tuple(Pick(source, 'online', float('nan')) for source in self.sources)
        prior = None
        if not self.settings.is_trained:
            # Scores that are there before any training; a selection from the start.
            prior = [
                str(self._reliability_path(Pick(source, self.measurers.common, 0.0)))
                for source in self.sources
            ]
        cfg = with_online(
            with_selection(select_sources(self.cfg, self.sources), None),
            self.steps.reliability_dir,
            threshold=self.settings.valley,
            prior=prior,
        )
        (line,) = self.steps.train({'online': cfg}, 'trials')
        self.trials['online'] = dict(line, name='online', picks=[], labels=None)
        self.trials['online'].pop('step')
        return MultiSourceResult(trial, line['score'])

    def _write_record(
        self, name: str, score: float, decisions: Sequence[SourceResult] = ()
    ) -> Path:
        """Copy the best trial to ``final``, and write ``curriculum.json``."""
        self.validation.warn_of_chance('The final model', score)
        final = self.work_dir / 'final'
        final.mkdir(exist_ok=True)
        for source, target in (
            (self.work_dir / self.trials[name]['checkpoint'], final / 'model.pth'),
            (self.steps.folder('trials', name) / 'config.py', final / 'config.py'),
        ):
            with replacing(target) as partial:
                shutil.copyfile(source, partial)
        measured = [
            dict(
                name=model,
                source=source,
                labels=self.files[source].count,
                **{
                    key: self.steps.lines[f'measurer_{model}'][key]
                    for key in ('score', 'checkpoint', 'seconds')
                },
            )
            for model, (source, _) in self.measurers.models.items()
            if f'measurer_{model}' in self.steps.lines
        ]
        record = dict(
            settings=self.settings.described(),
            metric=self.validation.metric,
            validation=self.validation.described(),
            agreements=self.agreements.described(),
            sources=[
                dict(
                    name=source,
                    labels=self.files[source].count,
                    **{f'mean_{self.counted}': round(self.complexity[source], 3)},
                )
                for source in self.sources
            ],
            measurers=measured,
            decisions=[asdict(decision) for decision in decisions],
            trials=list(self.trials.values()),
            final=dict(
                trial=name,
                score=score,
                config='final/config.py',
                checkpoint='final/model.pth',
            ),
        )
        path = self.work_dir / 'curriculum.json'
        with replacing(path) as partial:
            partial.write_text(json.dumps(_finite(record), indent=2) + '\n')
        return path


def _many(fewest: int, what: str, most: int | None = None) -> str:
    """Number of things: '1 epoch', '2 epochs', '3 to 7 epochs'."""
    most = fewest if most is None else most
    span = f'{fewest:,}' if fewest == most else f'{fewest:,} to {most:,}'
    return f'{span} {what}' + 's' * (most != 1)


def _finite(value: Any) -> Any:
    """The value in JSON's types: null for infinities and NaN."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
