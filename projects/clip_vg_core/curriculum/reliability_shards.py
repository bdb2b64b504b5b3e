"""A reliability file whose labels several processes or machines score, a shard each."""

import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..data.label_files import LabelFile
from ..utils.atomic import replacing
from ..utils.folder_lock import lock_folder
from ..utils.shards import Shard, Shards
from .reliability_file import (
    ReliabilityFile,
    describe_scores,
    read_boxes,
    read_keys,
    read_reliability,
    read_scored,
    reliability_path,
    write_scores,
)

__all__ = ['ReliabilityShards']


class ReliabilityShards:
    """Shards of a reliability file, each one a reliability file of its labels.

    They are in ``<measurer>__<source>.npy.shards`` until the last one is finished.

    Args:
        folder (str or Path): Of the whole file.
        measurer (dict): As of :class:`ReliabilityFile`.
        labels (LabelFile): All labels.
        transforms (list, optional): Of the test pipeline. Defaults to None.
        batches (Mapping): What decides the batches, as JSON.
        overwrite (bool): Whether scores of another measurer, and shards of other
            labels, are replaced. Defaults to False.
    """

    def __init__(
        self,
        folder: str | Path,
        measurer: Mapping[str, Any],
        labels: LabelFile,
        transforms: list | None,
        batches: Mapping[str, Any],
        overwrite: bool = False,
    ) -> None:
        self.path = reliability_path(folder, measurer['name'], labels.source)
        self._measurer, self._labels = measurer, labels
        self._transforms, self._overwrite = transforms, overwrite
        self._manifest = describe_scores(measurer, labels, transforms)
        self._shards = Shards(self.path)
        # Machines may have the checkpoint in different folders; its sha256 counts.
        told = {
            k: v for k, v in self._manifest['measurer'].items() if k != 'checkpoint'
        }
        self._settings = dict(
            self._manifest,
            measurer=told,
            labels_sha256=hashlib.sha256(labels.content.tobytes()).hexdigest(),
            batches=dict(batches),
        )

    def score(
        self,
        shard: Shard,
        labels: LabelFile,
        rows: np.ndarray,
        count: int,
        score: Callable[[np.ndarray, ReliabilityFile], None],
    ) -> None:
        """Score a shard, or resume it; whoever finishes the last puts all together.

        Args:
            shard (tuple[int, int]): Its number, from 1, and that of all shards.
            labels (LabelFile): Its n labels.
            rows (np.ndarray): int64 (n, ), their rows in the whole file.
            count (int): Labels of all shards.
            score (Callable): Given the keys of its labels and a file of them, scores
                those that are not scored yet.

        Raises:
            RuntimeError: Another process scores this shard.
            ValueError: There are shards, or a whole file, of something else.
        """
        number, total = shard
        known = read_scored(self.path, self._manifest, labels, self._overwrite)
        is_known = ~np.isnan(known[0])
        if not self._shards.has_begun() and is_known.all() and self._has(count):
            return
        self._shards.begin(self._settings, total, self._overwrite)
        folder = self._shards.part(number)
        if not self._shards.is_finished(number):
            with lock_folder(folder, every_process=True):
                store = ReliabilityFile(
                    *(folder, self._measurer, labels, self._transforms),
                    overwrite=self._overwrite,
                )
                keys = labels.keys
                store.write(keys[is_known], *(values[is_known] for values in known))
                score(keys, store)
                store.flush()
                with replacing(folder / 'rows.npy') as partial:
                    np.save(partial, rows)
                self._shards.finish(number)
        self._put_together()

    def _has(self, count: int) -> bool:
        """Whether the whole file has so many scores."""
        if not self.path.exists():
            return count == 0
        return int((~np.isnan(read_reliability(self.path))).sum()) >= count

    def _put_together(self) -> None:
        with self._shards.lock():
            # None: another process was faster.
            if self._shards.settings() is None or not self._shards.are_finished():
                return
            count = self._labels.count
            values = np.full(count, np.nan, np.float32)
            boxes = np.full((count, 4), np.nan, np.float32)
            keys, is_in_shard = np.zeros(count, np.uint64), np.zeros(count, bool)
            for number in range(1, self._shards.total() + 1):
                folder = self._shards.part(number)
                rows = np.load(folder / 'rows.npy', allow_pickle=False)
                path = self._part_path(folder)
                values[rows], boxes[rows] = read_reliability(path), read_boxes(path)
                keys[rows], is_in_shard[rows] = read_keys(path), True
            # Labels that the data set drops are scored by none.
            rows = np.flatnonzero(~is_in_shard)
            keys[rows] = self._labels.part(rows, '').keys
            write_scores(self.path, self._manifest, keys, values, boxes)
            self._shards.remove()

    def _part_path(self, folder: Path) -> Path:
        return reliability_path(folder, self._measurer['name'], self._labels.source)

    def take_over(self, store: ReliabilityFile) -> None:
        """Let one process score the rest: store what shards know, and remove them.

        Args:
            store (ReliabilityFile): The whole file.

        Raises:
            RuntimeError: Another process scores a shard.
            ValueError: The shards are of something else.
        """
        if not self._shards.has_begun():
            return
        if self._shards.resume(self._settings, self._overwrite):
            for part in self._shards.parts():
                with lock_folder(part, every_process=True):
                    path = self._part_path(part)
                    if path.exists():
                        store.take_over(path)
                        store.flush()
                    shutil.rmtree(part)
            with self._shards.lock():
                self._shards.remove()
