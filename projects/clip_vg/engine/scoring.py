"""Score labels with a model: in memory, or into files that a scoring resumes."""

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
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
from scipy.optimize import linear_sum_assignment
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from projects.clip_vg_core.curriculum.reliability_file import (
    ReliabilityFile,
    reliability_path,
)
from projects.clip_vg_core.curriculum.reliability_shards import ReliabilityShards
from projects.clip_vg_core.data.grouping import ImageGroups
from projects.clip_vg_core.data.label_files import LabelFile
from projects.clip_vg_core.utils.shards import Shard, Shards, shard_range

from ..datasets.samplers.image_group_sampler import image_index_of
from ..evaluation.grounding_metric import top_boxes, top_scores
from ..evaluation.joined_metric import owners_of

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
    'set_reliability',
]

# Samples of a batch, each the indices of its labels.
Batch = list[tuple[int, ...]]
# Least score of a box that counts, of detectors that say none.
_SCORE_THR = 0.5
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
    dataset: BaseDataset,
    batch_size: int,
    grouped: bool,
    labels: np.ndarray,
    shard: Shard = (1, 1),
) -> list[Batch]:
    """Cut labels into batches.

    Args:
        dataset (BaseDataset): A :obj:`RefExpDataset`.
        batch_size (int): Samples (images if grouped, else labels) of a batch.
        grouped (bool): Whether the labels of an image come together. A detector that
            predicts many boxes takes one expression at a time.
        labels (np.ndarray): Indices of the labels to score.
        shard (tuple[int, int]): Which part of the batches, from 1, of how many.
            Defaults to (1, 1): all.

    Returns:
        list[list[tuple[int, ...]]]: Batches of samples of labels.
    """
    if not len(labels):
        return []
    groups = ImageGroups(dataset.table.image_index, labels, None if grouped else 1)
    own = shard_range(len(groups), shard, batch_size)
    # Tuples of these alone: of ten million labels they take a gigabyte.
    samples = list(groups.plan(len(groups), None).take(slice(own.start, own.stop)))
    return [samples[i : i + batch_size] for i in range(0, len(samples), batch_size)]


def score_predictions(
    model: nn.Module, dataset: BaseDataset, batch: Batch, data: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score labels by the IoU of a detector's prediction (method, section 4).

    All boxes are in pixels of the original image. Works with any detector whose
    ``test_step`` gives ``pred_instances``. For a label of one target the box of the
    highest score counts, whatever it is; a label of several is compared with all boxes
    whose score is at least the detector's ``test_cfg.score_thr`` (0.5 where it has
    none, 0 where it predicts one box), see :func:`set_reliability`; and a label of none
    is as reliable as the detector is sure that nothing is there: one minus the highest
    score, which is 0 for a detector without scores.

    Args:
        model (nn.Module): Has ``test_step``.
        dataset (BaseDataset): See :func:`evaluation_view`.
        batch (list[tuple[int, ...]]): Labels of each sample.
        data (Any): The samples.

    Returns:
        tuple: Labels (n, ), their reliability (n, ), and the predicted boxes of the
        highest score (n, 4) xyxy, NaN where none is predicted.
    """
    labels = np.array([label for sample in batch for label in sample])
    predictions = [p.pred_instances.to_dict() for p in model.test_step(data)]  # type: ignore[operator]
    sizes = [len(sample) for sample in batch]
    boxes = torch.cat([top_boxes(*one) for one in zip(predictions, sizes, strict=True)])
    table = dataset.table
    if table.offsets is None:
        firsts, counts = labels, np.ones(len(labels), np.int64)
    else:
        firsts = table.offsets[labels]
        counts = table.offsets[labels + 1] - firsts
    values = np.zeros(len(labels), np.float32)
    one = counts == 1
    truth = torch.from_numpy(table.boxes[firsts[one]])
    # NaN: an invalid box of the label, or of a model that has diverged.
    ious = bbox_overlaps(boxes[torch.from_numpy(one)], truth, is_aligned=True)
    values[one] = ious.nan_to_num(0.0).clamp(0, 1).numpy()
    if not one.all():
        tops = torch.cat(
            [top_scores(*one) for one in zip(predictions, sizes, strict=True)]
        )
        values[counts == 0] = 1 - tops.clamp(0, 1).numpy()[counts == 0]
        score_thr = _score_thr(model)
        sets = [
            own
            for p, n in zip(predictions, sizes, strict=True)
            for own in _sets(p, n, score_thr)
        ]
        for place in np.flatnonzero(counts > 1):
            targets = torch.from_numpy(table.targets(int(labels[place])))
            values[place] = set_reliability(sets[place], targets)
    return labels, values, boxes.numpy()


def _score_thr(model: nn.Module) -> float:
    """Least score of a box that a detector shows."""
    own = getattr(model, 'score_thr', None)
    if own is None:
        own = (getattr(model, 'test_cfg', None) or {}).get('score_thr', _SCORE_THR)
    return float(own)


def _sets(pred: dict, num_expressions: int, score_thr: float) -> list[torch.Tensor]:
    """The boxes of each expression of a sample that count, (P, 4) xyxy each."""
    boxes = torch.as_tensor(pred['bboxes']).float().cpu().reshape(-1, 4)
    scores = torch.as_tensor(pred.get('scores', torch.ones(len(boxes)))).float().cpu()
    owners = torch.from_numpy(owners_of(pred, num_expressions))
    return [
        boxes[(owners == number) & (scores >= score_thr)]
        for number in range(num_expressions)
    ]


def set_reliability(boxes: torch.Tensor, targets: torch.Tensor) -> float:
    """F1 of two sets of boxes in which each pair counts with its IoU.

    Twice the sum of IoUs over the number of boxes of both, in the pairing of the
    largest sum: for one box and one target the IoU, the reliability of the method
    (section 4). It is 1 where both are the same, and every box that is missing,
    superfluous or loose lowers it; an F1 that counts pairs from an IoU on would say
    nothing of how good they are, and the IoU of the areas nothing of how many.

    Args:
        boxes (Tensor): Predicted, xyxy, of shape (P, 4).
        targets (Tensor): Of the label, xyxy in the same unit, of shape (T, 4).

    Returns:
        float: In [0, 1]; 1 for two empty sets.
    """
    total = len(boxes) + len(targets)
    if not len(boxes) or not len(targets):
        return float(not total)
    ious = bbox_overlaps(boxes, targets).nan_to_num(0.0).clamp(0, 1).numpy()
    return float(2 * ious[linear_sum_assignment(ious, maximize=True)].sum() / total)


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
    shard: Shard = (1, 1),
) -> list[Path]:
    """Write ``<measurer>__<source>.npy`` for each source, or resume it.

    Batches do not depend on what is scored already, nor on the shards, so that an
    interrupted scoring, or one in shards, ends with the same bytes as one that was not.
    With several processes of one shard the first one writes.

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
        shard (tuple[int, int]): Which part of each source, from 1, of how many; see
            :class:`ReliabilityShards`. Defaults to (1, 1): all, and what shards have
            scored already is taken over.

    Returns:
        list[Path]: The files, one for each source; without those of which shards are
        missing.

    Raises:
        RuntimeError: Another process scores the same shard.
        ValueError: A file of the same name is of another measurer, or there are shards
            of other labels or options.
    """
    for file in files:
        indices, rows = dataset.indices_and_rows(file)
        batches = plan_batches(dataset, batch_size, grouped, indices, shard)
        title = f'{measurer["name"]} on {file.source}'
        score = partial(
            _score_into, model, dataset, batches, title, num_workers, scorer
        )
        shards = ReliabilityShards(
            *(folder, measurer, file, transforms),
            dict(batch_size=batch_size, grouped=grouped),
            overwrite,
        )
        if shard[1] > 1:
            own = np.sort(_labels_of(batches))
            own_rows = rows[np.searchsorted(indices, own)]
            names = dataset.table.sample_ids.take(own).sha256()
            part = file.part(own_rows, names)
            shards.score(shard, part, own_rows, len(indices), partial(score, own))
            continue
        store = None
        if is_main_process():
            store = ReliabilityFile(folder, measurer, file, transforms, overwrite)
            shards.take_over(store)
        score(indices, file.keys[rows], store)
        barrier()
    # Another process may have put the shards of the first sources together meanwhile.
    paths = [reliability_path(folder, measurer['name'], file.source) for file in files]
    return [path for path in paths if path.exists() and not Shards(path).has_begun()]


def _labels_of(batches: Sequence[Batch]) -> np.ndarray:
    """The labels of batches, int64 (n, )."""
    labels = (label for batch in batches for sample in batch for label in sample)
    return np.fromiter(labels, np.int64)


def _score_into(
    model: nn.Module,
    dataset: BaseDataset,
    batches: Sequence[Batch],
    title: str,
    num_workers: int,
    scorer: Scorer,
    labels: np.ndarray,
    keys: np.ndarray,
    store: ReliabilityFile | None,
) -> None:
    """Score those labels of a file that are not scored yet.

    Args:
        model (nn.Module): The measurer.
        dataset (BaseDataset): The labels through the test transforms.
        batches (Sequence): Of the labels.
        title (str): Of the progress bar.
        num_workers (int): Processes that load images.
        scorer (Callable): Scores the labels of a batch.
        labels (np.ndarray): Indices of n labels, ascending.
        keys (np.ndarray): Theirs, uint64 (n, ).
        store (ReliabilityFile, optional): None in all processes but the first.
    """
    is_done = np.zeros(len(dataset), bool)
    if store is not None:
        is_done[labels] = store.is_scored(keys)
    shared = [is_done]
    broadcast_object_list(shared)
    is_done = shared[0]
    remaining = [
        batch
        for batch in batches
        if not all(is_done[label] for sample in batch for label in sample)
    ]
    with tqdm(
        desc=title,
        total=len(labels),
        initial=int(is_done.sum()),
        unit='label',
        disable=not is_main_process(),
    ) as bar:
        for scored, ious, boxes in score_labels(
            model, dataset, remaining, num_workers, scorer=scorer
        ):
            if store is not None:
                own = keys[np.searchsorted(labels, scored)]
                store.write(own, ious, boxes)
            bar.update(int((~is_done[scored]).sum()))
    if store is not None:
        store.flush()
