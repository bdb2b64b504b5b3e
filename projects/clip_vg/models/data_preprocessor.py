"""Normalise letterboxed images, and tell which of their pixels are padding."""

import torch
from mmdet.models import DetDataPreprocessor
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from torch import Tensor

from .visual_token_cache import content_key

__all__ = ['GroundingDataPreprocessor', 'pixel_padding']


@MODELS.register_module()
class GroundingDataPreprocessor(DetDataPreprocessor):
    """``DetDataPreprocessor`` that pads after the normalisation.

    Modifications:

    * the border that ``Letterbox`` added is set to 0 *after* normalising, as in
      the official code; where it lies is in the sample's ``letterbox``;
    * images of one batch are not letterboxed further: they have one size;
    * with ``gives_content_keys`` samples have a ``content_key`` of their image.
    """

    # Of a model that looks up images in a cache. Keys are made here, since what comes
    # in is smaller than what goes out, and on the host.
    gives_content_keys = False

    def forward(self, data: dict, training: bool = False) -> dict:
        """Normalise and stack; see :class:`DetDataPreprocessor`."""
        # Augmentation of batches comes later: the key would be one of another image.
        augmented = training and self.batch_augments is not None
        samples = data['data_samples']
        if self.gives_content_keys and not augmented and samples is not None:
            for image, sample in zip(data['inputs'], samples, strict=True):
                sample.set_metainfo(dict(content_key=content_key(image, sample)))
        data = super().forward(data, training)
        if data['data_samples'] is not None:
            # 0 after the normalisation is the mean colour; a border that was black
            # before it would be another input than that of the official code.
            padding = pixel_padding(data['data_samples'], data['inputs'])
            data['inputs'] = data['inputs'].masked_fill(padding[:, None], 0.0)
        return data


def pixel_padding(data_samples: list[DetDataSample], inputs: Tensor) -> Tensor:
    """Which pixels of a batch are padding.

    Args:
        data_samples (list[DetDataSample]): B samples. ``letterbox`` is
            (left, top, width, height) of the image in the input, in pixels;
            without it the image fills ``img_shape`` from the top left.
        inputs (Tensor): Of shape (B, 3, H, W).

    Returns:
        Tensor: Bool, of shape (B, H, W); True where padded.
    """
    padding = torch.ones(
        inputs.shape[0], *inputs.shape[-2:], dtype=torch.bool, device=inputs.device
    )
    for mask, sample in zip(padding, data_samples, strict=True):
        height, width = sample.img_shape[:2]
        left, top, width, height = sample.get('letterbox', (0, 0, width, height))
        mask[top : top + height, left : left + width] = False
    return padding
