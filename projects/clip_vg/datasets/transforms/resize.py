"""Resize pictures with PIL, bit for bit as the release does."""

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmdet.registry import TRANSFORMS
from PIL import Image

__all__ = ['PILResize']


@TRANSFORMS.register_module()
class PILResize(BaseTransform):
    """Bring the long or the short side to a size, keeping the shape.

    PIL's bilinear filter is antialiased; OpenCV's gives other pixels. Boxes, xyxy
    in pixels, are scaled by the one ratio of both sides, while the new sides are
    rounded, as in the release.

    Args:
        size (int or Sequence[int]): The side in pixels; of several, one is drawn.
        side (str): 'long' or 'short'. Defaults to 'long'.
    """

    def __init__(self, size: int | Sequence[int], side: str = 'long') -> None:
        if side not in ('long', 'short'):
            raise ValueError(f"side must be 'long' or 'short', got {side!r}.")
        self.sizes = [size] if isinstance(size, int) else list(size)
        self.side = side

    @cache_randomness
    def _draw(self) -> int:
        return int(np.random.choice(self.sizes))

    def transform(self, results: dict) -> dict:
        """Resize ``img`` and ``gt_bboxes``; update ``scale_factor`` (w, h)."""
        height, width = results['img'].shape[:2]
        size = self.sizes[0] if len(self.sizes) == 1 else self._draw()
        reference = (max if self.side == 'long' else min)(height, width)
        ratio = size / reference
        # The ratio first, as in the official code (its resize_according_to_long_side):
        # 640 x 330 becomes 115 rows, where 330 * 224 / 640 = 115.5 would become 116.
        new = [max(1, round(side * ratio)) for side in (width, height)]
        if new != [width, height]:
            picture = Image.fromarray(results['img'])
            results['img'] = np.asarray(picture.resize(new, Image.Resampling.BILINEAR))
        results['img_shape'] = results['img'].shape[:2]
        old = results.get('scale_factor', (1.0, 1.0))
        results['scale_factor'] = (old[0] * ratio, old[1] * ratio)
        results['keep_ratio'] = True
        if 'gt_bboxes' in results:
            results['gt_bboxes'].rescale_((ratio, ratio))
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(size={self.sizes}, side={self.side!r})'
