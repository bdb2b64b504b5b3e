"""Geometry of images and their boxes: resize, letterbox, crop."""

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmdet.registry import TRANSFORMS
from PIL import Image

from projects.clip_vg_core.runtime.preprocessing import letterbox_offset, resized_size

__all__ = ['Letterbox', 'PILResize', 'ReferentCrop']


@TRANSFORMS.register_module()
class PILResize(BaseTransform):
    """Bring the long or the short side to a size, keeping the shape.

    PIL's bilinear filter is antialiased; OpenCV's gives other pixels. Boxes, xyxy
    in pixels, are scaled by the one ratio of both sides, while the new sides are
    rounded, as in the official code.

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
        new, ratio = resized_size(width, height, size, self.side)
        if new != (width, height):
            image = Image.fromarray(results['img'])
            results['img'] = np.asarray(image.resize(new, Image.Resampling.BILINEAR))
        results['img_shape'] = results['img'].shape[:2]
        old = results.get('scale_factor', (1.0, 1.0))
        results['scale_factor'] = (old[0] * ratio, old[1] * ratio)
        results['keep_ratio'] = True
        if 'gt_bboxes' in results:
            results['gt_bboxes'].rescale_((ratio, ratio))
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(size={self.sizes}, side={self.side!r})'


@TRANSFORMS.register_module()
class Letterbox(BaseTransform):
    """Pad an image to a square of ``size``; remember where it lies.

    The border is made zero after normalisation by ``GroundingDataPreprocessor``;
    here it is black. ``letterbox`` is (left, top, width, height) of the image
    in the square, in pixels.

    Args:
        size (int): Side of the square in pixels.
        placement (str): 'center' (evaluation) or 'random' (training). Defaults to
            'center', where ``top = round(dh / 2 - 0.1)`` as in the official code, the
            same for left.

    Raises:
        ValueError: The image does not fit.
    """

    def __init__(self, size: int, placement: str = 'center') -> None:
        if placement not in ('center', 'random'):
            raise ValueError(
                f"placement must be 'center' or 'random', got {placement!r}."
            )
        self.size = size
        self.placement = placement

    @cache_randomness
    def _draw(self, margin: int) -> int:
        return int(np.random.randint(margin + 1))

    def _offset(self, margin: int) -> int:
        if self.placement == 'random':
            return self._draw(margin)
        return letterbox_offset(margin)

    def transform(self, results: dict) -> dict:
        """Pad ``img``, shift ``gt_bboxes`` (xyxy pixels), set ``letterbox``."""
        image = results['img']
        height, width = image.shape[:2]
        if max(height, width) > self.size:
            raise ValueError(
                f'{results.get("img_path", "An image")} is {height} x {width} after '
                f'resizing and does not fit into a square of {self.size}: set '
                '`size` of '
                'PILResize and of Letterbox alike.'
            )
        top = self._offset(self.size - height)
        left = self._offset(self.size - width)
        square = np.zeros((self.size, self.size, *image.shape[2:]), image.dtype)
        square[top : top + height, left : left + width] = image
        results['img'] = square
        results['img_shape'] = (self.size, self.size)
        results['letterbox'] = (left, top, width, height)
        if 'gt_bboxes' in results:
            results['gt_bboxes'].translate_((left, top))
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.size}, {self.placement!r})'


@TRANSFORMS.register_module()
class ReferentCrop(BaseTransform):
    """Random crop that keeps the centre of every referred box.

    Width and height are drawn independently, then the place, evenly among those
    that keep the centres: all places where no expression has a referent. Boxes, xyxy in
    pixels, are cut at the crop.

    With ``official``, the crop of the official code (its ``RandomSizeCrop``): size and
    place are drawn anew, up to 20 times, until the centre's x is greater than the
    crop's *top* and its y greater than the crop's *left*; to the right and below
    nothing is compared. The image stays whole where no draw passes. This loses the
    referent's centre in 9.0 % of RefCOCO's crops and 14.0 % of RefCOCO+'s.

    Args:
        min_size (int): Smallest side in pixels. Defaults to 384.
        max_size (int): Largest side in pixels. Defaults to 600.
        official (bool): Whether to crop as the official code. Defaults to False.
    """

    _OFFICIAL_TRIES = 20

    def __init__(
        self, min_size: int = 384, max_size: int = 600, official: bool = False
    ) -> None:
        self.min_size = min_size
        self.max_size = max_size
        self.official = official

    @cache_randomness
    def _draw(self, low: int, high: int) -> int:
        return int(np.random.randint(low, high + 1))

    def _draw_length(self, side: int) -> int:
        return self._draw(min(side, self.min_size), min(side, self.max_size))

    def _window(self, side: int, centres: np.ndarray) -> tuple[int, int] | None:
        """Start and length of the crop on one side, or None if none can do."""
        length = self._draw_length(side)
        low = max(0, int(np.ceil(centres.max(initial=0))) - length)
        high = min(side - length, int(np.floor(centres.min(initial=side))))
        return (self._draw(low, high), length) if low <= high else None

    def _region(
        self, width: int, height: int, centres: np.ndarray
    ) -> tuple[int, int, int, int] | None:
        """Left, top, width and height of a crop that keeps the centres, or None."""
        across = self._window(width, centres[:, 0])
        down = self._window(height, centres[:, 1])
        if across is None or down is None:
            return None
        return across[0], down[0], across[1], down[1]

    def _official_region(
        self, width: int, height: int, centres: np.ndarray
    ) -> tuple[int, int, int, int] | None:
        """Left, top, width and height as the official code draws them, or None."""
        for _ in range(self._OFFICIAL_TRIES):
            new_width, new_height = self._draw_length(width), self._draw_length(height)
            top = self._draw(0, height - new_height)
            left = self._draw(0, width - new_width)
            # x with top and y with left, as there.
            if (centres > (top, left)).all():
                return left, top, new_width, new_height
        return None

    def transform(self, results: dict) -> dict:
        """Crop ``img`` and ``gt_bboxes``; leave both where no crop can do."""
        height, width = results['img'].shape[:2]
        boxes = results['gt_bboxes']
        # A centre may lie outside by the fraction that a real box does.
        centres = boxes.centers.numpy().clip(0, (width, height))
        find = self._official_region if self.official else self._region
        region = find(width, height, centres)
        if region is None:
            return results
        left, top, new_width, new_height = region
        results['img'] = np.ascontiguousarray(
            results['img'][top : top + new_height, left : left + new_width]
        )
        results['img_shape'] = results['img'].shape[:2]
        boxes.translate_((-left, -top))
        boxes.clip_(results['img_shape'])
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}({self.min_size}, {self.max_size}, '
            f'official={self.official})'
        )
