"""Score labels with a model: in memory, or into files that a scoring resumes."""

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.dataset import BaseDataset, Compose, pseudo_collate
from mmengine.dist import (
    all_gather_object,
    barrier,
    broadcast_object_list,
    get_dist_info,
    is_main_process,
)
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from projects.clip_vg_core.curriculum.reliability_file import (
    ReliabilityFile,
    reliability_path,
)
from projects.clip_vg_core.data.grouping import ImageGroups
from projects.clip_vg_core.data.label_files import LabelFile

from ..datasets.samplers.image_group_sampler import image_index_of
from ..evaluation.grounding_metric import top_boxes

__all__ = [
    'Batch',
    'Scorer',
    'choose_sources',
    'evaluation_view',
    'plan_batches',
    'score_all',
    'score_labels',
    'score_predictions',
    'score_sources',
]

# Samples of a batch, each the indices of its labels.
Batch = list[tuple[int, ...]]
# Scores the labels of a batch: of a model, a data set, the batch and its loaded
# samples, to labels (n, ), their reliability (n, ) and predicted boxes (n, 4) xyxy.
Scorer = Callable[
    [nn.Module, BaseDataset, Batch, Any], tuple[np.ndarray, np.ndarray, np.ndarray]
]


def evaluation_view(dataset: BaseDataset, pipeline: Sequence[Any]) -> BaseDataset:
    """The same labels through the test transforms; nothing is read again.

    Args:
        dataset (BaseDataset): The labels, a :obj:`RefExpDataset`.
        pipeline (Sequence): Configs of the test transforms.

    Returns:
        BaseDataset: A shallow copy.

    Raises:
        ValueError: The data set is another one.
    """
    image_index_of(dataset, 'Scoring')
    view = copy.copy(dataset)
    view.pipeline = Compose(pipeline)
    view.check_loader()
    view.test_mode = True
    return view


def plan_batches(
    dataset: BaseDataset, batch_size: int, grouped: bool, labels: np.ndarray
) -> list[Batch]:
    """Cut labels into batches.

    Args:
        dataset (BaseDataset): A :obj:`RefExpDataset`.
        batch_size (int): Samples (images if grouped, else labels) of a batch.
        grouped (bool): Whether the labels of an image come together. A detector that
            predicts many boxes takes one expression at a time.
        labels (np.ndarray): Indices of the labels to score.

    Returns:
        list[list[tuple[int, ...]]]: Batches of samples of labels.
    """
    groups = ImageGroups(dataset.table.image_index, labels, None if grouped else 1)
    samples = list(groups.plan(len(groups), None)) if len(labels) else []
    return [samples[i : i + batch_size] for i in range(0, len(samples), batch_size)]


def score_predictions(
    model: nn.Module, dataset: BaseDataset, batch: Batch, data: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score labels by the IoU of a detector's prediction (method, section 4).

    Both boxes are in pixels of the original image. Works with any detector whose
    ``test_step`` gives ``pred_instances``: of several boxes the highest scored counts.

    Args:
        model (nn.Module): Has ``test_step``.
        dataset (BaseDataset): See :func:`evaluation_view`.
        batch (list[tuple[int, ...]]): Labels of each sample.
        data (Any): The samples.

    Returns:
        tuple: Labels (n, ), their reliability (n, ), predicted boxes (n, 4) xyxy.
    """
    labels = np.array([label for sample in batch for label in sample])
    predictions = model.test_step(data)  # type: ignore[operator]
    boxes = torch.cat(
        [
            top_boxes(prediction.pred_instances.to_dict(), len(sample))
            for prediction, sample in zip(predictions, batch, strict=True)
        ]
    )
    truth = torch.from_numpy(dataset.table.boxes[labels])
    # NaN: an invalid box of the label, or of a model that has diverged.
    ious = bbox_overlaps(boxes, truth, is_aligned=True).nan_to_num(0.0).clamp(0, 1)
    return labels, ious.numpy(), boxes.numpy()


@torch.inference_mode()
def score_labels(
    model: nn.Module,
    dataset: BaseDataset,
    batches: Sequence[Batch],
    num_workers: int = 0,
    scorer: Scorer = score_predictions,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Score labels with a model, which is in eval mode meanwhile.

    Args:
        model (nn.Module): The measurer.
        dataset (BaseDataset): See :func:`evaluation_view`.
        batches (Sequence): See :func:`plan_batches`; processes take turns.
        num_workers (int): Processes that load images. Defaults to 0.
        scorer (Callable): Scores the labels of a batch. Defaults to
            :func:`score_predictions`.

    Yields:
        tuple: Indices of labels (n, ), their reliability (n, ), predicted boxes
        (n, 4) xyxy; the same on every process, of all processes together.
    """
    rank, world_size = get_dist_info()
    own = list(batches[rank::world_size])
    grouped = any(len(sample) > 1 for batch in batches for sample in batch)
    loader = DataLoader(
        dataset,
        # An index alone is a sample of one label, which every detector takes.
        batch_sampler=own
        if grouped
        else [[label for (label,) in batch] for batch in own],
        collate_fn=pseudo_collate,
        num_workers=num_workers,
    )
    was_training = model.training
    model.eval()
    try:
        loaded = iter(loader)
        # Every process takes part in every gathering, also where it has no batch left.
        for number in range(-(-len(batches) // world_size)):
            part = own[number : number + 1]
            scored = [scorer(model, dataset, batch, next(loaded)) for batch in part]
            everyone = [item for rank_ in all_gather_object(scored) for item in rank_]
            yield tuple(np.concatenate(column) for column in zip(*everyone))  # type: ignore[misc]  # noqa: B905
    finally:
        model.train(was_training)


def score_all(
    model: nn.Module,
    dataset: BaseDataset,
    batch_size: int,
    grouped: bool,
    num_workers: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Score every label of a data set; see :func:`score_labels`.

    Args:
        model (nn.Module): Has ``test_step``.
        dataset (BaseDataset): See :func:`evaluation_view`.
        batch_size (int): See :func:`plan_batches`.
        grouped (bool): See :func:`plan_batches`.
        num_workers (int): Processes that load images. Defaults to 0.

    Returns:
        tuple: Reliability (N, ) and predicted boxes (N, 4) xyxy, both float32.
    """
    values = np.full(len(dataset), np.nan, np.float32)
    boxes = np.full((len(dataset), 4), np.nan, np.float32)
    batches = plan_batches(dataset, batch_size, grouped, np.arange(len(dataset)))
    for labels, ious, predicted in score_labels(model, dataset, batches, num_workers):
        values[labels], boxes[labels] = ious, predicted
    return values, boxes


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
    scorer: Scorer = score_predictions,
    overwrite: bool = False,
) -> list[Path]:
    """Write ``<measurer>__<source>.npy`` for each source, or resume it.

    Batches do not depend on what is scored already, so that an interrupted scoring
    ends with the same bytes as one that was not. With several processes the first one
    writes.

    Args:
        model (nn.Module): The measurer.
        dataset (BaseDataset): The labels through the test transforms.
        files (Sequence[LabelFile]): Of the data set.
        folder (str or Path): Output folder.
        measurer (dict): Its ``name``, ``sha256``, ``config``, ... for the manifest.
        transforms (list): Configs of the test transforms, for the manifest.
        grouped (bool): Whether a model gets all expressions of an image at once.
            Defaults to True.
        batch_size (int): Images, or labels where not grouped. Defaults to 16.
        num_workers (int): Processes that load images. Defaults to 0.
        scorer (Callable): Scores the labels of a batch. Defaults to
            :func:`score_predictions`, for detectors.
        overwrite (bool): Whether files of another measurer of this name are replaced.
            Defaults to False.

    Returns:
        list[Path]: The files, one for each source.

    Raises:
        ValueError: A file of the same name is of another measurer.
    """
    keys = dataset.label_keys()
    paths = []
    for file in files:
        store = None
        indices = dataset.indices_of(file)
        is_done = np.zeros(len(dataset), bool)
        if is_main_process():
            store = ReliabilityFile(folder, measurer, file, transforms, overwrite)
            is_done[indices] = store.is_scored(keys[indices])
        shared = [is_done]
        broadcast_object_list(shared)
        is_done = shared[0]
        batches = [
            batch
            for batch in plan_batches(dataset, batch_size, grouped, indices)
            if not all(is_done[label] for sample in batch for label in sample)
        ]
        with tqdm(
            desc=f'{measurer["name"]} on {file.source}',
            total=len(indices),
            initial=int(is_done.sum()),
            unit='label',
            disable=not is_main_process(),
        ) as bar:
            for labels, ious, boxes in score_labels(
                model, dataset, batches, num_workers, scorer=scorer
            ):
                if store is not None:
                    store.write(keys[labels], ious, boxes)
                bar.update(int((~is_done[labels]).sum()))
        if store is not None:
            store.flush()
        paths.append(reliability_path(folder, measurer['name'], file.source))
        barrier()
    return paths
