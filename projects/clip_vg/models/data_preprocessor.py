"""Normalise letterboxed images, and tell which of their pixels are padding."""

from collections.abc import Mapping
from typing import Any

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
    * the host waits for no transfer to a GPU: images are stacked there before they are
      normalised, and ``target_labels`` of a sample, the labels of its boxes as numbers,
      are read before;
    * with ``gives_content_keys`` samples have a ``content_key`` of their image.

    Args:
        non_blocking (bool): Whether the host goes on while data is transferred, which
            with ``pin_memory=True`` of the data loader is at the side of the
            computation. Defaults to True.
        args: Of :class:`DetDataPreprocessor`.
        kwargs: Of :class:`DetDataPreprocessor`.
    """

    # Of a model that looks up images in a cache. Keys are made here, since what comes
    # in is smaller than what goes out, and on the host.
    gives_content_keys = False

    _channel_conversion: bool

    def __init__(self, *args: Any, non_blocking: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, non_blocking=non_blocking, **kwargs)
        # MMEngine selects channels by a list, which it would copy for each image.
        self._flips_channels = self._channel_conversion
        self._channel_conversion = False

    def cast_data(self, data: Any) -> Any:
        """Transfer data to the device; images of one size are stacked there."""
        data = super().cast_data(data)
        if isinstance(data, Mapping) and 'inputs' in data:
            inputs = data['inputs']
            if not isinstance(inputs, Tensor) and len({i.shape for i in inputs}) == 1:
                inputs = torch.stack(list(inputs))
            if self._flips_channels:
                inputs = (
                    inputs.flip(1)
                    if isinstance(inputs, Tensor)
                    else [image.flip(0) for image in inputs]
                )
            data = dict(data, inputs=inputs)
        return data

    def forward(self, data: dict, training: bool = False) -> dict:
        """Normalise and stack; see :class:`DetDataPreprocessor`."""
        labels = [_target_labels(s) for s in data.get('data_samples') or ()]
        # Augmentation of batches comes later: the key would be one of another image.
        augmented = training and self.batch_augments is not None
        samples = data['data_samples']
        if self.gives_content_keys and not augmented and samples is not None:
            for image, sample in zip(data['inputs'], samples, strict=True):
                sample.set_metainfo(dict(content_key=content_key(image, sample)))
        data = super().forward(data, training)
        if data['data_samples'] is not None:
            for sample, own in zip(data['data_samples'], labels, strict=True):
                sample.set_metainfo(own)
            # 0 after the normalisation is the mean colour; a border that was black
            # before it would be another input than that of the official code.
            padding = pixel_padding(data['data_samples'], data['inputs'])
            data['inputs'] = data['inputs'].masked_fill(padding[:, None], 0.0)
        return data


def _target_labels(sample: DetDataSample) -> dict[str, list[int]]:
    """Labels of a sample's boxes as numbers, where the host need not wait for them."""
    labels = sample.gt_instances.get('labels') if 'gt_instances' in sample else None
    if labels is None or not labels.is_cpu:
        return {}
    return dict(target_labels=labels.tolist())


def pixel_padding(
    data_samples: list[DetDataSample],
    inputs: Tensor,
    device: torch.device | str | None = None,
) -> Tensor:
    """Which pixels of a batch are padding.

    Args:
        data_samples (list[DetDataSample]): B samples. ``letterbox`` is
            (left, top, width, height) of the image in the input, in pixels;
            without it the image fills ``img_shape`` from the top left.
        inputs (Tensor): Of shape (B, 3, H, W).
        device (torch.device or str, optional): Of the result. Defaults to None: that of
            ``inputs``.

    Returns:
        Tensor: Bool, of shape (B, H, W); True where padded.
    """
    padding = torch.ones(
        inputs.shape[0],
        *inputs.shape[-2:],
        dtype=torch.bool,
        device=device or inputs.device,
    )
    for mask, sample in zip(padding, data_samples, strict=True):
        height, width = sample.img_shape[:2]
        left, top, width, height = sample.get('letterbox', (0, 0, width, height))
        mask[top : top + height, left : left + width] = False
    return padding
