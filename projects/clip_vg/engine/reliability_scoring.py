"""Score every source of a data set into reliability files; continue where it was."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.dist import barrier, broadcast, is_main_process
from torch import from_numpy, nn
from tqdm import tqdm

from projects.clip_vg_core.curriculum.reliability_file import (
    LabelFile,
    ReliabilityFile,
    read_reliability,
    reliability_path,
)

from .scoring import Judge, judge_answers, plan_batches, score_labels

__all__ = ['choose_sources', 'score_sources']


def choose_sources(
    dataset: BaseDataset, names: Sequence[str] | None
) -> list[LabelFile]:
    """The annotation files of a data set that go by these names.

    Args:
        dataset (BaseDataset): A :obj:`RefExpDataset`.
        names (Sequence[str], optional): Names of sources; None: all.

    Returns:
        list[LabelFile]: In the data set's order.

    Raises:
        ValueError: A name is unknown.
    """
    dataset.full_init()
    known = [file.source for file in dataset.label_files]
    unknown = sorted(set(names or ()) - set(known))
    if unknown:
        raise ValueError(f'No source {unknown} in the data set; it has {known}.')
    return [file for file in dataset.label_files if not names or file.source in names]


def score_sources(
    model: nn.Module,
    dataset: BaseDataset,
    files: Sequence[LabelFile],
    folder: str | Path,
    measurer: dict[str, Any],
    transforms: list,
    grouped: bool = True,
    batch_size: int = 16,
    num_workers: int = 0,
    judge: Judge = judge_answers,
    overwrite: bool = False,
) -> list[Path]:
    """Write ``<measurer>__<source>.npy`` for each source.

    What is scored already stays. Batches do not depend on it, so that an interrupted
    scoring ends with the same bytes as one that was not. With several processes the
    first one writes.

    Args:
        model (nn.Module): The measurer.
        dataset (BaseDataset): The labels through the test transforms.
        files (Sequence[LabelFile]): Of the data set.
        folder (str or Path): Where to.
        measurer (dict): Its ``name``, ``sha256``, ``config``, ... for the manifest.
        transforms (list): Configs of the test transforms, for the manifest.
        grouped (bool): Whether an image's expressions are asked at once. Defaults to
            True.
        batch_size (int): Images, or labels where not grouped. Defaults to 16.
        num_workers (int): Processes that load images. Defaults to 0.
        judge (Callable): How the measurer is asked. Defaults to
            :func:`judge_answers`, for detectors.
        overwrite (bool): Whether files of another measurer of this name are replaced.
            Defaults to False.

    Returns:
        list[Path]: The files, one for each source.

    Raises:
        ValueError: A file of the same name is of another measurer.
    """
    paths = []
    for file in files:
        store = None
        if is_main_process():
            store = ReliabilityFile(folder, measurer, file, transforms, overwrite)
        path = reliability_path(folder, measurer['name'], file.source)
        paths.append(path)
        indices, places = dataset.places(file)
        scored = _known_everywhere(path, places)
        place_of = np.full(len(dataset), -1)
        place_of[indices] = places
        is_done = np.zeros(len(dataset), bool)
        is_done[indices] = scored
        batches = [
            batch
            for batch in plan_batches(dataset, batch_size, grouped, indices)
            if not all(is_done[label] for sample in batch for label in sample)
        ]
        with tqdm(
            desc=f'{measurer["name"]} on {file.source}',
            total=len(indices),
            initial=int(scored.sum()),
            unit='label',
            disable=not is_main_process(),
        ) as bar:
            for labels, ious, boxes in score_labels(
                model, dataset, batches, num_workers, judge=judge
            ):
                if store is not None:
                    store.write(place_of[labels], ious, boxes)
                bar.update(int((~is_done[labels]).sum()))
        if store is not None:
            store.flush()
        barrier()
    return paths


def _known_everywhere(path: Path, places: np.ndarray) -> np.ndarray:
    """Which labels are scored, as the first process sees it."""
    known = np.zeros(len(places), np.uint8)
    if is_main_process():
        known = (~np.isnan(read_reliability(path)[places])).astype(np.uint8)
    shared = from_numpy(known)
    broadcast(shared)
    return shared.numpy().astype(bool)
