"""Labels judged by CLIP's own agreement of crops and texts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset
from torch import nn

from projects.clip_vg_core.curriculum.reliability_file import LabelFile, file_sha256
from projects.clip_vg_core.data.grouping import ImageGroups

from ..checkpoints.clip_weights import resolve_weights
from ..curriculum.agreement import distinct_boxes, expected_iou
from .scoring import Batch

__all__ = [
    'AGREEMENT_PIPELINE',
    'AgreementJudge',
    'agreement_config',
    'agreement_measurer',
]

AGREEMENT_PIPELINE: list[dict[str, Any]] = [
    dict(type='LoadGroundingImage'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackGroundingInputs'),
]


def agreement_config(cfg: Config) -> dict[str, Any]:
    """The CLIP that judges: that of a config's detector, unless it names another.

    Args:
        cfg (Config): With ``model.visual_encoder`` of CLIP, or ``agreement =
            dict(arch=, pretrained=)``; there are further options of
            :obj:`CropTextCLIP` too.

    Returns:
        dict: Config of a :obj:`CropTextCLIP`.

    Raises:
        ValueError: No pretrained CLIP is named.
    """
    encoder = cfg.model.get('visual_encoder', {})
    found = {key: encoder.get(key) for key in ('arch', 'pretrained')}
    found.update(cfg.get('agreement', {}))
    if not found['arch'] or not found['pretrained']:
        raise ValueError(
            'The config names no pretrained CLIP that could judge its labels: give '
            '--cfg-options agreement.arch=ViT-B-16-quickgelu '
            'agreement.pretrained=openai (a tag of open_clip, or a file).'
        )
    return ConfigDict(found, type='CropTextCLIP').to_dict()


def agreement_measurer(
    options: Mapping[str, Any], files: Sequence[LabelFile]
) -> dict[str, Any]:
    """What a manifest says of such a measurer: all that its word depends on.

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


class AgreementJudge:
    """Which of a picture's labelled boxes does an expression mean, says CLIP?

    The candidates are the distinct boxes of all labels that the data set has of the
    picture, of every source. Reliability is the IoU that an answer drawn by CLIP's
    probabilities would have with the label's box; the answer that is kept is the
    most probable one. A picture with one object tells nothing: its labels get 1.

    Args:
        dataset (BaseDataset): All labels, a :obj:`RefExpDataset`; samples hold
            pictures as they are (``AGREEMENT_PIPELINE``).
    """

    def __init__(self, dataset: BaseDataset) -> None:
        self._groups = ImageGroups(dataset.table.image_index)
        firsts = self._groups.order[self._groups.starts]
        self._images = dataset.table.image_index[firsts]

    def _candidates(self, dataset: BaseDataset, label: int) -> torch.Tensor:
        groups = self._groups
        image = dataset.table.image_index[label]
        group = int(np.searchsorted(self._images, image))
        start = groups.starts[group]
        labels = groups.order[start : start + groups.sizes[group]]
        return distinct_boxes(torch.from_numpy(dataset.table.boxes[labels]))

    def __call__(
        self, model: nn.Module, dataset: BaseDataset, batch: Batch, data: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Judge the labels of a batch.

        Args:
            model (nn.Module): A :obj:`CropTextCLIP`.
            dataset (BaseDataset): As given at first.
            batch (list[tuple[int, ...]]): Labels of each picture.
            data (dict): ``inputs``, BGR pictures as they are.

        Returns:
            tuple: Labels (n, ), their reliability (n, ), the most probable boxes
            (n, 4) xyxy.
        """
        candidates = [self._candidates(dataset, sample[0]) for sample in batch]
        table = dataset.table
        logits = model(
            [picture.flip(0) for picture in data['inputs']],
            candidates,
            [[table.texts[label] for label in sample] for sample in batch],
        )
        values, answers = [], []
        for sample, found, boxes in zip(batch, logits, candidates, strict=True):
            own = torch.from_numpy(table.boxes[list(sample)])
            values.append(expected_iou(found, boxes, own).clamp(0, 1))
            answers.append(boxes[found.argmax(-1)])
        labels = np.array([label for sample in batch for label in sample])
        return labels, torch.cat(values).numpy(), torch.cat(answers).numpy()
