"""What the scores of a search are of: their unit, and what chance reaches."""

import logging
from functools import cached_property
from typing import Any

import numpy as np
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from projects.clip_vg_core.curriculum.chance import Chance, chance_of, iou_threshold
from projects.clip_vg_core.curriculum.correction import candidate_boxes

__all__ = ['REMEDY', 'Validation', 'image_sizes']

REMEDY = (
    'Give more labels, train longer (train_cfg.max_epochs), or make labels by a better '
    'detector.'
)


class Validation:
    """The labels that models of a search are compared on.

    Args:
        cfg (Config): Of the search; its validation counts.
        is_held_out (bool): Whether these are pseudo-labels of held-out images.
    """

    def __init__(self, cfg: Config, is_held_out: bool) -> None:
        self._options = cfg.val_dataloader.dataset
        self._is_held_out = is_held_out
        self.metric: str = cfg.default_hooks.checkpoint.save_best

    @cached_property
    def _dataset(self) -> BaseDataset:
        dataset = DATASETS.build(self._options)
        dataset.full_init()
        return dataset

    def fingerprint(self) -> str | None:
        """Fingerprint of the labels; None of held-out ones, which the sources' have."""
        known = not self._is_held_out and hasattr(self._dataset, 'fingerprint')
        return self._dataset.fingerprint() if known else None

    @cached_property
    def unit(self) -> str:
        """What a score is, e.g. 'accuracy at IoU 0.5 on 400 expressions of val'."""
        try:
            threshold = iou_threshold(self.metric)
        except ValueError:
            return self.metric
        if threshold is None:
            what = 'mean IoU'
        else:
            name = 'agreement' if self._is_held_out else 'accuracy'
            what = f'{name} at IoU {threshold:g}'
        count = f'{len(self._dataset):,}'
        if self._is_held_out:
            return f'{what} with {count} held-out pseudo-labels'
        splits = ', '.join(getattr(self._dataset, 'splits', None) or ['the validation'])
        return f'{what} on {count} expressions of {splits}'

    @cached_property
    def chance(self) -> Chance | None:
        """What predictions that have learnt nothing score; None: not known."""
        table = getattr(self._dataset, 'table', None)
        try:
            threshold = iou_threshold(self.metric)
        except ValueError:
            return None
        # Of several targets another metric is the measure.
        if table is None or table.offsets is not None:
            return None
        return chance_of(
            table.boxes,
            image_sizes(self._dataset)[table.image_index],
            table.image_index,
            *candidate_boxes(table.boxes, table.image_index),
            threshold,
        )

    def describe(self, score: float) -> str:
        """A score with its unit."""
        return f'{score:.4f} ({self.unit})'

    def warn_of_chance(self, name: str, score: float) -> bool:
        """Warn of a model that is no better than chance.

        Args:
            name (str): Of the model.
            score (float): Its best validation.

        Returns:
            bool: Whether it is no better.
        """
        if self.chance is None or score > self.chance.best:
            return False
        print_log(
            f'{name}: {self.describe(score)} is not above what needs no expression '
            f'({self.chance}): it has learnt nothing. {REMEDY}',
            logger='current',
            level=logging.WARNING,
        )
        return True

    def described(self) -> dict[str, Any]:
        """Unit and chance, for the record."""
        described: dict[str, Any] = dict(unit=self.unit)
        if self.chance is not None:
            described['constant_box'] = self.chance.constant
            described['random_candidate'] = self.chance.candidate
        return described


def image_sizes(dataset: BaseDataset) -> np.ndarray:
    """Heights and widths of the images of a data set.

    Args:
        dataset (BaseDataset): A :obj:`RefExpDataset`.

    Returns:
        np.ndarray: int32 (M, 2), from the images where the labels do not say them; -1
        where there is no such image.
    """
    table = dataset.table
    sizes = table.sizes.copy()
    unknown = np.flatnonzero((sizes < 0).any(1))
    if len(unknown):
        read_sizes = dataset.image_roots.size_reader(dataset.upright)
        sizes[unknown] = read_sizes([table.images[i] for i in unknown])
    return sizes
