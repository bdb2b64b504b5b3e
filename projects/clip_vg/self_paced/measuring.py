"""The measurers of a search: which there are, their training, their scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config

from projects.clip_vg_core.curriculum.outside_scores import mean_scores
from projects.clip_vg_core.curriculum.reliability_file import (
    AGREEMENT,
    ZERO_SHOT,
    ReliabilityFile,
    read_boxes,
    read_reliability,
    reliability_path,
)
from projects.clip_vg_core.curriculum.search import rank_measurers
from projects.clip_vg_core.curriculum.search_settings import OTHERS, Settings
from projects.clip_vg_core.data.label_files import LabelFile
from projects.clip_vg_core.utils.atomic import file_sha256

from .steps import Steps
from .trials import image_folds, select_sources, with_image_folds, with_selection

__all__ = ['Measurers', 'join_folds']


class Measurers:
    """What scores the labels of a search, once for all its trials.

    Args:
        cfg (Config): Trains on all sources, as of ``name_sources``.
        settings (Settings): Of the search.
        files (Mapping[str, LabelFile]): Labels of each source, from simple to complex.
        steps (Steps): Takes the steps.

    Raises:
        ValueError: A source has the name of a measurer that is not trained.
    """

    def __init__(
        self,
        cfg: Config,
        settings: Settings,
        files: Mapping[str, LabelFile],
        steps: Steps,
    ) -> None:
        self.cfg, self.settings, self.files, self.steps = cfg, settings, files, steps
        # Name of the one of all sources, and what the plan says; empty: none.
        self.common, self.told = OTHERS.get(settings.measurer, ('', ''))
        taken = {self.common, ZERO_SHOT if settings.measurer == 'mean' else ''}
        if same := sorted(taken & {*files}):
            raise ValueError(
                f'A source is called {same[0]!r}, as the measurer of all sources is: '
                'name it otherwise (`source` of RefExpDataset).'
            )
        # Measurers of each source; the first wins over equals.
        self.of = (
            dict.fromkeys(files, [self.common])
            if self.common
            else rank_measurers(list(files))
        )
        # Name of each model, its source, the image parts that it was not trained on.
        self.models: dict[str, tuple[str, list[int] | None]] = {}
        if settings.is_trained:
            self.models = {
                name: (source, parts)
                for source in files
                for name, parts in fold_parts(cfg, source, settings.folds).items()
            }

    def train(self) -> None:
        """Train the models; warns of those that have learnt nothing."""
        configs = {}
        for name, (source, left_out) in self.models.items():
            cfg = with_selection(select_sources(self.cfg, [source]), None)
            configs[f'measurer_{name}'] = without_parts(cfg, left_out)
        lines = self.steps.train(configs, 'measurers')
        # Before any trial is built on them.
        for name, line in zip(configs, lines, strict=True):
            self.steps.validation.warn_of_chance(name, line['score'])

    def score(self) -> None:
        """Score all sources: each model the images that it was not trained on."""
        for name, (_, left_out) in self.models.items():
            self.score_with(name, left_out)
        if self.settings.is_trained and self.settings.folds > 1:
            for source in self.files:
                folds = [n for n, (of, _) in self.models.items() if of == source]
                hashes = [
                    file_sha256(self.steps.checkpoint(f'measurer_{n}')) for n in folds
                ]
                for file in self.files.values():
                    join_folds(self.steps.reliability_dir, source, folds, hashes, file)

    def score_with(self, name: str, parts: Sequence[int] | None = None) -> None:
        """Score some parts of the images with a model; None: all."""
        run = f'measurer_{name}'
        self.steps.score(
            name,
            self.steps.checkpoint(run),
            with_image_folds(self.cfg, parts),
            self.steps.folder('measurers', run),
        )

    def score_untrained(self, name: str) -> None:
        """Score all sources with a measurer that is not trained."""
        folder = self.steps.work_dir / 'measurers'
        self.steps.score(name, self._option(name), self.cfg, folder)

    def run(self) -> None:
        """Train the measurers, and score all sources with each."""
        if not self.settings.is_trained:
            self.score_untrained(self.common)
            return
        self.train()
        self.score()
        if self.settings.measurer == 'mean':
            self.score_untrained(ZERO_SHOT)
            for file in self.files.values():
                self._write_mean(file)

    def run_of(self, measurer: str) -> str | None:
        """Name of the training run of a measurer, of several folds the first's."""
        runs = [f'measurer_{n}' for n, (of, _) in self.models.items() if of == measurer]
        return runs[0] if runs else None

    def _write_mean(self, file: LabelFile) -> None:
        """Write the mean of the own measurer and zero-shot grounding of a source."""
        folder, names = self.steps.reliability_dir, (file.source, ZERO_SHOT)
        paths = [reliability_path(folder, name, file.source) for name in names]
        values, boxes = mean_scores(
            [(read_reliability(path, file), read_boxes(path, file)) for path in paths]
        )
        origin = dict(
            name=self.common,
            of=list(names),
            sha256=','.join(file_sha256(path) for path in paths),
        )
        mean = ReliabilityFile(folder, origin, file)
        mean.write(file.keys, values, boxes)
        mean.flush()

    def _option(self, name: str) -> str:
        """The option of the scoring tool for a measurer that is not trained."""
        if name == AGREEMENT:
            return '--agreement'
        if name == ZERO_SHOT:
            return '--zero-shot'
        assert self.settings.measurer_file is not None
        return f'--measurer-file={Path(self.settings.measurer_file).resolve()}'


def fold_parts(cfg: Config, name: str, folds: int) -> dict[str, list[int] | None]:
    """Models of the folds of some labels, and the image parts each is not trained on.

    Args:
        cfg (Config): Trains on a :obj:`RefExpDataset`.
        name (str): Of the one model, or what the names of several begin with.
        folds (int): Number of models.

    Returns:
        dict: Of one model None: it is trained on all.
    """
    if folds == 1:
        return {name: None}
    parts = image_folds(cfg)['keep']
    return {f'{name}_fold{fold}': parts[fold::folds] for fold in range(folds)}


def without_parts(cfg: Config, parts: Sequence[int] | None) -> Config:
    """Config that trains on none of some parts of its images; None: on all."""
    if parts is None:
        return with_image_folds(cfg, None)
    every = image_folds(cfg)['keep']
    return with_image_folds(cfg, [part for part in every if part not in parts])


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
