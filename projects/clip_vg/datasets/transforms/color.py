"""Colour jitter as torchvision does it on PIL images."""

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from PIL import Image
from torchvision.transforms import ColorJitter

__all__ = ['PILColorJitter']


@TRANSFORMS.register_module()
class PILColorJitter(BaseTransform):
    """Brightness, contrast and saturation, in random order.

    Args:
        brightness (float): Factor is drawn from 1 -+ this. Defaults to 0.4.
        contrast (float): Defaults to 0.4.
        saturation (float): Defaults to 0.4.
        prob (float): Defaults to 0.8.
    """

    def __init__(
        self,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
        prob: float = 0.8,
    ) -> None:
        self.jitter = ColorJitter(brightness, contrast, saturation)
        self.prob = prob

    def transform(self, results: dict) -> dict:
        """Jitter ``img`` (BGR, uint8)."""
        if np.random.random() < self.prob:
            # In RGB: saturation weighs the channels, and BGR would exchange two.
            image = Image.fromarray(np.ascontiguousarray(results['img'][..., ::-1]))
            results['img'] = np.ascontiguousarray(
                np.asarray(self.jitter(image))[..., ::-1]
            )
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.jitter}, prob={self.prob})'
