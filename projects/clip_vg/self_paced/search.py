"""Self-paced adapting as one command: measure, select, train and compare (SSA, MSA)."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.logging import print_log

from projects.clip_vg_core.curriculum.outside_scores import mean_scores
from projects.clip_vg_core.curriculum.reliability_file import (
    AGREEMENT,
    ZERO_SHOT,
    ReliabilityFile,
    read_boxes,
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
    rank_measurers,
)
from projects.clip_vg_core.curriculum.selection import VALLEYS, select_reliable
from projects.clip_vg_core.data.label_files import LabelFile
from projects.clip_vg_core.utils.atomic import file_sha256, replacing
from projects.clip_vg_core.utils.file_names import file_name
from projects.clip_vg_core.utils.folder_lock import lock_folder
from projects.clip_vg_core.utils.resumable import append_line, read_journal

from .launch import Launcher
from .source_order import complexity
from .trials import (
    hold_out,
    image_folds,
    name_sources,
    select_sources,
    trial_name,
    with_image_folds,
    with_online,
    with_selection,
    write_config,
)

__all__ = ['MEASURERS', 'STRATEGIES', 'SelfPaced', 'Settings', 'join_folds']

STRATEGIES = (*THRESHOLD_SEARCHES, 'valley', 'online')
# What scores labels beside trained models: its name in reliability files, and what the
# plan says of it.
_OTHERS = {
    'clip': (AGREEMENT, 'Zero-shot CLIP matching scores all labels.'),
    'zero-shot': (ZERO_SHOT, 'Zero-shot grounding scores all labels.'),
    'file': ('file', 'A file scores all labels.'),
    'mean': ('mean', "The mean of a source's measurer and zero-shot grounding counts."),
}
MEASURERS = ('model', *_OTHERS)


@dataclass(frozen=True)
class Settings:
    """Settings that decide the result of a search.

    Args:
        strategy (str): 'greedy', 'grid' or 'fixed' search thresholds by training;
            'valley' reads them off the histograms; 'online' selects within one
            training run. Defaults to 'greedy', as in the paper.
        criterion (str): 'val', the accuracy on the config's validation, as in the
            paper; 'label-free', the agreement with pseudo-labels of held-out images.
            Defaults to 'val'.
        start (float): First threshold. Defaults to 0.5.
        step (float): Distance between thresholds. Defaults to 0.1.
        valley (str): 'otsu' or 'mixture'. Defaults to 'otsu'.
        order (tuple[str, ...], optional): Sources from simple to complex. Defaults to
            None: by the mean number of entities, or words.
        folds (int): Measurers of a source. From 2 on, each scores the images that it
            was not trained on. Defaults to 1: one measurer scores the labels that it
            was trained on, as in the paper.
        measurer (str): What scores the labels. 'model': a model trained on the source,
            as in the paper. None is trained for 'clip', zero-shot CLIP matching of
            crops with expressions; 'zero-shot', the same with geometry; and 'file',
            ``measurer_file``; 'online' begins with their scores. 'mean': the mean of
            the source's model and 'zero-shot'. Defaults to 'model'.
        measurer_file (str, optional): CSV or JSON Lines of ``sample_id`` and
            ``probability``. Defaults to None.
    """

    strategy: str = 'greedy'
    criterion: str = 'val'
    start: float = 0.5
    step: float = 0.1
    valley: str = 'otsu'
    order: tuple[str, ...] | None = None
    folds: int = 1
    measurer: str = 'model'
    measurer_file: str | None = None

    def __post_init__(self) -> None:
        if self.measurer not in MEASURERS:
            raise ValueError(
                f'measurer={self.measurer!r}; expected one of {MEASURERS}.'
            )
        if (self.measurer == 'file') != (self.measurer_file is not None):
            raise ValueError(
                f'measurer={self.measurer!r} with measurer_file='
                f'{self.measurer_file!r}; expected both of a file, or neither.'
            )
        if self.measurer == 'mean' and self.strategy == 'online':
            raise ValueError(
                "strategy='online' trains no measurers, of which measurer='mean' takes "
                "the mean: use 'zero-shot', which it begins with."
            )

    @property
    def is_trained(self) -> bool:
        """Whether measurers are trained."""
        return self.measurer in ('model', 'mean')

    def described(self) -> dict[str, Any]:
        """The settings in journals and records, as earlier searches have them."""
        described = dict(asdict(self), agreement=self.measurer == 'clip')
        path = described.pop('measurer_file')
        if self.measurer in ('model', 'clip'):
            described.pop('measurer')
        if path is not None:
            described['measurer_sha256'] = file_sha256(path)
        return described


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
        self.settings, self.launcher = settings, launcher
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
        # The one of all sources; empty: a model of each.
        self.measurer, self._told = _OTHERS.get(settings.measurer, ('', ''))
        taken = {self.measurer, ZERO_SHOT if settings.measurer == 'mean' else ''}
        if same := sorted(taken & {*self.sources}):
            raise ValueError(
                f'A source is called {same[0]!r}, as the measurer of all sources is: '
                'name it otherwise (`source` of RefExpDataset).'
            )
        self.reliability_dir = self.work_dir / 'reliability'
        # Measurers of each source; the first wins over equals.
        self.measurers = (
            dict.fromkeys(self.sources, [self.measurer])
            if self.measurer
            else rank_measurers(self.sources)
        )
        self.models = self._models()
        self.steps: dict[str, dict[str, Any]] = {}
        self.trials: dict[str, dict[str, Any]] = {}

    def _models(self) -> dict[str, tuple[str, list[int] | None]]:
        """Name of each model to measure with, its source, the image parts it scores."""
        if not self.settings.is_trained:
            return {}
        folds = self.settings.folds
        if folds == 1:
            return {source: (source, None) for source in self.sources}
        parts = image_folds(self.cfg)['keep']
        return {
            f'{source}_fold{fold}': (source, parts[fold::folds])
            for source in self.sources
            for fold in range(folds)
        }

    def plan(self) -> str:
        """Plan of the search and its cost in training runs; several lines."""
        settings, count, models = self.settings, len(self.sources), len(self.models)
        lines = [
            f'{"SSA" if count == 1 else "MSA"}, strategy {settings.strategy}, '
            f'criterion {settings.criterion} ({self._metric}), in {self.work_dir}',
            'Sources, from simple to complex'
            + ('' if settings.order else f' by {self.counted} (or --order)')
            + ':',
        ]
        lines += [
            f'  {name}: {self.files[name].count:,} labels, '
            f'{self.complexity[name]:.2f} {self.counted} each'
            for name in self.sources
        ]
        fewest = most = 1
        lines += [self._told] if self._told else []
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
            measurers = len(self.measurers[self.sources[0]])
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
            self._open_journal(overwrite)
            return self._search()

    def _search(self) -> Path:
        settings = self.settings
        if settings.strategy != 'online' or not settings.is_trained:
            self._measure()
        if settings.strategy == 'online':
            result = self._online()
        elif settings.strategy == 'valley':
            result = self._valley()
        else:
            result = multi_source(
                self.sources,
                self.measurers,
                self.evaluate,
                THRESHOLD_SEARCHES[settings.strategy],
                settings.start,
                settings.step,
            )
        if not result.trial:
            raise ValueError(
                'No threshold left enough labels to train on: look at the histograms '
                f'of {self.reliability_dir}; the measurers may have learnt nothing.'
            )
        return self._write_record(result)

    def _open_journal(self, overwrite: bool) -> None:
        """Read the finished steps, or begin."""
        path = self.work_dir / 'journal.jsonl'
        text = self.cfg.pretty_text
        settings = dict(
            self.settings.described(),
            config_sha256=hashlib.sha256(text.encode()).hexdigest(),
            labels={name: file.fingerprint for name, file in self.files.items()},
            val_labels=self._val_fingerprint(),
        )
        try:
            self.steps = read_journal(path, settings)
        except ValueError:
            if not overwrite:
                raise
            # What an earlier search made, and nothing else.
            for name in ('trials', 'measurers', 'reliability', 'final', 'report'):
                shutil.rmtree(self.work_dir / name, ignore_errors=True)
            for name in ('curriculum.json', 'report.html', 'journal.jsonl'):
                (self.work_dir / name).unlink(missing_ok=True)
            self.steps = read_journal(path, settings)

    def _val_fingerprint(self) -> str | None:
        """Fingerprint of the labels that trials are compared on, where it is known."""
        if self.settings.criterion == 'label-free':
            return None
        dataset = DATASETS.build(self.cfg.val_dataloader.dataset)
        return dataset.fingerprint() if hasattr(dataset, 'fingerprint') else None

    def _finish(self, step: str, **result: Any) -> None:
        """Note a finished step in the journal."""
        self.steps[step] = dict(step=step, **result)
        append_line(self.work_dir / 'journal.jsonl', self.steps[step])

    def _folder(self, kind: str, name: str) -> Path:
        return self.work_dir / kind / file_name(name)

    def _train(self, configs: Mapping[str, Config], kind: str) -> list[dict[str, Any]]:
        """Execute the training runs that are not finished.

        Args:
            configs (Mapping[str, Config]): Name and config of each.
            kind (str): Their parent folder in the work dir.

        Returns:
            list[dict]: Their lines of the journal: ``score``, ``checkpoint`` (relative
            to the work dir), ``seconds``.
        """
        names = {
            self._folder(kind, name): name for name in configs if name not in self.steps
        }
        for folder, name in names.items():
            write_config(configs[name], folder / 'config.py')
        runs = self.launcher.train({f: configs[name] for f, name in names.items()})
        for folder, result, seconds in runs:
            self._finish(
                names[folder],
                score=result.score,
                # Relative, so that a search that was moved or copied can go on.
                checkpoint=os.path.relpath(result.checkpoint, self.work_dir),
                seconds=seconds,
            )
            print_log(f'{names[folder]}: {result.score:.4f}', logger='current')
        return [self.steps[name] for name in configs]

    def _measure(self) -> None:
        """Train the measurers, and score all sources with each."""
        folder = self.work_dir / 'measurers'
        if not self.settings.is_trained:
            self._score(self.measurer, None, self.cfg, folder)
            return
        parts = image_folds(self.cfg)['keep']
        configs = {}
        for name, (source, scored) in self.models.items():
            cfg = with_selection(select_sources(self.cfg, [source]), None)
            # A model does not score images that it was trained on.
            seen = None if scored is None else [p for p in parts if p not in scored]
            configs[f'measurer_{name}'] = with_image_folds(cfg, seen)
        lines = self._train(configs, 'measurers')
        for (name, (_, scored)), line in zip(self.models.items(), lines, strict=True):
            self._score(
                name,
                self.work_dir / line['checkpoint'],
                with_image_folds(self.cfg, scored),
                self._folder('measurers', f'measurer_{name}'),
            )
        if self.settings.folds > 1:
            for measurer in self.sources:
                folds = [
                    n for n, (source, _) in self.models.items() if source == measurer
                ]
                checkpoints = [self.steps[f'measurer_{n}']['checkpoint'] for n in folds]
                hashes = [file_sha256(self.work_dir / path) for path in checkpoints]
                for file in self.files.values():
                    join_folds(self.reliability_dir, measurer, folds, hashes, file)
        if self.settings.measurer == 'mean':
            self._score(ZERO_SHOT, None, self.cfg, folder)
            for file in self.files.values():
                self._write_mean(file)

    def _write_mean(self, file: LabelFile) -> None:
        """Write the mean of the own measurer and zero-shot grounding of a source."""
        names = (file.source, ZERO_SHOT)
        paths = [reliability_path(self.reliability_dir, n, file.source) for n in names]
        values, boxes = mean_scores(
            [(read_reliability(path, file), read_boxes(path, file)) for path in paths]
        )
        origin = dict(
            name=self.measurer,
            of=list(names),
            sha256=','.join(file_sha256(path) for path in paths),
        )
        mean = ReliabilityFile(self.reliability_dir, origin, file)
        mean.write(file.keys, values, boxes)
        mean.flush()

    def _score(
        self, name: str, checkpoint: Path | None, cfg: Config, folder: Path
    ) -> None:
        """Score all sources with a measurer, unless that is done."""
        step = f'score_{name}'
        if step not in self.steps:
            write_config(cfg, folder / 'score.py')
            how: Path | str = self._option(name) if checkpoint is None else checkpoint
            self.launcher.score(folder / 'score.py', how, name, self.reliability_dir)
            self._finish(step)

    def _option(self, name: str) -> str:
        """The option of the scoring tool for a measurer that is not trained."""
        if name == AGREEMENT:
            return '--agreement'
        if name == ZERO_SHOT:
            return '--zero-shot'
        assert self.settings.measurer_file is not None
        return f'--measurer-file={Path(self.settings.measurer_file).resolve()}'

    def _reliability_path(self, pick: Pick) -> Path:
        return reliability_path(self.reliability_dir, pick.measurer, pick.source)

    def _reliability(self, pick: Pick) -> np.ndarray:
        """Reliability of a source's labels under a measurer, float32 of shape (N, )."""
        return read_reliability(self._reliability_path(pick), self.files[pick.source])

    def _config(self, trial: Trial) -> Config:
        """Config of an ordinary training run on the labels that a trial selects."""
        return with_selection(
            select_sources(self.cfg, [pick.source for pick in trial]),
            {
                pick.source: dict(
                    reliability=str(self._reliability_path(pick)),
                    threshold=pick.threshold,
                )
                for pick in trial
            },
        )

    def evaluate(self, trials: Sequence[Trial]) -> list[float]:
        """Best validation score of trials; -inf of one that selects less than a batch.

        Args:
            trials (Sequence[Trial]): Independent trials.

        Returns:
            list[float]: Their scores.
        """
        least = self.cfg.train_dataloader.batch_size * self.launcher.processes
        counts = {
            trial: [
                len(select_reliable(self._reliability(pick), pick.threshold))
                for pick in trial
            ]
            for trial in trials
        }
        enough = [trial for trial in trials if min(counts[trial]) >= least]
        self._train({trial_name(t): self._config(t) for t in enough}, 'trials')
        for trial in trials:
            name = trial_name(trial)
            line = self.steps.get(name, {})
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
            self.steps[trial_name(trial)]['score'] if trial in enough else -np.inf
            for trial in trials
        ]

    def _valley(self) -> MultiSourceResult:
        """Thresholds off the histograms, then one training run."""
        picks = []
        decided = []
        for source in self.sources:
            # A measurer of another source has not memorised this one's errors.
            names = self.measurers[source]
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
                str(reliability_path(self.reliability_dir, self.measurer, source))
                for source in self.sources
            ]
        cfg = with_online(
            with_selection(select_sources(self.cfg, self.sources), None),
            self.reliability_dir,
            threshold=self.settings.valley,
            prior=prior,
        )
        (line,) = self._train({'online': cfg}, 'trials')
        self.trials['online'] = dict(line, name='online', picks=[], labels=None)
        self.trials['online'].pop('step')
        return MultiSourceResult(trial, line['score'])

    @property
    def _metric(self) -> str:
        return self.cfg.default_hooks.checkpoint.save_best

    def _write_record(self, result: MultiSourceResult) -> Path:
        """Copy the best trial to ``final``, and write ``curriculum.json``."""
        online = self.settings.strategy == 'online'
        name = 'online' if online else trial_name(result.trial)
        final = self.work_dir / 'final'
        final.mkdir(exist_ok=True)
        for source, target in (
            (self.work_dir / self.trials[name]['checkpoint'], final / 'model.pth'),
            (self._folder('trials', name) / 'config.py', final / 'config.py'),
        ):
            with replacing(target) as partial:
                shutil.copyfile(source, partial)
        measured = [
            dict(
                name=model,
                source=source,
                labels=self.files[source].count,
                **{
                    key: self.steps[f'measurer_{model}'][key]
                    for key in ('score', 'checkpoint', 'seconds')
                },
            )
            for model, (source, _) in self.models.items()
            if f'measurer_{model}' in self.steps
        ]
        record = dict(
            settings=self.settings.described(),
            metric=self._metric,
            sources=[
                dict(
                    name=source,
                    labels=self.files[source].count,
                    **{f'mean_{self.counted}': round(self.complexity[source], 3)},
                )
                for source in self.sources
            ],
            measurers=measured,
            decisions=[asdict(decision) for decision in result.sources],
            trials=list(self.trials.values()),
            final=dict(
                trial=name,
                score=result.score,
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


def join_folds(
    folder: Path,
    measurer: str,
    folds: Sequence[str],
    hashes: Sequence[str],
    labels: LabelFile,
) -> None:
    """Write one reliability file of what the models of several folds have scored.

    Args:
        folder (Path): Folder of the reliability files.
        measurer (str): Name of the joined measurer.
        folds (Sequence[str]): Names of the models.
        hashes (Sequence[str]): sha256 of their checkpoints.
        labels (LabelFile): Labels of one source.
    """
    origin = dict(name=measurer, folds=list(folds), sha256=','.join(hashes))
    joined = ReliabilityFile(folder, origin, labels)
    for name in folds:
        path = reliability_path(folder, name, labels.source)
        values = read_reliability(path, labels)
        scored = ~np.isnan(values)
        boxes = read_boxes(path, labels)
        joined.write(labels.keys[scored], values[scored], boxes[scored])
    joined.flush()
