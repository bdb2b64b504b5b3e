"""Zero-shot CLIP matching as a measurer: which labelled box does an expression mean?"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset
from torch import Tensor, nn
from torchvision.ops import nms

from projects.clip_vg_core.data.grouping import ImageGroups
from projects.clip_vg_core.data.label_files import LabelFile
from projects.clip_vg_core.data.label_table import LabelTable
from projects.clip_vg_core.utils.atomic import file_sha256

from ..checkpoints.clip_weights import resolve_weights
from .scoring import Batch

__all__ = [
    'AGREEMENT_PIPELINE',
    'AgreementScorer',
    'agreement_config',
    'agreement_measurer',
    'distinct_boxes',
    'expected_iou',
    'zero_shot_config',
    'zero_shot_measurer',
]

# Images as they are: crops are resized on their own.
AGREEMENT_PIPELINE: list[dict[str, Any]] = [
    dict(type='LoadGroundingImage'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackGroundingInputs'),
]


def agreement_config(cfg: Config) -> dict[str, Any]:
    """The CLIP that matches: that of a config's detector, unless it names another.

    Args:
        cfg (Config): With ``model.visual_encoder`` of CLIP, or ``agreement =
            dict(arch=, pretrained=)``, which may have further options of
            :obj:`CropTextCLIP`.

    Returns:
        dict: Config of a :obj:`CropTextCLIP`.

    Raises:
        ValueError: No pretrained CLIP is named.
    """
    encoder = cfg.model.get('visual_encoder', {})
    options = {key: encoder.get(key) for key in ('arch', 'pretrained')}
    options.update(cfg.get('agreement', {}))
    if not options['arch'] or not options['pretrained']:
        raise ValueError(
            'The config names no pretrained CLIP that could score its labels: give '
            '--cfg-options agreement.arch=ViT-B-16-quickgelu '
            'agreement.pretrained=openai (a tag of open_clip, or a file).'
        )
    return ConfigDict(options, type='CropTextCLIP').to_dict()


def agreement_measurer(
    options: Mapping[str, Any], files: Sequence[LabelFile]
) -> dict[str, Any]:
    """Manifest entries of such a measurer: all that its scores depend on.

    Args:
        options (Mapping): Of :func:`agreement_config`.
        files (Sequence[LabelFile]): Of the data set, whose boxes are candidates.

    Returns:
        dict: All but its ``name``: ``sha256`` of the weights, the other options, and
        the identity of all labels.
    """
    weights = resolve_weights(options['arch'], options['pretrained'])
    return dict(
        sha256=file_sha256(weights),
        options={k: v for k, v in options.items() if k != 'pretrained'},
        candidates={file.source: file.fingerprint for file in files},
    )


def zero_shot_config(cfg: Config, path: str | Path | None = None) -> dict[str, Any]:
    """The zero-shot detector that scores the labels of a config.

    Args:
        cfg (Config): Whose labels are scored; ``zero_shot`` may have options of
            :obj:`ZeroShotGrounding`, beside the CLIP of :func:`agreement_config`.
        path (str or Path, optional): A config whose ``model`` it is. Defaults to None:
            the one of ``cfg``.

    Returns:
        dict: Config of a :obj:`ZeroShotGrounding`, without its own proposals: the
        boxes of the labels are compared.

    Raises:
        ValueError: The file's model is another one, or ``cfg`` names no CLIP.
    """
    if path is None:
        options = dict(
            type='ZeroShotGrounding',
            signals=dict(crop=0.5, blur=0.5),
            clip=agreement_config(cfg),
        )
        options.update(cfg.get('zero_shot', {}))
    else:
        options = Config.fromfile(path).model.to_dict()
        if options['type'] != 'ZeroShotGrounding':
            raise ValueError(
                f'{path}: model is {options["type"]}; expected a ZeroShotGrounding, as '
                'configs/zero_shot_refcoco.py has it.'
            )
    options['proposals'] = dict(type='GridProposals')
    return ConfigDict(options).to_dict()


def zero_shot_measurer(
    options: Mapping[str, Any], files: Sequence[LabelFile]
) -> dict[str, Any]:
    """Manifest entries of such a measurer: all that its scores depend on.

    Args:
        options (Mapping): Of :func:`zero_shot_config`.
        files (Sequence[LabelFile]): Of the data set, whose boxes are candidates.

    Returns:
        dict: As of :func:`agreement_measurer`.
    """
    clip = agreement_measurer(options['clip'], files)
    others = {k: v for k, v in options.items() if k not in ('clip', 'proposals')}
    return dict(clip, options=dict(others, clip=clip['options']))


def distinct_boxes(boxes: Tensor, overlap: float = 0.5) -> Tensor:
    """The objects of an image that an expression could mean, each once.

    Args:
        boxes (Tensor): Of all labels of an image, xyxy, of shape (N, 4).
        overlap (float): IoU above which two boxes are of one object; the first
            stays. Defaults to 0.5, as a prediction counts as right.

    Returns:
        Tensor: Of shape (K, 4), 1 <= K <= N, in order.
    """
    first_wins = -torch.arange(len(boxes), dtype=boxes.dtype)
    return boxes[nms(boxes, first_wins, overlap).sort().values]


def expected_iou(
    logits: Tensor,
    candidates: Tensor,
    boxes: Tensor,
    counts: Sequence[int] | None = None,
) -> Tensor:
    """Mean IoU with the label's box of a prediction drawn by its probability.

    The reliability of the method (section 4) for a measurer that does not predict one
    box, but a probability for each candidate. Of a label with several boxes the nearest
    counts: whether a drawn candidate is one of them, not whether they are all. Of a
    label without any it is 0, as such a measurer never says that nothing is there.

    Args:
        logits (Tensor): How well each candidate matches each expression, of shape
            (E, K), with K >= 1.
        candidates (Tensor): xyxy, of shape (K, 4).
        boxes (Tensor): The labels' boxes, xyxy, of shape (B, 4).
        counts (Sequence[int], optional): How many boxes each label has, B in all.
            Defaults to None: one.

    Returns:
        Tensor: In [0, 1], of shape (E, ).
    """
    overlaps = bbox_overlaps(boxes, candidates)
    if counts is not None and set(counts) != {1}:
        overlaps = torch.stack(
            [
                own.max(0).values if len(own) else own.new_zeros(len(candidates))
                for own in overlaps.split(list(counts))
            ]
        )
    return (logits.softmax(-1) * overlaps).sum(-1)


def _boxes_of(table: LabelTable, labels: np.ndarray) -> np.ndarray:
    """The boxes (B, 4) of labels, label by label."""
    if table.offsets is None:
        return table.boxes[labels]
    return np.concatenate([table.targets(int(label)) for label in labels])


class AgreementScorer:
    """Scores labels by zero-shot CLIP matching, see :data:`.scoring.Scorer`.

    The candidates are the distinct boxes of all labels that the data set has of the
    image, of every source. Reliability is the expected IoU of a candidate drawn by
    CLIP's probabilities, see :func:`expected_iou`; the predicted box is the most
    probable one. An image with one object tells nothing: its labels get 1.

    Args:
        dataset (BaseDataset): All labels, a :obj:`RefExpDataset`; samples hold
            images as they are (``AGREEMENT_PIPELINE``).
    """

    def __init__(self, dataset: BaseDataset) -> None:
        groups = ImageGroups(dataset.table.image_index)
        firsts = groups.order[groups.starts]
        self._groups, self._images = groups, dataset.table.image_index[firsts]

    def _candidates(self, dataset: BaseDataset, label: int) -> Tensor:
        image = dataset.table.image_index[label]
        group = int(np.searchsorted(self._images, image))
        start = self._groups.starts[group]
        labels = self._groups.order[start : start + self._groups.sizes[group]]
        return distinct_boxes(torch.from_numpy(_boxes_of(dataset.table, labels)))

    def __call__(
        self, model: nn.Module, dataset: BaseDataset, batch: Batch, data: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Score the labels of a batch.

        Args:
            model (nn.Module): A :obj:`CropTextCLIP`, or a model with its
                ``score_boxes``.
            dataset (BaseDataset): The same.
            batch (list[tuple[int, ...]]): Labels of each image.
            data (dict): ``inputs``, BGR images as they are.

        Returns:
            tuple: Labels (n, ), their reliability (n, ), the most probable boxes
            (n, 4) xyxy.
        """
        every = [self._candidates(dataset, sample[0]) for sample in batch]
        # Where no label of an image has a box, there is nothing to match.
        places = [place for place, boxes in enumerate(every) if len(boxes)]
        candidates = [every[place] for place in places]
        table = dataset.table
        # Of a detector, forward is MMDetection's.
        match = getattr(model, 'score_boxes', model)
        logits = places and match(
            [data['inputs'][place].flip(0) for place in places],  # CLIP takes RGB
            candidates,
            [[table.texts[label] for label in batch[place]] for place in places],
        )
        values = [torch.zeros(len(sample)) for sample in batch]
        predicted = [torch.full((len(sample), 4), math.nan) for sample in batch]
        for place, own, boxes in zip(places, logits, candidates, strict=True):
            truth = torch.from_numpy(_boxes_of(table, np.array(batch[place])))
            counts = [len(table.targets(label)) for label in batch[place]]
            values[place] = expected_iou(own, boxes, truth, counts).clamp(0, 1)
            predicted[place] = boxes[own.argmax(-1)]
        labels = np.array([label for sample in batch for label in sample])
        return labels, torch.cat(values).numpy(), torch.cat(predicted).numpy()
