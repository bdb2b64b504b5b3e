"""Rounds of correction: measurers vote on every label, a model trains on what is left.

Beside the selection by thresholds, which drops a label that is wrong: where two
measurers point to the same other box of the image, the label moves there.
"""

import copy
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from projects.clip_vg_core.curriculum.corrected_files import (
    count_outcomes,
    write_corrected,
    write_outcomes,
)
from projects.clip_vg_core.curriculum.correction import (
    KEPT,
    Correction,
    correct_labels,
    votes_of,
)
from projects.clip_vg_core.curriculum.reliability_file import reliability_path
from projects.clip_vg_core.curriculum.search_settings import Settings
from projects.clip_vg_core.data.grouping import ImageGroups
from projects.clip_vg_core.data.label_files import LabelFile
from projects.clip_vg_core.utils.atomic import file_sha256
from projects.clip_vg_core.utils.file_names import file_name

from ..datasets.samplers import is_grouped
from .agreements import Agreements
from .measuring import Measurers
from .steps import Steps
from .trials import with_selection
from .validation import REMEDY, image_sizes

__all__ = ['CorrectionRounds', 'read_corrected']


def round_name(number: int) -> str:
    """Name of the training run on the corrected labels of a round."""
    return f'corrected_{number}'


def outcome_name(number: int) -> str:
    """Name of the outcomes of a round in the reliability files."""
    return f'correction_{number}'


class CorrectionRounds:
    """Corrects the labels of a search in rounds, each with a training run.

    In the first round the model of each source and the settings' second measurer vote;
    of several sources the other models, too; without a second measurer and with
    ``folds=2`` the two models of each source, of which one has not seen the label. In
    later rounds the model just trained votes in the place of the source's own, or,
    without a second measurer, beside it. A measurer that is not clearly above chance on
    a source has no vote there, and neither has the model of another source that is less
    than half as far above it as the best of the others.

    Args:
        cfg (Config): Trains on all sources, as of ``name_sources``.
        settings (Settings): Of the search, ``correct`` among them.
        measurers (Measurers): Of the same.
        steps (Steps): Takes the steps.
        dataset (BaseDataset): The labels that are trained on, a :obj:`RefExpDataset`.

    Raises:
        ValueError: There are no two measurers, or labels have several boxes.
    """

    def __init__(
        self,
        cfg: Config,
        settings: Settings,
        measurers: Measurers,
        steps: Steps,
        dataset: BaseDataset,
    ) -> None:
        self.cfg, self.settings = cfg, settings
        self.measurers, self.steps = measurers, steps
        self.dataset = dataset
        if dataset.table.offsets is not None:
            raise ValueError(
                "A correction moves the box of a label, and targets='any' gives labels "
                "several: expected targets='one'."
            )
        # Two models of a source, each trained on half of the images, that vote alone.
        self.has_halves = settings.folds == 2 and not measurers.common
        if len(measurers.files) == settings.folds == 1 and not measurers.common:
            raise ValueError(
                'A correction needs two measurers, and the one source has one model: '
                "expected measurer='clip', 'zero-shot' or a file (--measurer), or two "
                'models on halves of the images (--folds 2).'
            )
        self.agreements = Agreements(dataset, steps.reliability_dir)
        self.trials: dict[str, dict[str, Any]] = {}

    def plan(self) -> list[str]:
        """Who votes, and the number of training runs, for people."""
        rounds, models = self.settings.correct, len(self.measurers.models)
        who = [
            'two models of each source on halves of its images'
            if self.has_halves
            else 'the model of each source'
        ]
        who += [self.measurers.common] if self.measurers.common else []
        return [
            f'Votes: {", ".join(who)}; later the model of the round before.',
            f'Measurers to train: {models}. Rounds of correction, each with a training '
            f'run: {rounds}.',
            f'Total: {models + rounds} training runs of '
            f'{self.cfg.train_cfg.max_epochs} epochs.',
        ]

    def run(self) -> str:
        """Correct and train, or go on with it.

        Returns:
            str: Name of the training run of the best round; of equals the last.
        """
        self._measure()
        for number in range(1, self.settings.correct + 1):
            self._round(number)
        return max(
            reversed(self.trials), key=lambda name: float(self.trials[name]['score'])
        )

    def _measure(self) -> None:
        """Train the first measurers, and have them predict boxes for all labels."""
        # First what takes no training: what is wrong with it shows at once.
        if self.measurers.common:
            self.measurers.score_untrained(self.measurers.common)
        self.measurers.train()
        if self.has_halves:
            for name in self.measurers.models:
                self.measurers.score_with(name)
        else:
            self.measurers.score()

    def _own(self, source: str) -> list[str]:
        """First measurers of a source that were trained on it."""
        if not self.has_halves:
            return [source]
        return [n for n, (of, _) in self.measurers.models.items() if of == source]

    def _voters(self, number: int, source: str) -> list[str]:
        """Names of the measurers that vote on a source's labels in a round."""
        files, common = self.measurers.files, self.measurers.common
        # Without a common measurer every vote is needed, so the first model stays.
        own = self._own(source) if number == 1 or not common else []
        new = [round_name(number - 1)] if number > 1 else []
        others = [
            name for other in files if other != source for name in self._own(other)
        ]
        names = [*new, *own, *([common] if common else [])]
        voters = [name for name in names if self._is_clear(name, source)]
        margins = [self.agreements.measure(name, source).margin for name in voters]
        # Weak votes of models of other languages agree by chance, and outvote.
        least = np.nanmax([0.0, *margins]) / 2
        speaking = [
            name
            for name in others
            if self._is_clear(name, source)
            and self.agreements.measure(name, source).margin >= least
        ]
        return [*voters, *speaking]

    def _is_clear(self, measurer: str, source: str) -> bool:
        found = self.agreements.measure(measurer, source)
        # A verifier without boxes agrees with nothing: its scores count as they are.
        return found.is_clear or not found.count

    def _round(self, number: int) -> None:
        """One correction of all sources, and a training run on the result."""
        name, before = round_name(number), round_name(number - 1)
        if number > 1:
            folder = self.steps.folder('trials', before)
            self.steps.score(before, self.steps.checkpoint(before), self.cfg, folder)
        voters = {
            source: self._voters(number, source) for source in self.measurers.files
        }
        folder, step = self.steps.work_dir / 'corrected' / name, f'correct_{number}'
        if step not in self.steps.lines:
            folder.mkdir(parents=True, exist_ok=True)
            counts = {
                file.source: self._correct(number, folder, file, voters[file.source])
                for file in self.dataset.label_files
            }
            self.steps.finish(step, counts=counts)
        counts = self.steps.lines[step]['counts']
        self._check_counts(name, counts)
        used = [s for s, c in counts.items() if c['kept'] + c['moved']]
        cfg = self._config(number, folder, used)
        (line,) = self.steps.train({name: cfg}, 'trials')
        self.trials[name] = dict(
            name=name,
            picks=[],
            outcomes=outcome_name(number),
            corrections=[
                dict(source=source, measurers=voters[source], **counts[source])
                for source in voters
            ],
            labels=sum(c['kept'] + c['moved'] for c in counts.values()),
            **{key: line[key] for key in ('score', 'checkpoint', 'seconds')},
        )

    def _check_counts(self, name: str, counts: Mapping[str, Mapping[str, int]]) -> None:
        least = self.cfg.train_dataloader.batch_size * self.steps.launcher.processes
        left = sum(c['kept'] + c['moved'] for c in counts.values())
        if left < least:
            raise ValueError(
                f'{name}: {left:,} labels are left of {len(self.dataset):,}, and a '
                f'batch has {least:,}: the measurers agree on nothing. {REMEDY}'
            )

    def _correct(
        self, number: int, folder: Path, file: LabelFile, voters: list[str]
    ) -> dict[str, int]:
        """Correct the labels of a source; writes the files of the round."""
        dataset, indices = self.dataset, self.dataset.indices_of(file)
        table = self._table.take(indices)
        paths = [
            reliability_path(self.steps.reliability_dir, voter, file.source)
            for voter in voters
        ]
        if len(voters) > 1:
            votes = [
                votes_of(
                    dataset.read_predicted_boxes(path)[indices],
                    dataset.read_reliability(path)[indices],
                    table.boxes,
                )
                for path in paths
            ]
            candidates, candidate_index = self.agreements.candidates
            corrected = correct_labels(
                *(table.boxes, votes, candidates, table.image_index, candidate_index)
            )
        else:
            print_log(
                f'{file.source}: {len(voters)} of the measurers speak its language '
                f'({", ".join(voters) or "none"}), and two are needed to correct a '
                'label: all of its labels stay as they are. Give another measurer, '
                'or leave the source out.',
                logger='current',
                level=logging.WARNING,
            )
            kept = np.full(len(indices), KEPT, np.int8)
            corrected = Correction(table.boxes, kept)
        measurer = dict(
            name=outcome_name(number),
            of=voters,
            sha256=','.join(
                file_sha256(path.with_suffix('.boxes.npy')) for path in paths
            ),
        )
        write_outcomes(
            self.steps.reliability_dir,
            measurer,
            file,
            dataset.label_keys()[indices],
            table.boxes,
            corrected,
        )
        write_corrected(self._file(folder, file.source), table, corrected)
        counts = count_outcomes(corrected.outcome)
        print_log(
            f'{outcome_name(number)}, {file.source}: '
            + ', '.join(f'{count:,} {what}' for what, count in counts.items()),
            logger='current',
        )
        return counts

    @cached_property
    def _table(self) -> Any:
        """The labels, with the size of every image: an annotation file has them."""
        table = copy.copy(self.dataset.table)
        table.sizes = image_sizes(self.dataset)
        return table

    def _file(self, folder: Path, source: str) -> Path:
        return folder / f'{file_name(source)}.jsonl'

    def _config(self, number: int, folder: Path, used: Sequence[str]) -> Config:
        """Config of a training run on the corrected labels of some sources."""
        cfg = copy.deepcopy(self.cfg)
        files = {source: self._file(folder, source).resolve() for source in used}
        loader = cfg.train_dataloader
        loader.dataset = read_corrected(loader.dataset, files)
        length = None
        if self.settings.equal == 'steps':
            length = loader.sampler.get('epoch_length') or self._samples()
        cfg = with_selection(cfg, None, length)
        if self.settings.init == 'previous':
            first = self.measurers.run_of(next(iter(self.measurers.files)))
            before = first if number == 1 else round_name(number - 1)
            cfg.load_from = str(self.steps.checkpoint(str(before)))
        return cfg

    def _samples(self) -> int:
        """Samples of an epoch on all labels, none dropped."""
        sampler = self.cfg.train_dataloader.sampler
        if not is_grouped(sampler):
            return len(self.dataset)
        index = self.dataset.table.image_index
        return len(ImageGroups(index, None, sampler.get('max_expressions')))


def read_corrected(dataset: ConfigDict, files: Mapping[str, Path]) -> ConfigDict:
    """Config of a data set that reads corrected labels in the place of its own.

    Args:
        dataset (ConfigDict): Of a :obj:`RefExpDataset`.
        files (Mapping[str, Path]): Annotation file of each source.

    Returns:
        ConfigDict: A copy. What says how the files are read is gone, and so are
        held-out images, of which no label is left; names of images have their folders.
    """
    dataset = copy.deepcopy(dataset)
    for key in (
        *('split_file', 'ann_format', 'int_boxes', 'box_format', 'box_unit'),
        *('fields', 'instruction', 'held_out', 'on_leak'),
    ):
        dataset.pop(key, None)
    dataset.ann_file = [str(path) for path in files.values()]
    dataset.source = list(files)
    if isinstance(dataset.get('split'), Mapping):
        dataset.split = {source: dataset.split[source] for source in files}
    if isinstance((dataset.get('data_prefix') or {}).get('img'), Mapping):
        dataset.data_prefix.img = ''
    return dataset
