"""The transforms of an exported folder in NumPy and Pillow.

They give the pixels that those of ``projects.clip_vg`` give there, bit by bit.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from .deployment_file import NAME, Deployment

__all__ = [
    'Prepared',
    'Preprocessing',
    'letterbox_offset',
    'patch_padding',
    'resized_size',
    'valid_tokens',
]

# What needs a file or labels, or packs; the image is given here.
_WITHOUT_PIXELS = {
    *('LoadGroundingImage', 'LoadImageFromFile', 'LoadAnnotations'),
    'PackGroundingInputs',
}
_PREPROCESSOR = {'type', 'mean', 'std', 'bgr_to_rgb', 'rgb_to_bgr'}


def resized_size(
    width: int, height: int, size: int, side: str = 'long'
) -> tuple[tuple[int, int], float]:
    """(width, height) of an image whose long or short side becomes ``size``.

    Args:
        width (int): In pixels.
        height (int): In pixels.
        size (int): In pixels.
        side (str): 'long' or 'short'. Defaults to 'long'.

    Returns:
        tuple: The rounded sides, and the one ratio of both, by which boxes are scaled.
    """
    ratio = size / (max if side == 'long' else min)(height, width)
    # The ratio first, as in the official code (its resize_according_to_long_side):
    # 640 x 330 becomes 115 rows, where 330 * 224 / 640 = 115.5 would become 116.
    return (max(1, round(width * ratio)), max(1, round(height * ratio))), ratio


def letterbox_offset(margin: int) -> int:
    """Where an image begins in a square that is longer by ``margin``, centred."""
    return max(0, round(margin / 2 - 0.1))


class Prepared(NamedTuple):
    """An image as the graphs take it.

    Attributes:
        pixels (np.ndarray): Normalised, of shape (3, H, W), float32.
        padding (np.ndarray): True where a patch is padding, of shape (P, ).
        corner (tuple[int, int]): Left and top of the image in the padded input.
        scale (float): Its size in the padded input to that of the original.
        shape (tuple[int, int]): Height and width of the original.
    """

    pixels: np.ndarray
    padding: np.ndarray
    corner: tuple[int, int]
    scale: float
    shape: tuple[int, int]


class Preprocessing:
    """From images to the inputs of the graphs: resize, letterbox, normalise.

    Args:
        deployment (Deployment): Of an exported folder.
        folder (Path): The folder, for errors.

    Raises:
        ValueError: Its pipeline has other transforms, or other arguments, than are
            carried out here.
    """

    def __init__(self, deployment: Deployment, folder: Path) -> None:
        self.source = str(folder / NAME)
        self.grid_size = tuple(deployment.grid_size)
        self.mean, self.std, self.is_rgb = self._colors(deployment.data_preprocessor)
        self.resizes, self.side = self._geometry(deployment.pipeline)
        if list(deployment.image_size) != [self.side] * 2:
            raise ValueError(
                f'{self.source}: Letterbox makes a square of {self.side} pixels, but '
                f"'image_size' is {deployment.image_size}. Export again."
            )

    def _colors(
        self, options: Mapping[str, Any]
    ) -> tuple[np.ndarray, np.ndarray, bool]:
        """Mean and deviation of the channels, and whether their order is RGB."""
        kind = options.get('type')
        if kind != 'GroundingDataPreprocessor' or options.keys() - _PREPROCESSOR:
            raise ValueError(
                f"{self.source}, 'data_preprocessor': {dict(options)}; expected a "
                f'GroundingDataPreprocessor with {sorted(_PREPROCESSOR - {"type"})} '
                'alone. Other options need MMDetection: use GroundingInferencer.'
            )
        mean, std = (self._channels(options, name) for name in ('mean', 'std'))
        return mean, std, bool(options.get('bgr_to_rgb') or options.get('rgb_to_bgr'))

    def _channels(self, options: Mapping[str, Any], name: str) -> np.ndarray:
        """Three numbers of the preprocessor, of shape (3, 1, 1)."""
        values = options.get(name)
        if not (
            isinstance(values, list)
            and len(values) == 3
            and all(isinstance(value, (int, float)) for value in values)
        ):
            raise ValueError(
                f"{self.source}, 'data_preprocessor': {name} is {values!r}; expected "
                'three numbers. Export again.'
            )
        return np.array(values, np.float32)[:, None, None]

    def _geometry(
        self, pipeline: Sequence[Mapping[str, Any]]
    ) -> tuple[list[tuple[int, str]], int]:
        """What resizes, and the side of the square."""
        steps = [s for s in pipeline if s.get('type') not in _WITHOUT_PIXELS]
        *before, last = steps or [{}]
        resizes = []
        for step in before:
            if not _is_step(step, 'PILResize', side=('long', 'short')):
                self._refuse(step, "PILResize of one size, 'long' or 'short'")
            resizes.append((_size(step), step.get('side', 'long')))
        if not _is_step(last, 'Letterbox', placement=('center',)):
            self._refuse(last, 'a last Letterbox of one size, centred')
        return resizes, _size(last)

    def _refuse(self, step: Mapping[str, Any], expected: str) -> None:
        raise ValueError(
            f"{self.source}, 'pipeline': {step.get('type', 'no transform')!r} with "
            f'{ {k: v for k, v in step.items() if k != "type"} }; expected {expected}. '
            'Other transforms need MMDetection: use GroundingInferencer.'
        )

    def __call__(self, image: np.ndarray) -> Prepared:
        """Prepare an image.

        Args:
            image (np.ndarray): RGB of shape (H, W, 3), uint8.

        Raises:
            ValueError: It does not fit into the square.
        """
        shape, scale = image.shape[:2], 1.0
        for size, side in self.resizes:
            height, width = image.shape[:2]
            new, ratio = resized_size(width, height, size, side)
            if new != (width, height):
                image = np.asarray(
                    Image.fromarray(image).resize(new, Image.Resampling.BILINEAR)
                )
            scale *= ratio
        height, width = image.shape[:2]
        if max(height, width) > self.side:
            raise ValueError(
                f'An image of {shape[1]} x {shape[0]} pixels is {width} x {height} '
                f'after resizing and does not fit into the square of {self.side} of '
                f'{self.source}.'
            )
        left, top = (letterbox_offset(self.side - edge) for edge in (width, height))
        channels = image.transpose(2, 0, 1)
        channels = channels if self.is_rgb else channels[::-1]
        pixels = np.zeros((3, self.side, self.side), np.float32)
        # 0 after the normalisation is the mean colour, as in training.
        inside = slice(top, top + height), slice(left, left + width)
        pixels[:, inside[0], inside[1]] = (channels - self.mean) / self.std
        padding = np.ones((1, self.side, self.side), bool)
        padding[:, inside[0], inside[1]] = False
        (patches,) = patch_padding(padding, self.grid_size)
        return Prepared(pixels, patches, (left, top), scale, shape)


def _size(step: Mapping[str, Any]) -> Any:
    """The size of a transform; of a list of one, that one."""
    size = step.get('size')
    return size[0] if isinstance(size, list) and len(size) == 1 else size


def _is_step(step: Mapping[str, Any], kind: str, **choices: Sequence[str]) -> bool:
    """Whether a transform is of a kind, with a size and one of the choices."""
    size = _size(step)
    return (
        step.get('type') == kind
        and type(size) is int
        and size > 0
        and step.keys() <= {'type', 'size', *choices}
        and all(step.get(name, known[0]) in known for name, known in choices.items())
    )


def patch_padding(padding: np.ndarray, grid_size: Sequence[int]) -> np.ndarray:
    """Which patches are padding, as the official code decides it.

    The pixel mask is resized bilinearly without antialiasing and rounded half to even,
    as ``projects.clip_vg`` does by PyTorch.

    Args:
        padding (np.ndarray): Bool, of shape (B, H, W).
        grid_size (Sequence[int]): Rows and columns of patches.

    Returns:
        np.ndarray: Bool, of shape (B, rows * columns).
    """
    (y0, y1, wy), (x0, x1, wx) = (
        _neighbours(length, count)
        for length, count in zip(padding.shape[1:], grid_size, strict=True)
    )
    mask, wy = padding.astype(np.float32), wy[:, None]
    upper, lower = (
        (1 - wx) * rows[..., x0] + wx * rows[..., x1]
        for rows in (mask[:, y0], mask[:, y1])
    )
    resized = (1 - wy) * upper + wy * lower
    return resized.round().astype(bool).reshape(len(padding), -1)


def _neighbours(length: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both pixels that each centre lies between, and the weight of the second."""
    # In float32 throughout, as PyTorch.
    step, half = np.array([length / count, 0.5], np.float32)
    centres = np.maximum(step * (np.arange(count, dtype=np.float32) + half) - half, 0)
    first = centres.astype(np.int64)
    return first, np.minimum(first + 1, length - 1), centres - first.astype(np.float32)


def valid_tokens(
    patch_padding: np.ndarray, class_token: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the class token and of the patches that are no padding.

    Args:
        patch_padding (np.ndarray): True where a patch is padding, of shape (B, P).
        class_token (bool): Whether one is before the patches. Defaults to True.

    Returns:
        tuple[np.ndarray, np.ndarray]: Numbers of tokens, 0 the class token or the first
        patch, of shape (B, K), int64, K the most that an image has; and which of them
        are padding, bool.
    """
    # The class token is always valid.
    padding = np.pad(patch_padding, ((0, 0), (int(class_token), 0)))
    count = int((~padding).sum(1).max())
    # Stable: patches stay in the order of the grid.
    valid = padding.argsort(axis=1, kind='stable')[:, :count]
    return valid, np.take_along_axis(padding, valid, 1)
