"""Put a picture into a square."""

import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmdet.registry import TRANSFORMS

__all__ = ['Letterbox']


@TRANSFORMS.register_module()
class Letterbox(BaseTransform):
    """Pad a picture to a square of ``size``; remember where it lies.

    The border is made zero after normalisation by ``GroundingDataPreprocessor``;
    here it is black. ``letterbox`` is (left, top, width, height) of the picture
    in the square, in pixels.

    Args:
        size (int): Side of the square in pixels.
        placement (str): 'center' (evaluation) or 'random' (training). Defaults to
            'center', where ``top = round(dh / 2 - 0.1)`` as in the release, the
            same for left.

    Raises:
        ValueError: The picture does not fit.
    """

    def __init__(self, size: int, placement: str = 'center') -> None:
        if placement not in ('center', 'random'):
            raise ValueError(
                f"placement must be 'center' or 'random', got {placement!r}."
            )
        self.size = size
        self.placement = placement

    @cache_randomness
    def _draw(self, room: int) -> int:
        return int(np.random.randint(room + 1))

    def _offset(self, room: int) -> int:
        if self.placement == 'random':
            return self._draw(room)
        return max(0, round(room / 2 - 0.1))

    def transform(self, results: dict) -> dict:
        """Pad ``img``, shift ``gt_bboxes`` (xyxy pixels), set ``letterbox``."""
        image = results['img']
        height, width = image.shape[:2]
        if max(height, width) > self.size:
            raise ValueError(
                f'{results.get("img_path", "A picture")} is {height} x {width} after '
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
