"""CLIP-VG: visual grounding with the two towers of CLIP (arXiv 2305.08685)."""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, OptSampleList, SampleList
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmdet.utils import ConfigType
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn import functional as F

from .box_head import input_whwh
from .data_preprocessor import pixel_padding
from .frozen_weights import fill_frozen

__all__ = ['CLIPVG']

_FUSED_AT_ONCE = 32  # expressions, in prediction: more are no faster on a CPU


@MODELS.register_module()
class CLIPVG(BaseDetector):
    """One box per expression: CLIP's towers, a fusion transformer, a box head.

    An image is encoded once for all its expressions, and the answers do not
    depend on how expressions are grouped.

    Args:
        visual_encoder (dict): Config of the visual tower.
        text_encoder (dict): Config of the text tower.
        fusion (dict): Config of the fusion; widths and counts are taken from the
            towers.
        bbox_head (dict): Config of the box head; its width is the fusion's.
        data_preprocessor (dict, optional): Config of the preprocessor.
        init_cfg (dict, optional): Initialisation config. Defaults to None.
    """

    def __init__(
        self,
        visual_encoder: ConfigType,
        text_encoder: ConfigType,
        fusion: ConfigType,
        bbox_head: ConfigType,
        data_preprocessor: ConfigType | None = None,
        init_cfg: ConfigType | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.visual_encoder = MODELS.build(visual_encoder)
        self.text_encoder = MODELS.build(text_encoder)
        self.fusion = MODELS.build(
            dict(
                visual_channels=self.visual_encoder.out_channels,
                text_channels=self.text_encoder.out_channels,
                grid_size=self.visual_encoder.grid_size,
                context_length=self.text_encoder.context_length,
                **fusion,
            )
        )
        self.bbox_head = MODELS.build(
            dict(embed_dims=self.fusion.embed_dims, **bbox_head)
        )

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any
    ) -> None:
        """Refuse weights of another model; MMEngine's loader would only warn."""
        fill_frozen(state_dict, prefix, self)
        given = {
            name.removeprefix(prefix): tuple(value.shape)
            for name, value in state_dict.items()
            if name.startswith(prefix)
        }
        own = {name: tuple(value.shape) for name, value in self.state_dict().items()}
        wrong = {
            'missing': sorted(own.keys() - given.keys()),
            'unexpected': sorted(given.keys() - own.keys()),
            'of another shape': [
                f'{name} {given[name]} instead of {own[name]}'
                for name in own.keys() & given.keys()
                if given[name] != own[name]
            ],
        }
        found = [f'{len(v)} {k}, e.g. {v[:2]}' for k, v in wrong.items() if v]
        if found:
            raise ValueError(
                f'The checkpoint is not of this model: {"; ".join(found)}. Build the '
                'model with the config that the checkpoint was trained with (it is in '
                "its meta['cfg'])."
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extract_feat(self, batch_inputs: Tensor) -> Tensor:
        """Visual tokens (B, 1 + P, C) of normalised images (B, 3, H, W)."""
        return self.visual_encoder(batch_inputs)

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict:
        """Losses against ``gt_instances``, xyxy in pixels of the padded input."""
        tokens = self._forward(batch_inputs, batch_data_samples)
        return self.bbox_head.loss(tokens, batch_data_samples)

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True
    ) -> SampleList:
        """Answer every expression of every image.

        Args:
            batch_inputs (Tensor): Normalised images of shape (B, 3, H, W).
            batch_data_samples (list[:obj:`DetDataSample`]): B samples with
                ``text``, one expression or several.
            rescale (bool): Whether boxes are in pixels of the original image, or
                of the padded input. Defaults to True.

        Returns:
            list[:obj:`DetDataSample`]: The samples with ``pred_instances``:
            ``bboxes`` (E, 4) xyxy, clamped to the padded input as in the
            release; ``scores`` (1, as the method gives none), ``labels`` 0, 1,
            ...; ``label_names``, the expressions.
        """
        tokens = self._forward(batch_inputs, batch_data_samples)
        boxes = bbox_cxcywh_to_xyxy(self.bbox_head(tokens)).clamp(0, 1)
        counts = [len(_expressions(sample)) for sample in batch_data_samples]
        for sample, own in zip(batch_data_samples, boxes.split(counts), strict=True):
            own = own * input_whwh(sample.batch_input_shape, own)
            if rescale:
                own = _to_original(own, sample)
            sample.pred_instances = InstanceData(
                bboxes=own,
                scores=own.new_ones(len(own)),
                labels=torch.arange(len(own), device=own.device),
                label_names=_expressions(sample),
            )
        return batch_data_samples

    def _forward(
        self, batch_inputs: Tensor, batch_data_samples: OptSampleList = None
    ) -> Tensor:
        """Fused ``[REG]`` tokens (E, D) of all expressions, image by image."""
        if not batch_data_samples:
            raise ValueError('CLIPVG needs data samples: they hold the expressions.')
        texts = [_expressions(sample) for sample in batch_data_samples]
        token_ids = self.text_encoder.tokenize(
            [expression for group in texts for expression in group]
        ).to(batch_inputs.device)
        image_index = torch.arange(
            len(texts), device=batch_inputs.device
        ).repeat_interleave(
            torch.tensor([len(group) for group in texts], device=batch_inputs.device)
        )
        padding = patch_padding(
            pixel_padding(batch_data_samples, batch_inputs),
            self.visual_encoder.grid_size,
        )
        visual, text = self.extract_feat(batch_inputs), self.text_encoder(token_ids)
        # The fusion's memory grows with the expressions, not with the images; where
        # nothing is kept for a backward pass, a part of them at a time is enough.
        at_once = len(text) if torch.is_grad_enabled() else _FUSED_AT_ONCE
        tokens = []
        for start in range(0, len(text), at_once):
            part = slice(start, start + at_once)
            images = slice(int(image_index[part][0]), int(image_index[part][-1]) + 1)
            tokens.append(
                self.fusion(
                    visual[images],
                    padding[images],
                    text[part],
                    token_ids[part] == 0,
                    image_index[part] - image_index[part][0],
                )
            )
        return torch.cat(tokens)


def patch_padding(padding: Tensor, grid_size: tuple[int, int]) -> Tensor:
    """Which patches are padding, as the release decides it.

    The pixel mask is resized bilinearly without antialiasing and rounded half to
    even, so a patch is padding when its centre is (torchvision 0.10, which the
    release pins; newer versions antialias).

    Args:
        padding (Tensor): Bool, of shape (B, H, W).
        grid_size (tuple[int, int]): Rows and columns of patches.

    Returns:
        Tensor: Bool, of shape (B, rows * columns).
    """
    resized = F.interpolate(
        padding[:, None].float(), grid_size, mode='bilinear', align_corners=False
    )
    return resized.round().bool().flatten(1)


def _expressions(sample: DetDataSample) -> list[str]:
    """The expressions of a sample as a list."""
    text: str | Sequence[str] | None = sample.get('text')
    if text is None or len(text) == 0 and not isinstance(text, str):
        raise ValueError(
            f'{sample.get("img_path", "A sample")} has no expression: put `text` '
            'into the sample and its key into `meta_keys` of PackGroundingInputs.'
        )
    return [text] if isinstance(text, str) else list(text)


def _to_original(boxes: Tensor, sample: DetDataSample) -> Tensor:
    """From pixels of the padded input to pixels of the original image, xyxy."""
    left, top = sample.get('letterbox', (0, 0))[:2]
    offset = boxes.new_tensor([left, top, left, top])
    return (boxes - offset) / boxes.new_tensor(sample.scale_factor).repeat(2)
