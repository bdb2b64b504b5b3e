"""Crop a picture so that what is referred to stays in it."""

import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmdet.registry import TRANSFORMS

__all__ = ['ReferentCrop']


@TRANSFORMS.register_module()
class ReferentCrop(BaseTransform):
    """Random crop that keeps the centre of every referred box.

    Width and height are drawn independently, then the place, evenly among those
    that keep the centres. Boxes, xyxy in pixels, are cut at the crop. (The
    release compares the centre's x with the crop's top; not repeated here.)

    Args:
        min_size (int): Smallest side in pixels. Defaults to 384.
        max_size (int): Largest side in pixels. Defaults to 600.
    """

    def __init__(self, min_size: int = 384, max_size: int = 600) -> None:
        self.min_size = min_size
        self.max_size = max_size

    @cache_randomness
    def _draw(self, low: int, high: int) -> int:
        return int(np.random.randint(low, high + 1))

    def _window(self, side: int, centres: np.ndarray) -> tuple[int, int] | None:
        """Start and length of the crop on one side, or None if none can do."""
        length = self._draw(min(side, self.min_size), min(side, self.max_size))
        low = max(0, int(np.ceil(centres.max())) - length)
        high = min(side - length, int(np.floor(centres.min())))
        return (self._draw(low, high), length) if low <= high else None

    def transform(self, results: dict) -> dict:
        """Crop ``img`` and ``gt_bboxes``; leave both where no crop can do."""
        height, width = results['img'].shape[:2]
        boxes = results['gt_bboxes']
        # A centre may lie outside by the fraction that a real box does.
        centres = boxes.centers.numpy().clip(0, (width, height))
        across = self._window(width, centres[:, 0])
        down = self._window(height, centres[:, 1])
        if across is None or down is None:
            return results
        (left, new_width), (top, new_height) = across, down
        results['img'] = np.ascontiguousarray(
            results['img'][top : top + new_height, left : left + new_width]
        )
        results['img_shape'] = results['img'].shape[:2]
        boxes.translate_((-left, -top))
        boxes.clip_(results['img_shape'])
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.min_size}, {self.max_size})'
