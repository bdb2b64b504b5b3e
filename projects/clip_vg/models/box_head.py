"""Box head of CLIP-VG: one fused ``[REG]`` token in, one box out."""

from collections.abc import Sequence

import torch
from mmdet.models.layers import MLP
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_xyxy_to_cxcywh
from mmdet.utils import ConfigType, OptMultiConfig
from mmengine.model import BaseModule
from torch import Tensor

__all__ = ['GroundingBoxHead']


@MODELS.register_module()
class GroundingBoxHead(BaseModule):
    """Regress the referred box from the fused ``[REG]`` token.

    Boxes are ``(cx, cy, w, h)`` in [0, 1] of the padded input inside the head,
    and absolute ``(x1, y1, x2, y2)`` everywhere outside it.

    Args:
        embed_dims (int): Width D of the ``[REG]`` token.
        loss_bbox (dict): Loss on ``(cx, cy, w, h)``.
        loss_iou (dict): Loss on ``(x1, y1, x2, y2)`` in [0, 1].
        num_layers (int): Linear layers of the MLP. Defaults to 3.
        init_cfg (dict or list[dict], optional): Initialisation config. Defaults to
            None.
    """

    def __init__(
        self,
        embed_dims: int,
        loss_bbox: ConfigType,
        loss_iou: ConfigType,
        num_layers: int = 3,
        init_cfg: OptMultiConfig = None,
    ) -> None:
        super().__init__(init_cfg)
        self.mlp = MLP(embed_dims, embed_dims, 4, num_layers)
        self.loss_bbox = MODELS.build(loss_bbox)
        self.loss_iou = MODELS.build(loss_iou)

    def forward(self, reg_token: Tensor) -> Tensor:
        """Map tokens of shape (N, D) to normalised cxcywh boxes of shape (N, 4)."""
        # In float32, whatever the tokens come in: bfloat16 would round boxes.
        return self.mlp(reg_token).float().sigmoid()

    def loss(self, reg_token: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Compare the predicted boxes with the referred ones.

        Args:
            reg_token (Tensor): Fused tokens of shape (M, D).
            target (Tensor): Their true boxes, xyxy in [0, 1] of the padded input, of
                shape (M, 4).

        Returns:
            dict[str, Tensor]: The scalars ``loss_bbox`` and ``loss_iou``.
        """
        pred = self(reg_token)
        # Averaged over boxes, not over the four coordinates, as in the paper. Of a
        # batch in which no expression has a referent, both are 0.
        num_boxes = max(1, len(target))
        return dict(
            loss_bbox=self.loss_bbox(
                pred, bbox_xyxy_to_cxcywh(target), avg_factor=num_boxes
            ),
            loss_iou=self.loss_iou(
                bbox_cxcywh_to_xyxy(pred), target, avg_factor=num_boxes
            ),
        )


def true_boxes(data_samples: SampleList, like: Tensor) -> Tensor:
    """Boxes of the labels.

    Args:
        data_samples (list[DetDataSample]): Samples with T boxes in all, xyxy in
            pixels of the padded input.
        like (Tensor): Of the type and device that the boxes shall have.

    Returns:
        Tensor: xyxy in [0, 1] of the padded input, of shape (T, 4).
    """
    boxes = [sample.gt_instances.bboxes for sample in data_samples]
    return torch.cat(boxes) / input_whwh(data_samples, [len(b) for b in boxes], like)


def input_whwh(data_samples: SampleList, counts: Sequence[int], like: Tensor) -> Tensor:
    """Sizes of the padded inputs as (W, H, W, H), a row for each box, (E, 4)."""
    sizes = [sample.batch_input_shape for sample in data_samples]
    return rows_of([(w, h, w, h) for h, w in sizes], counts, like)


def rows_of(
    values: Sequence[Sequence[float]], counts: Sequence[int], like: Tensor
) -> Tensor:
    """A row of numbers for each box: its sample's.

    Args:
        values (Sequence[Sequence[float]]): D numbers for each sample.
        counts (Sequence[int]): How many boxes each sample has, E in all.
        like (Tensor): Of the type and device that the rows shall have.

    Returns:
        Tensor: Of shape (E, D).
    """
    rows = [
        row for row, count in zip(values, counts, strict=True) for _ in range(count)
    ]
    # One copy for all samples, and none that waits until the device is idle.
    made = torch.tensor(rows, dtype=like.dtype).reshape(-1, len(values[0]))
    return made.to(like.device, non_blocking=True)
