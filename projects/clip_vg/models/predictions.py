"""Samples' expressions, and the predictions for them in pixels."""

from collections.abc import Sequence

import torch
from mmdet.structures import DetDataSample, SampleList
from mmdet.utils import InstanceList
from mmengine.structures import InstanceData
from torch import Tensor

from .box_head import input_whwh, rows_of

__all__ = ['expressions_of', 'instances_of', 'to_original']


def expressions_of(sample: DetDataSample) -> list[str]:
    """The expressions of a sample as a list.

    Raises:
        ValueError: It has none.
    """
    text: str | Sequence[str] | None = sample.get('text')
    if text is None or len(text) == 0 and not isinstance(text, str):
        raise ValueError(
            f'{sample.get("img_path", "A sample")} has no expression: put `text` '
            'into the sample and its key into `meta_keys` of PackGroundingInputs.'
        )
    return [text] if isinstance(text, str) else list(text)


def instances_of(
    data_samples: SampleList,
    boxes: Tensor,
    scores: Tensor,
    rescale: bool = True,
    scored: bool = True,
) -> InstanceList:
    """The predictions of each sample.

    Args:
        data_samples (list[:obj:`DetDataSample`]): With E expressions in all.
        boxes (Tensor): xyxy in [0, 1] of the padded input, of shape (E * Q, 4), equally
            many for each expression, those of an expression together.
        scores (Tensor): Of shape (E * Q, ).
        rescale (bool): Whether boxes become pixels of the original image, or of the
            padded input. Defaults to True.
        scored (bool): Whether the model gives scores, or ``scores`` only fill up.
            Defaults to True.

    Returns:
        list[:obj:`InstanceData`]: ``bboxes`` (xyxy), ``scores``, ``labels``, the number
        of each box's expression in its sample, and ``label_names``, the expressions of
        the boxes, for each sample; ``scored`` is in their metainfo.
    """
    instances = []
    texts = [expressions_of(sample) for sample in data_samples]
    queries = len(boxes) // sum(map(len, texts))
    counts = [len(own) * queries for own in texts]
    boxes = boxes * input_whwh(data_samples, counts, boxes)
    if rescale:
        boxes = to_original(boxes, data_samples, counts)
    for names, own, own_scores in zip(
        texts, boxes.split(counts), scores.split(counts), strict=True
    ):
        instances.append(
            InstanceData(
                metainfo=dict(scored=scored),
                bboxes=own,
                scores=own_scores,
                labels=torch.arange(len(own), device=own.device) // queries,
                # MMDetection's visualiser writes these on the boxes.
                label_names=[name for name in names for _ in range(queries)],
            )
        )
    return instances


def to_original(
    boxes: Tensor, data_samples: SampleList, counts: Sequence[int]
) -> Tensor:
    """From pixels of the padded inputs to pixels of the original images.

    Args:
        boxes (Tensor): xyxy, of shape (E, 4).
        data_samples (list[:obj:`DetDataSample`]): With ``scale_factor`` where the
            image was resized, and ``letterbox`` where it does not begin in the
            corner.
        counts (Sequence[int]): How many of the boxes each sample has.

    Returns:
        Tensor: xyxy, of shape (E, 4).
    """
    # The border goes first: `scale_factor` is of the image without it.
    corners = [tuple(s.get('letterbox', (0, 0))[:2]) * 2 for s in data_samples]
    scales = [tuple(s.get('scale_factor', (1, 1))) * 2 for s in data_samples]
    return (boxes - rows_of(corners, counts, boxes)) / rows_of(scales, counts, boxes)
