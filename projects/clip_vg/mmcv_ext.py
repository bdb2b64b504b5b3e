"""Stand-in for ``mmcv._ext`` where MMCV was installed without compiled ops.

MMDetection imports MMCV's compiled extension when its models are imported,
whether or not a model uses it. This module takes its place (see
:mod:`projects.clip_vg.compat`): the ops that torchvision has are mapped to it,
with the calling conventions of ``mmcv.ops``; any other op can be looked up, and
raises when it is *called*. Outputs are written in place where the compiled op
does so.
"""

from typing import Any, NoReturn

import torch
import torchvision
from torch import Tensor
from torch.autograd import grad
from torchvision.ops import box_iou

__all__ = [
    'nms',
    'nms_match',
    'roi_align_backward',
    'roi_align_forward',
    'roi_pool_backward',
    'roi_pool_forward',
    'softnms',
]


def _corners_shifted(boxes: Tensor, offset: int) -> Tensor:
    """Boxes whose plain area is MMCV's (x2 - x1 + offset) * (y2 - y1 + offset)."""
    if not offset:
        return boxes
    return torch.cat([boxes[:, :2], boxes[:, 2:] + offset], dim=1)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Kept indices, by falling score, of xyxy ``boxes`` of shape (N, 4)."""
    return torchvision.ops.nms(_corners_shifted(boxes, offset), scores, iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (0 naive, 1 linear, 2 gaussian).

    Writes the kept boxes and their decayed scores into ``dets`` of shape
    (N, 5), and returns the kept indices of shape (K, ).
    """
    ious = box_iou(*[_corners_shifted(boxes, offset)] * 2)
    scores = scores.clone()
    left = torch.ones(len(boxes), dtype=torch.bool)
    kept: list[int] = []
    while bool(left.any()):
        best = int(torch.where(left, scores, -torch.inf).argmax())
        left[best] = False
        dets[len(kept), :4] = boxes[best]
        dets[len(kept), 4] = scores[best]
        kept.append(best)
        overlap = ious[best]
        if method == 2:
            weight = torch.exp(-(overlap**2) / sigma)
        else:
            decayed = 1 - overlap if method == 1 else torch.zeros_like(overlap)
            weight = torch.where(overlap >= iou_threshold, decayed, 1.0)
        scores = torch.where(left, scores * weight, scores)
        left &= scores >= min_score
    return torch.tensor(kept, dtype=torch.long)


def nms_match(dets: Tensor, iou_threshold: float) -> list[Tensor]:
    """Groups of (x1, y1, x2, y2, score) boxes: each kept one, then what it beat."""
    order = dets[:, 4].argsort(descending=True, stable=True)
    ious = box_iou(dets[:, :4], dets[:, :4])
    left = torch.ones(len(dets), dtype=torch.bool)
    groups = []
    for index in order.tolist():
        if not left[index]:
            continue
        left[index] = False
        beaten = [
            j for j in order.tolist() if left[j] and ious[index, j] >= iou_threshold
        ]
        left[beaten] = False
        groups.append(torch.tensor([index, *beaten]))
    return groups


def _roi_align(inputs: Tensor, rois: Tensor, options: dict[str, Any]) -> Tensor:
    # torchvision has the mean alone.
    if options['pool_mode'] != 1:
        raise RuntimeError(
            'RoIAlign with pool_mode="max" needs the compiled MMCV; the fallback '
            'has pool_mode="avg". Build it with `make mmcv`.'
        )
    return torchvision.ops.roi_align(
        inputs,
        rois,
        output_size=(options['aligned_height'], options['aligned_width']),
        spatial_scale=options['spatial_scale'],
        sampling_ratio=options['sampling_ratio'],
        aligned=options['aligned'],
    )


def _backward(pool: Any, rois: Tensor, grad_output: Tensor, grad_input: Tensor) -> None:
    """Write the gradient of ``pool`` (linear in its input) into ``grad_input``."""
    # The pooling is linear, so that its gradient is the same at any input.
    inputs = torch.zeros_like(grad_input, requires_grad=True)
    with torch.enable_grad():
        grad_input.copy_(grad(pool(inputs, rois), inputs, grad_output)[0])


def roi_align_forward(
    inputs: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,  # noqa: ARG001  # of max pooling only
    argmax_x: Tensor,  # noqa: ARG001
    **options: Any,
) -> None:
    """RoIAlign of ``inputs`` (B, C, H, W) at ``rois`` (K, 5), into ``output``."""
    output.copy_(_roi_align(inputs, rois, options))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,  # noqa: ARG001
    argmax_x: Tensor,  # noqa: ARG001
    grad_input: Tensor,
    **options: Any,
) -> None:
    """Gradient of :func:`roi_align_forward`, into ``grad_input``."""
    _backward(
        lambda inputs, rois: _roi_align(inputs, rois, options),
        rois,
        grad_output,
        grad_input,
    )


def roi_pool_forward(
    inputs: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """RoIPool of ``inputs`` (B, C, H, W) at ``rois`` (K, 5), into ``output``."""
    pooled, indices = torch.ops.torchvision.roi_pool(
        inputs, rois, spatial_scale, pooled_height, pooled_width
    )
    output.copy_(pooled)
    argmax.copy_(indices)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,  # noqa: ARG001  # the shapes of ``argmax`` tell
    pooled_width: int,  # noqa: ARG001
    spatial_scale: float,  # noqa: ARG001
) -> None:
    """Gradient of :func:`roi_pool_forward`, into ``grad_input``."""
    size, channels, height, width = grad_input.shape
    flat = grad_input.zero_().view(size * channels, height * width)
    rows = rois[:, 0].long()[:, None] * channels + torch.arange(channels)
    for row, grads, places in zip(
        rows.flatten().tolist(),
        grad_output.flatten(0, 1).flatten(1),
        argmax.flatten(0, 1).flatten(1).long(),
        strict=True,
    ):
        inside = places >= 0  # -1 marks an empty bin
        flat[row].index_add_(0, places[inside], grads[inside])


def __getattr__(name: str) -> Any:
    """Any other op: it can be looked up, as MMCV does on import, not called."""
    if name.startswith('__'):
        raise AttributeError(name)

    def missing(*_: Any, **__: Any) -> NoReturn:
        raise RuntimeError(
            f'The MMCV op "{name}" is not compiled in this environment, and '
            'torchvision has no counterpart of it. Build the compiled MMCV with '
            '`make mmcv` (about 13 minutes on 2 cores), or install a wheel of '
            '`mmcv` (not `mmcv-lite`) that fits your PyTorch.'
        )

    return missing
