"""Reliability without a training: what CLIP itself says of a picture's boxes."""

import torch
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor
from torchvision.ops import nms

__all__ = ['AGREEMENT', 'distinct_boxes', 'expected_iou']

AGREEMENT = 'agreement'  # the measurer's name in reliability files


def distinct_boxes(boxes: Tensor, overlap: float = 0.5) -> Tensor:
    """The boxes of a picture that an expression could mean, each once.

    Args:
        boxes (Tensor): Of all labels of a picture, xyxy, of shape (N, 4).
        overlap (float): IoU above which two boxes are of one object; the first
            stays. Defaults to 0.5, as an answer counts as right.

    Returns:
        Tensor: Of shape (K, 4), 1 <= K <= N, in order.
    """
    first_wins = -torch.arange(len(boxes), dtype=boxes.dtype)
    return boxes[nms(boxes, first_wins, overlap).sort().values]


def expected_iou(logits: Tensor, candidates: Tensor, boxes: Tensor) -> Tensor:
    """IoU with the label's box that an answer drawn by probability would have.

    The reliability of the method (section 4) for a judge that does not answer with
    one box, but with a probability for each of some.

    Args:
        logits (Tensor): How well each candidate fits each expression, of shape
            (E, K).
        candidates (Tensor): xyxy, of shape (K, 4).
        boxes (Tensor): The labels' boxes, xyxy, of shape (E, 4).

    Returns:
        Tensor: In [0, 1], of shape (E, ).
    """
    return (logits.softmax(-1) * bbox_overlaps(boxes, candidates)).sum(-1)
