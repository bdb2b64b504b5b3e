"""Test-time augmentation: one prediction from several views of an image."""

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_flip, bbox_overlaps
from mmengine.model import BaseTTAModel
from mmengine.structures import InstanceData
from torch import Tensor

from ..evaluation.grounding_metric import top_boxes, top_scores
from ..evaluation.joined_metric import has_scores

__all__ = ['GroundingTTAModel', 'consensus']


def consensus(boxes: Tensor, min_iou: float = 0.5) -> Tensor:
    """The mean of the boxes around the one that all agree with most.

    The plain mean of two referents' boxes is a box of neither.

    Args:
        boxes (Tensor): Of V views and E expressions, xyxy, of shape (V, E, 4).
        min_iou (float): Least IoU with that box to count. Defaults to 0.5.

    Returns:
        Tensor: Of shape (E, 4).
    """
    boxes = boxes.transpose(0, 1)
    overlaps = bbox_overlaps(boxes, boxes)
    rows = torch.arange(len(boxes), device=boxes.device)
    center = overlaps.sum(2).argmax(1)
    near = (overlaps[rows, center] >= min_iou).to(boxes)
    near[rows, center] = 1  # also where its area is 0
    return (near[..., None] * boxes).sum(1) / near.sum(1, keepdim=True)


@MODELS.register_module()
class GroundingTTAModel(BaseTTAModel):
    """Test-time augmentation for one box per expression.

    Views are of any size, and flipped where ``TextAwareFlip`` has swapped left and
    right in the expression too. Of a detector that gives many boxes, the one of the
    highest score counts. MMDetection's ``DetTTAModel`` merges by NMS, which leaves
    one box for every view that disagrees.

    Args:
        module (dict or nn.Module): The detector.
        min_iou (float): See :func:`consensus`. Defaults to 0.5.
        data_preprocessor (dict, optional): In the place of the detector's. Defaults
            to None.
    """

    def __init__(
        self,
        module: dict | torch.nn.Module,
        min_iou: float = 0.5,
        data_preprocessor: dict | None = None,
    ) -> None:
        super().__init__(module, data_preprocessor)
        self.min_iou = min_iou

    def merge_preds(
        self, data_samples_list: list[tuple[DetDataSample, ...]]
    ) -> list[DetDataSample]:
        """Merge the views of each image.

        Args:
            data_samples_list (list[tuple[DetDataSample]]): For each image
                its views, with ``pred_instances`` in pixels of the original one.

        Returns:
            list[DetDataSample]: For each image the first view that is not
            flipped, with its own expressions and the merged predictions.
        """
        return [self._merge(views) for views in data_samples_list]

    def _merge(self, views: tuple[DetDataSample, ...]) -> DetDataSample:
        upright = min(views, key=lambda view: bool(view.get('flip')))
        texts = [upright.text] if isinstance(upright.text, str) else list(upright.text)
        boxes = torch.stack([_upright_boxes(view, len(texts)) for view in views])
        predicted = [view.pred_instances.to_dict() for view in views]
        scores = torch.stack([top_scores(one, len(texts)) for one in predicted])
        upright.pred_instances = InstanceData(
            metainfo=dict(scored=all(map(has_scores, predicted))),
            bboxes=consensus(boxes, self.min_iou),
            scores=scores.mean(0),
            labels=torch.arange(len(texts), device=boxes.device),
            label_names=texts,
        )
        return upright


def _upright_boxes(view: DetDataSample, count: int) -> Tensor:
    """One box for each of ``count`` expressions, in the original image, (E, 4)."""
    # Of a detector that predicts nothing: an empty box, which agrees with none.
    boxes = top_boxes(view.pred_instances.to_dict(), count).nan_to_num(0.0)
    if view.get('flip'):
        return bbox_flip(boxes, view.ori_shape, view.flip_direction)
    return boxes
