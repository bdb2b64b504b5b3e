"""Boxes that an expression could mean: of a detector, of a file, or of a grid."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import torch
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import ConfigType
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.hub import get_config
from mmengine.model import BaseModule
from mmengine.runner import load_checkpoint
from torch import Tensor, nn
from torchvision.ops import nms

from projects.clip_vg_core.pseudo_labels.detection import Detection
from projects.clip_vg_core.pseudo_labels.inputs import InputFiles, read_scenes

__all__ = ['DetectorProposals', 'FileProposals', 'GridProposals', 'Proposals', 'prune']

_LOADERS = ('LoadImageFromFile', 'LoadImageFromNDArray', 'LoadAnnotations')


class Proposals(NamedTuple):
    """Boxes of an image that an expression could mean.

    Args:
        boxes (Tensor): xyxy in pixels of the image, of shape (K, 4).
        scores (Tensor): Confidence of each in [0, 1], of shape (K, ).
        names (list[str], optional): Class of each. Defaults to None: not known.
    """

    boxes: Tensor
    scores: Tensor
    names: list[str] | None = None

    def take(self, indices: Tensor) -> 'Proposals':
        """Some of the boxes, in the order of ``indices``."""
        names = self.names and [self.names[index] for index in indices.tolist()]
        return Proposals(self.boxes[indices], self.scores[indices], names)


def prune(
    proposals: Proposals, size: tuple[int, int], max_iou: float, most: int
) -> Proposals:
    """The surest proposals, inside the image, each object once; at least one.

    Args:
        proposals (Proposals): Of one image.
        size (tuple[int, int]): Height and width of the image.
        max_iou (float): IoU above which of two boxes the surer stays.
        most (int): How many at most.

    Returns:
        Proposals: From sure to unsure; the whole image, where there was none.
    """
    height, width = size
    limits = proposals.boxes.new_tensor([width, height, width, height])
    boxes = proposals.boxes.clamp(min=0).minimum(limits)
    valid = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(1).nonzero()[:, 0]
    if not len(valid):
        return Proposals(limits.new_tensor([[0, 0, width, height]]), limits.new_ones(1))
    proposals = proposals._replace(boxes=boxes).take(valid)
    return proposals.take(nms(proposals.boxes, proposals.scores, max_iou)[:most])


@MODELS.register_module()
class GridProposals(BaseModule):
    """Boxes of given sizes on a regular grid, where there is no detector.

    Args:
        sizes (Sequence[float]): Heights of boxes as shares of the image's short side.
            Defaults to (0.25, 0.5, 0.75).
        ratios (Sequence[float]): Widths of boxes for a height of 1. Defaults to
            (0.5, 1.0, 2.0).
        stride (float): Distance of neighbours in sides of a box, at most. Defaults to
            0.5.
    """

    def __init__(
        self,
        sizes: Sequence[float] = (0.25, 0.5, 0.75),
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        stride: float = 0.5,
    ) -> None:
        super().__init__()
        if min(*sizes, *ratios, stride) <= 0:
            raise ValueError(
                f'sizes={sizes}, ratios={ratios}, stride={stride}: expected numbers '
                'above 0.'
            )
        self.sizes, self.ratios, self.stride = sizes, ratios, stride

    def forward(
        self,
        images: Sequence[Tensor],
        data_samples: Sequence[DetDataSample],  # noqa: ARG002
    ) -> list[Proposals]:
        """Proposals of each image (3, H, W), all of confidence 1."""
        grids = [torch.from_numpy(self.grid(*image.shape[-2:])) for image in images]
        return [
            Proposals(grid.to(image.device), torch.ones(len(grid), device=image.device))
            for grid, image in zip(grids, images, strict=True)
        ]

    def grid(self, height: int, width: int) -> np.ndarray:
        """Boxes (K, 4) for an image of a size, xyxy in pixels, float32."""
        short, boxes = min(height, width), []
        for size in self.sizes:
            for ratio in self.ratios:
                sides = min(size * short * ratio, width), min(size * short, height)
                starts = []
                for whole, side in zip((width, height), sides, strict=True):
                    steps = int(-(-(whole - side) // (self.stride * side)))
                    starts.append(np.linspace(0, whole - side, 1 + steps))
                left, top = (part.ravel() for part in np.meshgrid(*starts))
                boxes.append(np.stack([left, top, left + sides[0], top + sides[1]], 1))
        return np.concatenate(boxes).astype(np.float32)


@MODELS.register_module()
class FileProposals(BaseModule):
    """Detections of a file, in COCO's format or MMDetection's.

    The file is read when first needed.

    Args:
        detections (str): COCO results or annotations (``.json``), what
            ``DumpDetResults`` wrote (``.pkl``), or the folder that ``DetInferencer``
            wrote; boxes in pixels of the original images.
        instances (str, optional): COCO file with ``images`` and ``categories``.
            Defaults to None: the detections have both.
        images (str, optional): Folder of the images, where ``instances`` has no sizes.
            Defaults to None.
        min_score (float): Less sure detections are left out. Defaults to 0.
        ignore_unknown_images (bool): Whether detections of images that ``instances``
            does not list are left out, or an error. Defaults to False.
    """

    def __init__(
        self,
        detections: str,
        instances: str | None = None,
        images: str | None = None,
        min_score: float = 0.0,
        ignore_unknown_images: bool = False,
    ) -> None:
        super().__init__()
        self.detections, self.instances = detections, instances
        self.inputs = InputFiles(
            Path(detections),
            Path(instances) if instances else None,
            Path(images) if images else None,
            min_score=min_score,
            ignore_unknown_images=ignore_unknown_images,
        )

    def init_weights(self) -> None:
        """Read the file, so that its errors come before the first batch."""
        _ = self.by_image

    @cached_property
    def by_image(self) -> Mapping[str, tuple[Detection, ...]]:
        """The detections by file name of the image."""
        scenes, _ = read_scenes(self.inputs)
        return {scene.file_name: scene.detections for scene in scenes}

    def _of(self, sample: DetDataSample) -> tuple[Detection, ...]:
        path = sample.get('img_path')
        # The file's names are relative to some folder above the image.
        parts = PurePath(path or '').parts
        for start in range(len(parts) - 1, -1, -1):
            if (name := '/'.join(parts[start:])) in self.by_image:
                return self.by_image[name]
        raise ValueError(
            f'{self.instances or self.detections} lists no image {path!r}, so '
            f'{self.detections} has no proposals for it: detect on this image as well, '
            "or use another detector's file, or DetectorProposals or GridProposals."
        )

    def forward(
        self, images: Sequence[Tensor], data_samples: Sequence[DetDataSample]
    ) -> list[Proposals]:
        """Proposals of each image (3, H, W), for its file's name."""
        proposals = []
        for image, sample in zip(images, data_samples, strict=True):
            items = self._of(sample)
            boxes = torch.tensor([item.box for item in items], device=image.device)
            scale = boxes.new_tensor(tuple(sample.get('scale_factor', (1, 1))) * 2)
            scores = torch.tensor([item.score for item in items], device=image.device)
            names = [item.name for item in items]
            proposals.append(Proposals(boxes.reshape(-1, 4) * scale, scores, names))
        return proposals


@MODELS.register_module()
class DetectorProposals(BaseModule):
    """Predictions of any detector of MMDetection, which runs inside.

    Args:
        detector (str or dict): Config with ``model`` and ``test_dataloader``: a file,
            a name of MMDetection's ('mmdet::rtmdet/rtmdet_l_8xb32-300e_coco.py'), or
            the dict itself.
        checkpoint (str, optional): Its weights, a file or an address, loaded by
            :meth:`init_weights`. Defaults to None: those that its config begins with.
        min_score (float): Less sure predictions are left out. Defaults to 0.05.
    """

    def __init__(
        self,
        detector: str | ConfigType,
        checkpoint: str | None = None,
        min_score: float = 0.05,
    ) -> None:
        super().__init__()
        cfg: Any = detector
        if isinstance(detector, str):
            is_named = detector.startswith('mmdet::')
            cfg = get_config(detector) if is_named else Config.fromfile(detector)
        self.checkpoint, self.min_score = checkpoint, min_score
        self.detector = MODELS.build(cfg['model'])
        data = cfg['test_dataloader']['dataset']
        steps = [
            s for s in data['pipeline'] if s['type'].split('.')[-1] not in _LOADERS
        ]
        self.pipeline = Compose(steps)
        known = getattr(DATASETS.get(data.get('type', '')), 'METAINFO', {})
        self.classes = dict(known, **data.get('metainfo', {})).get('classes')

    def init_weights(self) -> None:
        """Load the checkpoint."""
        if self.checkpoint is None:
            self.detector.init_weights()
            return
        loaded = load_checkpoint(self.detector, self.checkpoint, map_location='cpu')
        meta = loaded.get('meta', {}).get('dataset_meta') or {}
        self.classes = meta.get('classes', self.classes)

    def forward(
        self,
        images: Sequence[Tensor],
        data_samples: Sequence[DetDataSample],  # noqa: ARG002
    ) -> list[Proposals]:
        """Proposals of each image (3, H, W), which is RGB, uint8."""
        data = []
        for number, image in enumerate(images):
            array = np.ascontiguousarray(image.flip(0).permute(1, 2, 0).cpu().numpy())
            size = array.shape[:2]
            info = dict(img=array, img_id=number, img_shape=size, ori_shape=size)
            data.append(self.pipeline(info))
        model: nn.Module = self.detector
        predicted = model.test_step(pseudo_collate(data))  # type: ignore[operator]
        return [self._proposals(sample.pred_instances) for sample in predicted]

    def _proposals(self, found: Any) -> Proposals:
        found = found[found.scores >= self.min_score]
        names = None
        if self.classes is not None:
            names = [
                str(self.classes[label]).lower() for label in found.labels.tolist()
            ]
        boxes = getattr(found.bboxes, 'tensor', found.bboxes)
        return Proposals(boxes.float(), found.scores.float(), names)
