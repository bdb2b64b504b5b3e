"""How often measurers predict the labels of each source, beside chance."""

import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from projects.clip_vg_core.curriculum.chance import Agreement, measure_agreement
from projects.clip_vg_core.curriculum.correction import candidate_boxes
from projects.clip_vg_core.curriculum.reliability_file import reliability_path

from .validation import REMEDY, image_sizes

__all__ = ['Agreements']


class Agreements:
    """Agreement of measurers with the labels of sources.

    Args:
        dataset (BaseDataset): The labels, a :obj:`RefExpDataset`.
        folder (Path): Of the reliability files.
    """

    def __init__(self, dataset: BaseDataset, folder: Path) -> None:
        self._dataset, self._folder = dataset, folder
        self.measured: dict[tuple[str, str], Agreement] = {}

    @cached_property
    def candidates(self) -> tuple[np.ndarray, np.ndarray]:
        """Distinct boxes of the labels of all sources, (M, 4), and their image."""
        table = self._dataset.table
        return candidate_boxes(table.boxes, table.image_index[table.box_owners()])

    def measure(self, measurer: str, source: str) -> Agreement:
        """Agreement at IoU 0.5 of a measurer with the labels of a source, taken once.

        Labels with no target or several have no one box to agree with, and are left
        out.

        Args:
            measurer (str): Name in the reliability files.
            source (str): Name of the source.

        Returns:
            Agreement: Also in the log and in ``measured``.
        """
        if (measurer, source) in self.measured:
            return self.measured[measurer, source]
        table = self._dataset.table
        single = np.flatnonzero(table.target_counts() == 1)
        firsts = single if table.offsets is None else table.offsets[single]
        path = reliability_path(self._folder, measurer, source)
        found = self.measured[measurer, source] = measure_agreement(
            self._dataset.read_predicted_boxes(path)[single],
            table.boxes[firsts],
            self._sizes[single],
            table.image_index[single],
            *self.candidates,
        )
        text = (
            f'{measurer}: {found.rate:.4f} (agreement at IoU 0.5 with {found.count:,} '
            f'pseudo-labels of {source}; {found.chance})'
        )
        # A file may score labels without predicting boxes.
        if found.count:
            print_log(text, logger='current')
        if found.count and found.rate <= found.chance.best:
            print_log(
                f'{text} is not above what needs no expression: it does not know the '
                f'language of {source}. {REMEDY}',
                logger='current',
                level=logging.WARNING,
            )
        return found

    @cached_property
    def _sizes(self) -> np.ndarray:
        return image_sizes(self._dataset)[self._dataset.table.image_index]

    def described(self) -> list[dict[str, Any]]:
        """What was measured, for the record."""
        return [
            dict(
                measurer=measurer,
                source=source,
                agreement=one.rate,
                labels=one.count,
                constant_box=one.chance.constant,
                random_candidate=one.chance.candidate,
            )
            for (measurer, source), one in self.measured.items()
        ]
