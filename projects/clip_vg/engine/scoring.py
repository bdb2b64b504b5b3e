"""Score labels with a model: reliability of each, every image encoded once."""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.dataset import BaseDataset, Compose, pseudo_collate
from mmengine.dist import all_gather_object, get_dist_info
from torch import nn
from torch.utils.data import DataLoader

from projects.clip_vg_core.data.grouping import ImageGroups

from ..datasets.samplers.image_group_sampler import image_index_of
from ..evaluation.grounding_metric import top_boxes

__all__ = [
    'Judge',
    'evaluation_view',
    'judge_answers',
    'plan_batches',
    'score_all',
    'score_labels',
    'uses_groups',
]

Batch = list[tuple[int, ...]]
# Of a model, a data set, a batch of its labels, and what the data set gives for it:
# the labels (n, ), their reliability (n, ) and answers (n, 4).
Judge = Callable[
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


def uses_groups(dataloader: dict) -> bool:
    """Whether a loader's config asks a model several expressions at once."""
    sampler = dataloader.get('sampler', {})
    return sampler.get('type') == 'ImageGroupSampler' or bool(sampler.get('grouped'))


def plan_batches(
    dataset: BaseDataset, batch_size: int, grouped: bool, labels: np.ndarray
) -> list[Batch]:
    """Cut labels into batches, the same whatever is scored already.

    Args:
        dataset (BaseDataset): A :obj:`RefExpDataset`.
        batch_size (int): Samples (images if grouped, else labels) of a batch.
        grouped (bool): Whether the labels of an image come together; a detector
            that gives many boxes must be asked one expression at a time.
        labels (np.ndarray): Indices of the labels to score.

    Returns:
        list[list[tuple[int, ...]]]: Batches of samples of labels.
    """
    groups = ImageGroups(dataset.table.image_index, labels, None if grouped else 1)
    samples = list(groups.plan(len(groups), None)) if len(labels) else []
    return [samples[i : i + batch_size] for i in range(0, len(samples), batch_size)]


def judge_answers(
    model: nn.Module, dataset: BaseDataset, batch: Batch, data: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare a detector's answers with the labels' boxes (method, section 4).

    The reliability of a label is the IoU of the answer with the label's box, in
    pixels of the original image. Works with any detector whose ``test_step`` gives
    ``pred_instances``: of several boxes the highest scored counts.

    Args:
        model (nn.Module): Has ``test_step``.
        dataset (BaseDataset): See :func:`evaluation_view`.
        batch (list[tuple[int, ...]]): Labels of each sample.
        data (Any): The samples.

    Returns:
        tuple: Labels (n, ), their reliability (n, ), answers (n, 4) xyxy.
    """
    labels = np.array([label for sample in batch for label in sample])
    answers = model.test_step(data)  # type: ignore[operator]
    boxes = torch.cat(
        [
            top_boxes(answer.pred_instances.to_dict(), len(sample))
            for answer, sample in zip(answers, batch, strict=True)
        ]
    )
    truth = torch.from_numpy(dataset.table.boxes[labels])
    ious = bbox_overlaps(boxes, truth, is_aligned=True).nan_to_num(0.0).clamp(0, 1)
    return labels, ious.numpy(), boxes.numpy()


@torch.inference_mode()
def score_labels(
    model: nn.Module,
    dataset: BaseDataset,
    batches: Sequence[Batch],
    num_workers: int = 0,
    gather_every: int = 1,
    judge: Judge = judge_answers,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Judge labels with a model, which is in eval mode meanwhile.

    Args:
        model (nn.Module): What the judge asks.
        dataset (BaseDataset): See :func:`evaluation_view`.
        batches (Sequence): See :func:`plan_batches`; processes take turns.
        num_workers (int): Processes that load images. Defaults to 0.
        gather_every (int): Batches between two gatherings. Defaults to 1.
        judge (Callable): Defaults to :func:`judge_answers`.

    Yields:
        tuple: Indices of labels (n, ), their reliability (n, ), predicted boxes
        (n, 4) xyxy; the same on every process, of all processes together.
    """
    rank, world_size = get_dist_info()
    own = list(batches[rank::world_size])
    rounds = -(-len(batches) // (world_size * gather_every))
    grouped = any(len(sample) > 1 for batch in batches for sample in batch)
    loader = DataLoader(
        dataset,
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
        for number in range(rounds):
            part = own[number * gather_every : (number + 1) * gather_every]
            scored = [judge(model, dataset, b, next(loaded)) for b in part]
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
    for labels, ious, answers in score_labels(model, dataset, batches, num_workers):
        values[labels], boxes[labels] = ious, answers
    return values, boxes
