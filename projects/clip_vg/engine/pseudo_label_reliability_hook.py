"""The curriculum within one training run: score, move the threshold, select."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from mmdet.registry import HOOKS
from mmengine.dataset import BaseDataset
from mmengine.dist import is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from projects.clip_vg_core.curriculum.corrected_files import (
    count_outcomes,
    write_outcomes,
)
from projects.clip_vg_core.curriculum.correction import (
    DROPPED,
    Correction,
    candidate_boxes,
    correct_labels,
    votes_of,
)
from projects.clip_vg_core.curriculum.reliability_file import ReliabilityFile
from projects.clip_vg_core.curriculum.selection import (
    VALLEYS,
    select_reliable,
    threshold_at,
    update_mean,
)

from ..datasets.samplers import CurriculumSampler, is_grouped
from .exact_resume_hook import train_batch_size, train_sampler
from .scoring import evaluation_view, score_all

__all__ = ['PseudoLabelReliabilityHook', 'SourceSelection', 'select_by_source']

Threshold = float | str | Mapping[str, Any]


@dataclass(frozen=True)
class SourceSelection:
    """What is selected of a source.

    Args:
        name (str): Of the source.
        labels (np.ndarray): int64 (K, ), indices of the selected labels.
        count (int): How many labels the source has.
        threshold (float): Reliability above which labels are selected.
        exceeding (int): How many labels exceed it; where that is too few, the best
            of the others are selected too.
        mean (float): Mean reliability of the source's labels.
        histogram (np.ndarray): int64 (10, ), their number in each tenth of [0, 1].
    """

    name: str
    labels: np.ndarray
    count: int
    threshold: float
    exceeding: int
    mean: float
    histogram: np.ndarray

    def scalars(self) -> dict[str, float]:
        """Values for the log."""
        prefix = f'curriculum/{self.name}'
        return {
            f'{prefix}/threshold': self.threshold,
            f'{prefix}/kept_share': len(self.labels) / self.count,
            f'{prefix}/mean': self.mean,
            **{
                f'{prefix}/histogram/{i}': float(n)
                for i, n in enumerate(self.histogram)
            },
        }


def select_by_source(
    reliability: np.ndarray,
    sources: np.ndarray,
    names: Sequence[str],
    threshold: Threshold,
    progress: float = 0.0,
    min_share: float = 0.0,
    is_selected: np.ndarray | None = None,
) -> list[SourceSelection]:
    """Select reliable labels, source by source.

    Args:
        reliability (np.ndarray): In [0, 1], of shape (N, ); NaN where not scored.
        sources (np.ndarray): Of each label, an index into ``names``, of shape (N, ).
        names (Sequence[str]): Names of the sources; one without labels is left out.
        threshold (float, str or Mapping): As of :obj:`PseudoLabelReliabilityHook`.
        progress (float): In [0, 1], for a threshold that moves. Defaults to 0.
        min_share (float): Least share of a source to select. Defaults to 0; at least
            one label of each source is selected.
        is_selected (np.ndarray, optional): bool (N, ), what a correction has left.
            Defaults to None: the threshold decides.

    Returns:
        list[SourceSelection]: One for each source that has labels.
    """
    selections = []
    for code, name in enumerate(names):
        labels = np.flatnonzero(sources == code)
        if not len(labels):
            continue
        values = reliability[labels]
        if is_selected is None:
            limit = _threshold(threshold, values, progress)
            selected = select_reliable(values, limit)
        else:
            limit, selected = float('nan'), np.flatnonzero(is_selected[labels])
        least = max(1, int(min_share * len(labels)))
        exceeding = len(selected)
        if exceeding < least:
            # The best ones; of equal scores the first, on every rank alike.
            ranks = np.nan_to_num(values, nan=-1)
            ranks[selected] += 2  # what is selected stays
            selected = np.argsort(-ranks, kind='stable')[:least]
        selections.append(
            SourceSelection(
                name,
                labels[selected],
                len(labels),
                limit,
                exceeding,
                float(np.nanmean(values)),
                np.histogram(values, 10, (0.0, 1.0))[0],
            )
        )
    return selections


def _threshold(threshold: Threshold, values: np.ndarray, progress: float) -> float:
    if isinstance(threshold, str):
        return VALLEYS[threshold](values).threshold
    if isinstance(threshold, Mapping):
        return threshold_at(progress, **threshold)
    return float(threshold)


def _read_prior(
    dataset: BaseDataset, paths: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N, ) and predicted boxes (N, 4) of all labels, a file for each source."""
    table = dataset.table
    values = np.full(len(table), np.nan, np.float32)
    boxes = np.full((len(table), 4), np.nan, np.float32)
    for path in paths:
        read = dataset.read_reliability(path)
        predicted = dataset.read_predicted_boxes(path)
        values = np.where(np.isnan(read), values, read)
        boxes = np.where(np.isnan(predicted), boxes, predicted)
    scored = set(table.sources[~np.isnan(values)].tolist())
    missing = [
        table.source_names[code]
        for code in sorted(set(table.sources.tolist()) - scored)
    ]
    if missing:
        raise ValueError(
            f'prior={list(paths)} scores nothing of the labels of {missing}: give a '
            'file for each source.'
        )
    return values, boxes


@HOOKS.register_module()
class PseudoLabelReliabilityHook(Hook):
    """Score all labels every few epochs and train on the reliable ones.

    The reliability of a label is the IoU of the model's prediction with the label's
    box. Labels of every source of the data set are scored, with the averaged (EMA)
    model where there is one, and a threshold selects what a
    :obj:`CurriculumSampler` draws from in the next epochs. Works with any detector
    that predicts boxes for a text.

    Args:
        begin (int): Epochs of warm-up on all labels before the first scoring.
            Defaults to 1.
        interval (int): Epochs between two scorings. Defaults to 1.
        end (int, optional): No scoring after this many epochs. Defaults to None:
            up to the last but one.
        threshold (float, str or dict): One for all; 'otsu' or 'mixture', the valley
            of each source's histogram; or ``dict(start=0.7, end=0.5,
            shape='linear')``, from easy to hard between the first and the last
            scoring. Defaults to 0.5.
        running_mean (bool): Whether a label's reliability is the mean over all
            snapshots so far, or that of the last one. Defaults to True.
        prior (Sequence[str], optional): Reliability files, one for each source, by
            which labels are selected before the first epoch; with ``running_mean``
            they count as the first snapshot. Defaults to None: begins on all labels.
        use_ema (bool): Whether to score with the model of the ``EMAHook``, where
            there is one. Defaults to True.
        min_share (float): Least share of a source to select; the threshold is lowered
            until that many exceed it, with a warning. Defaults to 0.1.
        pipeline (list, optional): Test transforms. Defaults to None: those of the
            validation.
        grouped (bool, optional): Whether the model gets all expressions of an image
            at once. Defaults to None: as in the validation.
        batch_size (int): Images, or labels where not grouped. Defaults to 64.
        num_workers (int): Processes that load images. Defaults to 0.
        out_dir (str, optional): Folder for reliability files
            ``<name>__<source>.npy`` of the last scores. Defaults to None.
        name (str): Of the measurer in these files. Defaults to 'online'.
        correct (bool): Whether a scoring corrects labels in the place of a selection
            by ``threshold``: the model and ``prior`` vote, and labels that both move
            to the same other box of the image are trained on with that box until the
            next scoring. Their outcomes are written as
            ``<name>_correction__<source>.npy``. Defaults to False.

    Raises:
        ValueError: The sampler is no :obj:`CurriculumSampler`, an argument is
            unknown, ``prior`` leaves out a source, or there is none to correct with.
    """

    priority = 'NORMAL'

    def __init__(
        self,
        begin: int = 1,
        interval: int = 1,
        end: int | None = None,
        threshold: Threshold = 0.5,
        running_mean: bool = True,
        prior: Sequence[str] | None = None,
        use_ema: bool = True,
        min_share: float = 0.1,
        pipeline: Sequence[Any] | None = None,
        grouped: bool | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        out_dir: str | None = None,
        name: str = 'online',
        correct: bool = False,
    ) -> None:
        if correct and not prior:
            raise ValueError(
                f'correct=True, prior={prior}: two measurers must vote on a label; '
                'expected `prior`, reliability files of a second one, such as '
                'tools/score_reliability.py --agreement makes.'
            )
        if begin < 1 or interval < 1:
            raise ValueError(
                f'begin={begin}, interval={interval}: expected epochs, at least 1.'
            )
        if isinstance(threshold, str) and threshold not in VALLEYS:
            raise ValueError(
                f'threshold={threshold!r}; expected a number, {sorted(VALLEYS)} or '
                'dict(start=, end=, shape=).'
            )
        if isinstance(threshold, Mapping):
            threshold_at(0.0, **threshold)
        self.begin = begin
        self.interval = interval
        self.end = end
        self.threshold = threshold
        self.running_mean = running_mean
        self.prior = prior
        self.use_ema = use_ema
        self.min_share = min_share
        self.pipeline = pipeline
        self.grouped = grouped
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.out_dir = out_dir
        self.name = name
        self.correct = correct
        self.correction: Correction | None = None
        self.mean: np.ndarray | None = None
        self.count = 0
        self.labels_scored = 0
        self._stores: list[ReliabilityFile] = []

    def before_train(self, runner: Runner) -> None:
        """Check the sampler, find the test transforms, select by the prior."""
        sampler = train_sampler(runner)
        if not isinstance(sampler, CurriculumSampler):
            raise ValueError(
                f'PseudoLabelReliabilityHook needs train_dataloader.sampler='
                f"dict(type='CurriculumSampler'), found {type(sampler).__name__}."
            )
        self._choose_transforms(runner)
        self.view = evaluation_view(sampler.dataset, self.pipeline or ())
        if self.prior and (self.correct or runner.epoch == 0):
            self._prior, self._prior_boxes = _read_prior(self.view, self.prior)
        if self.correct:
            self._check_targets()
            if self.correction is not None:  # of the checkpoint
                self._move_labels(runner)
        if self.prior and runner.epoch == 0:
            self.mean, self.count = self._prior, 1
            self._select(runner, 0, 0.0)
        if self.out_dir and is_main_process():
            # Now, not after hours: files of another measurer are an error.
            measurer = dict(name=self.name, config=runner.cfg.filename)
            self._stores = [
                ReliabilityFile(self.out_dir, measurer, file)
                for file in self.view.label_files
            ]

    def _choose_transforms(self, runner: Runner) -> None:
        """Take what is not given from the validation."""
        if self.pipeline is None or self.grouped is None:
            if runner.val_loop is None:
                raise ValueError(
                    'PseudoLabelReliabilityHook takes its transforms from the '
                    'validation, and there is none: give `pipeline` and `grouped`.'
                )
            loader = runner.val_loop.dataloader
            if self.pipeline is None:
                self.pipeline = loader.dataset.pipeline.transforms
            if self.grouped is None:
                self.grouped = is_grouped(loader.sampler)

    def _check_targets(self) -> None:
        if self.view.table.offsets is not None:
            raise ValueError(
                "correct=True moves the one box of a label, and targets='any' gives "
                "labels several: expected targets='one'."
            )

    def scorings(self, max_epochs: int) -> range:
        """Numbers of finished epochs after which labels are scored.

        Args:
            max_epochs (int): Of the training run; nothing is selected after the last.
        """
        last = max_epochs - 1 if self.end is None else min(self.end, max_epochs - 1)
        return range(self.begin, last + 1, self.interval)

    def after_train_epoch(self, runner: Runner) -> None:
        """Score and select, where it is due."""
        scorings = self.scorings(runner.max_epochs)
        epoch = runner.epoch + 1
        if epoch not in scorings:
            return
        started = time.monotonic()
        values = self.score(self._measurer(runner))
        count = self.count if self.running_mean else 0
        self.mean = update_mean(self.mean, count, values)
        self.count += 1
        progress = scorings.index(epoch) / max(1, len(scorings) - 1)
        if self.correct:
            self.correction = self._correct(self._predicted)
            self._move_labels(runner)
        scalars = self._select(runner, epoch, progress)
        scalars['curriculum/seconds'] = time.monotonic() - started
        runner.visualizer.add_scalars(scalars, step=epoch)
        self._write(self.mean)

    def score(self, model: nn.Module) -> np.ndarray:
        """Reliability of all labels under a model, float32 (N, ).

        Args:
            model (nn.Module): Has ``test_step``.
        """
        values, self._predicted = score_all(
            model, self.view, self.batch_size, bool(self.grouped), self.num_workers
        )
        self.labels_scored += len(values)
        return values

    def _correct(self, predicted: np.ndarray) -> Correction:
        """Correction of the original labels by the model and the prior.

        The same on every rank, as the predictions are.
        """
        table = self.view.table
        candidates, candidate_index = candidate_boxes(table.boxes, table.image_index)
        return correct_labels(
            table.boxes,
            [predicted, votes_of(self._prior_boxes, self._prior, table.boxes)],
            candidates,
            table.image_index,
            candidate_index,
        )

    def _move_labels(self, runner: Runner) -> None:
        """Train on the corrected boxes from the next epoch on."""
        assert self.correction is not None
        loader = runner.train_loop.dataloader
        # The view keeps the original labels, which are scored again.
        loader.dataset.data_list = replace(self.view.table, boxes=self.correction.boxes)
        # Workers that persist have a copy of the labels: they must start anew, as
        # those of MMDetection's PipelineSwitchHook.
        if loader.persistent_workers:
            loader._DataLoader__initialized = False
            loader._iterator = None

    def _measurer(self, runner: Runner) -> nn.Module:
        for hook in runner.hooks:
            # Before its first epoch, the averaged model is a copy of the other.
            if self.use_ema and isinstance(hook, EMAHook):
                return hook.ema_model.module
        model = runner.model
        return model.module if is_model_wrapper(model) else model

    def _select(self, runner: Runner, epoch: int, progress: float) -> dict[str, float]:
        """Have the sampler draw from reliable labels; returns what to log."""
        assert self.mean is not None
        table = self.view.table
        selections = select_by_source(
            self.mean,
            table.sources,
            table.source_names,
            self.threshold,
            progress,
            self.min_share,
            None if self.correction is None else self.correction.outcome != DROPPED,
        )
        scalars: dict[str, float] = {}
        for one in selections:
            scalars.update(one.scalars())
            how = f'reliability > {one.threshold:.3f}'
            if self.correction is not None:
                of_source = table.sources == table.source_names.index(one.name)
                counts = count_outcomes(self.correction.outcome[of_source])
                how = ', '.join(f'{count:,} {what}' for what, count in counts.items())
                # No threshold decides.
                scalars.pop(f'curriculum/{one.name}/threshold')
                for what, count in counts.items():
                    scalars[f'curriculum/{one.name}/{what}'] = count
            if one.exceeding < len(one.labels):
                runner.logger.warning(
                    f'{one.name}: only {one.exceeding:,} of {one.count:,} labels are '
                    f'selected ({how}); the best {len(one.labels):,} are taken.'
                )
            runner.logger.info(
                f'{one.name}: {len(one.labels):,} of {one.count:,} labels selected, '
                f'{how}; histogram in tenths {" ".join(map(str, one.histogram))}'
            )
        sampler = train_sampler(runner)
        sampler.described = f'PseudoLabelReliabilityHook after epoch {epoch}'
        sampler.require(train_batch_size(runner))
        sampler.set_selection(np.concatenate([one.labels for one in selections]))
        return scalars

    def _write(self, values: np.ndarray) -> None:
        if not self._stores:
            return
        keys = self.view.label_keys()
        for file, store in zip(self.view.label_files, self._stores, strict=True):
            indices = self.view.indices_of(file)
            store.write(keys[indices], values[indices])
            store.flush()
            if self.correction is not None and self.out_dir:
                own = Correction(
                    self.correction.boxes[indices], self.correction.outcome[indices]
                )
                write_outcomes(
                    self.out_dir,
                    dict(name=f'{self.name}_correction'),
                    file,
                    keys[indices],
                    self.view.table.boxes[indices],
                    own,
                )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Store the scores and the selection."""
        sampler = train_sampler(runner).state_dict()
        state = dict(mean=self.mean, count=self.count, sampler=sampler)
        if self.correction is not None:
            state['correction'] = asdict(self.correction)
        checkpoint['reliability'] = state

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Restore scores and selection when the training run is resumed."""
        if 'reliability' not in checkpoint or not runner._resume:
            return
        sampler = train_sampler(runner)
        state = checkpoint['reliability']
        if state['mean'] is not None and len(state['mean']) != len(sampler.dataset):
            raise ValueError(
                f'The checkpoint has the reliability of {len(state["mean"]):,} '
                f'labels, the data set has {len(sampler.dataset):,} labels: resume '
                'with the data it was trained on.'
            )
        self.mean, self.count = state['mean'], state['count']
        if state.get('correction') is not None:
            # Boxes are moved when the view of the original labels is there.
            self.correction = Correction(**state['correction'])
        # Checkpoints of version 0.1 have the selection beside.
        sampler.load_state_dict(state.get('sampler') or checkpoint['sampler'])
