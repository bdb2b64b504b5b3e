"""The curriculum within one training: score the labels, move the threshold, select."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from projects.clip_vg_core.curriculum.reliability_file import LabelFile, ReliabilityFile
from projects.clip_vg_core.curriculum.schedule import threshold_at
from projects.clip_vg_core.curriculum.selection import (
    VALLEYS,
    select_reliable,
    update_mean,
)

from ..datasets.samplers.curriculum_sampler import CurriculumSampler
from ..datasets.samplers.image_group_sampler import ImageGroupSampler
from .exact_resume_hook import train_batch_size, train_sampler
from .scoring import evaluation_view, score_all

__all__ = ['PseudoLabelReliabilityHook']


@HOOKS.register_module()
class PseudoLabelReliabilityHook(Hook):
    """Every few epochs, score all labels and train on those that pass.

    The reliability of a label is the IoU of the model's answer with the label's
    box. Labels of every source of the data set are scored, with the averaged (EMA)
    model where there is one, and a threshold selects what a
    :obj:`CurriculumSampler` draws from in the next epochs. Works with any detector
    that answers a text with boxes.

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
            which labels are selected before the training; with ``running_mean``
            they count as the first snapshot. Defaults to None: begins on all labels.
        use_ema (bool): Whether to score with the model of the ``EMAHook``, where
            there is one. Defaults to True.
        min_share (float): Least share of a source to keep; the threshold is lowered
            until that many pass, with a warning. Defaults to 0.1.
        pipeline (list, optional): Test transforms. Defaults to None: those of the
            validation.
        grouped (bool, optional): Whether an image's expressions are asked at once.
            Defaults to None: as the validation does.
        batch_size (int): Images, or labels where not grouped. Defaults to 64.
        num_workers (int): Processes that load images. Defaults to 0.
        out_dir (str, optional): Folder for reliability files
            ``<name>__<source>.npy`` of what was scored last. Defaults to None.
        name (str): Of the measurer in these files. Defaults to 'online'.

    Raises:
        ValueError: The sampler is no :obj:`CurriculumSampler`, an argument is
            unknown, or ``prior`` leaves out a source.
    """

    priority = 'NORMAL'

    def __init__(
        self,
        begin: int = 1,
        interval: int = 1,
        end: int | None = None,
        threshold: float | str | Mapping[str, Any] = 0.5,
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
    ) -> None:
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
        self.begin, self.interval, self.end = begin, interval, end
        self.threshold = threshold
        self.running_mean, self.use_ema, self.min_share = (
            running_mean,
            use_ema,
            min_share,
        )
        self.pipeline, self.grouped = pipeline, grouped
        self.batch_size, self.num_workers = batch_size, num_workers
        self.out_dir, self.name = out_dir, name
        self.prior = prior
        self.mean: np.ndarray | None = None
        self.count = 0
        self.labels_scored = 0
        self._stores: list[tuple[LabelFile, ReliabilityFile]] = []

    def before_train(self, runner: Runner) -> None:
        """Check the sampler and find the test transforms."""
        sampler = train_sampler(runner)
        if not isinstance(sampler, CurriculumSampler):
            raise ValueError(
                f'PseudoLabelReliabilityHook needs train_dataloader.sampler='
                f"dict(type='CurriculumSampler'), found {type(sampler).__name__}."
            )
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
                self.grouped = isinstance(loader.sampler, ImageGroupSampler)
        self.view = evaluation_view(sampler.dataset, self.pipeline)
        if self.prior and runner.epoch == 0:
            self.mean, self.count = self._read_prior(), 1
            self._choose(runner, 0, 0.0)
        if self.out_dir and is_main_process():
            # Now, not after hours: files of another measurer are an error.
            measurer = dict(name=self.name, config=runner.cfg.filename)
            self._stores = [
                (file, ReliabilityFile(self.out_dir, measurer, file))
                for file in self.view.label_files
            ]

    def _read_prior(self) -> np.ndarray:
        """What is known of all labels before the training."""
        table = self.view.table
        values = np.full(len(table), np.nan, np.float32)
        for path in self.prior or ():
            read = self.view.read_reliability(path)
            values = np.where(np.isnan(read), values, read)
        scored = set(table.sources[~np.isnan(values)].tolist())
        missing = [
            table.source_names[code]
            for code in sorted(set(table.sources.tolist()) - scored)
        ]
        if missing:
            raise ValueError(
                f'prior={list(self.prior or ())} says nothing of the labels of '
                f'{missing}: give a file for each source.'
            )
        return values

    def _choose(self, runner: Runner, epoch: int, progress: float) -> dict[str, float]:
        """Have the sampler draw from what passes; returns what to log."""
        selection, scalars = self._select(runner, progress)
        sampler = train_sampler(runner)
        sampler.described = f'PseudoLabelReliabilityHook after epoch {epoch}'
        sampler.require(train_batch_size(runner))
        sampler.set_selection(selection)
        return scalars

    def scorings(self, max_epochs: int) -> range:
        """After which epochs labels are scored.

        Args:
            max_epochs (int): Of the training; nothing is selected after the last.

        Returns:
            range: Numbers of finished epochs.
        """
        last = max_epochs - 1 if self.end is None else min(self.end, max_epochs - 1)
        return range(self.begin, last + 1, self.interval)

    def after_train_epoch(self, runner: Runner) -> None:
        """Score and select, where it is time."""
        scorings = self.scorings(runner.max_epochs)
        epoch = runner.epoch + 1
        if epoch not in scorings:
            return
        started = time.monotonic()
        values = self.score(self._measurer(runner))
        self.mean = update_mean(
            self.mean, self.count if self.running_mean else 0, values
        )
        self.count += 1
        progress = scorings.index(epoch) / max(1, len(scorings) - 1)
        scalars = self._choose(runner, epoch, progress)
        scalars['curriculum/seconds'] = time.monotonic() - started
        runner.visualizer.add_scalars(scalars, step=epoch)
        self._write()

    def score(self, model: nn.Module) -> np.ndarray:
        """Reliability of all labels under a model.

        Args:
            model (nn.Module): Has ``test_step``.

        Returns:
            np.ndarray: float32 (N, ).
        """
        values, _ = score_all(
            model, self.view, self.batch_size, bool(self.grouped), self.num_workers
        )
        self.labels_scored += len(values)
        return values

    def _measurer(self, runner: Runner) -> nn.Module:
        for hook in runner.hooks:
            # Before its first epoch, the averaged model is a copy of the other.
            if self.use_ema and isinstance(hook, EMAHook):
                return hook.ema_model.module
        model = runner.model
        return model.module if is_model_wrapper(model) else model

    def _threshold(self, values: np.ndarray, progress: float) -> float:
        if isinstance(self.threshold, str):
            return VALLEYS[self.threshold](values).threshold
        if isinstance(self.threshold, Mapping):
            return threshold_at(progress, **self.threshold)
        return float(self.threshold)

    def _select(
        self, runner: Runner, progress: float
    ) -> tuple[np.ndarray, dict[str, float]]:
        assert self.mean is not None
        table = self.view.table
        selected, scalars = [], {}
        for code, name in enumerate(table.source_names):
            labels = np.flatnonzero(table.sources == code)
            if not len(labels):
                continue
            values = self.mean[labels]
            threshold = self._threshold(values, progress)
            kept = select_reliable(values, threshold)
            least = max(1, int(self.min_share * len(labels)))
            if len(kept) < least:
                runner.logger.warning(
                    f'{name}: only {len(kept):,} of {len(labels):,} labels have a '
                    f'reliability above {threshold:.3f}; the best {least:,} are kept.'
                )
                kept = np.argsort(-np.nan_to_num(values, nan=-1), kind='stable')[:least]
            selected.append(labels[kept])
            scalars[f'curriculum/{name}/threshold'] = threshold
            scalars[f'curriculum/{name}/kept_share'] = len(kept) / len(labels)
            scalars[f'curriculum/{name}/mean'] = float(np.nanmean(values))
            histogram = np.histogram(values, 10, (0.0, 1.0))[0]
            for tenth, number in enumerate(histogram):
                scalars[f'curriculum/{name}/histogram/{tenth}'] = float(number)
            runner.logger.info(
                f'{name}: {len(kept):,} of {len(labels):,} labels kept, reliability > '
                f'{threshold:.3f}; histogram in tenths '
                f'{" ".join(map(str, histogram))}'
            )
        return np.concatenate(selected), scalars

    def _write(self) -> None:
        assert self.mean is not None
        for file, store in self._stores:
            indices, places = self.view.places(file)
            store.write(places, self.mean[indices])
            store.flush()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put what is known of the labels, and what is selected, into it."""
        sampler = train_sampler(runner).state_dict()
        checkpoint['reliability'] = dict(
            mean=self.mean, count=self.count, sampler=sampler
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Take it back when the training is resumed."""
        if 'reliability' not in checkpoint or not runner._resume:
            return
        sampler = train_sampler(runner)
        state = checkpoint['reliability']
        if state['mean'] is not None and len(state['mean']) != len(sampler.dataset):
            raise ValueError(
                f'The checkpoint knows the reliability of {len(state["mean"]):,} '
                f'labels, the data set has {len(sampler.dataset):,}: resume with the '
                'data it was trained on.'
            )
        self.mean, self.count = state['mean'], state['count']
        # Earlier versions wrote the selection beside.
        sampler.load_state_dict(state.get('sampler') or checkpoint['sampler'])
