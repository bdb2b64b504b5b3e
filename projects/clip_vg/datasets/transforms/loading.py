"""Load a photograph as the official code does, with errors that help."""

import io
import os
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmdet.registry import TRANSFORMS
from mmengine import fileio
from PIL import Image

from projects.clip_vg_core.data.image_checks import why_missing
from projects.clip_vg_core.utils.image_files import (
    ImageDepthError,
    as_rgb,
    has_exif_rotation,
)

__all__ = ['LoadGroundingImage', 'turns_by_exif']

# MMCV's flags of what is decoded.
_AS_STORED = '_ignore_orientation'
_COLOR = ('color', f'color{_AS_STORED}')
# PIL's modes that MMCV makes RGB as :func:`as_rgb` does.
_PLAIN_MODES = ('1', 'L', 'P', 'RGB', 'RGBA', 'CMYK', 'YCbCr')


@TRANSFORMS.register_module()
class LoadGroundingImage(LoadImageFromFile):
    """``LoadImageFromFile`` with PIL, EXIF rotation off.

    Modifications:

    * PIL decodes, as in the official code; grey and CMYK images become colour, 16 bits
      a channel become 8, and what has 32 is refused;
    * EXIF rotation is ignored, since the boxes of REFER ignore it, unless ``upright``
      is given here or by the sample (``RefExpDataset(upright=True)``);
    * a missing or damaged image is one error that names it and its label;
    * after another loader (MMDetection's ``DetInferencer`` looks for one named
      ``LoadImageFromFile``), an image is read again only where it has an EXIF
      rotation, or a mode of which MMCV makes other pixels; without ``instances``
      there are no labels to match, and it stays as it was loaded.

    Args:
        upright (bool): Whether images are turned by their EXIF entry, as viewers do:
            for labels that were drawn so. Defaults to False.
        **kwargs: Of :class:`mmcv.transforms.LoadImageFromFile`.
    """

    def __init__(self, upright: bool = False, **kwargs: Any) -> None:
        super().__init__(
            **{
                'imdecode_backend': 'pillow',
                'color_type': f'color{_AS_STORED}',
                **kwargs,
            }
        )
        self.upright = upright or self.color_type == 'color'

    def transform(self, results: dict) -> dict | None:
        """Load ``img_path`` into ``img`` (H, W, 3), BGR, uint8.

        Raises:
            FileNotFoundError: There is no such image.
            ValueError: It cannot be decoded, or its size is not the annotated.
        """
        loaded = results.get('img')
        if loaded is not None and not results.keys() >= {'img_path', 'instances'}:
            return results
        path = results['img_path']
        label = f'needed by label {results.get("sample_id", "?")}'
        upright = self.upright or bool(results.get('upright'))
        # A pipe or a device would be read without end; other backends have no files.
        if os.path.exists(path) and not os.path.isfile(path):
            raise ValueError(f'{path} is no regular file ({label}).')
        try:
            image, turned = self._decode(path, upright, loaded)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'{path}: no such image ({label}). Check `data_root` and '
                f'`data_prefix.img`. {why_missing(Path(path))}'.rstrip()
            ) from error
        except ImageDepthError as error:
            raise ValueError(f'{path} ({label}): {error}.') from error
        except Exception as error:  # each decoder has kinds of its own
            if self.ignore_empty:
                return None
            raise ValueError(
                f'{path} cannot be decoded ({label}): {type(error).__name__}: {error}. '
                'The file may be truncated: fetch it again.'
            ) from error
        shape = image.shape[:2]
        results.update(img=image, img_shape=shape, ori_shape=shape)
        annotated = (results.get('height'), results.get('width'))
        if None not in annotated and annotated != shape:
            raise ValueError(
                f'{path} is {shape} (H, W), but the annotation says '
                f'{annotated} ({label}): boxes would be off. '
                + _why_other_size(annotated, shape, turned, upright)
            )
        return results

    def _decode(
        self, path: str, upright: bool, loaded: np.ndarray | None
    ) -> tuple[np.ndarray, bool]:
        """The image, and whether it has an EXIF entry that turns it."""
        data = fileio.get(path, backend_args=self.backend_args)
        with Image.open(io.BytesIO(data)) as file:
            turned = has_exif_rotation(file)
            if loaded is not None and not turned and file.mode in _PLAIN_MODES:
                return loaded, turned
            if self.imdecode_backend == 'pillow' and self.color_type in _COLOR:
                image = np.array(as_rgb(file, upright))[..., ::-1]
            else:
                flag = self.color_type
                flag = flag.removesuffix(_AS_STORED) if upright else flag
                image = mmcv.imfrombytes(data, flag, backend=self.imdecode_backend)
        return (image.astype(np.float32) if self.to_float32 else image), turned


def turns_by_exif(step: Any) -> bool | None:
    """Whether a transform is MMCV's loader and turns images by their EXIF entry.

    Args:
        step (Callable): Any transform.

    Returns:
        bool or None: None for a transform that is not MMCV's ``LoadImageFromFile``.
    """
    if type(step) is not LoadImageFromFile:
        return None
    # MMCV's other backends read no EXIF entry.
    reads_exif = step.imdecode_backend in ('cv2', 'pillow')
    return reads_exif and step.color_type in ('color', 'grayscale')


def _why_other_size(
    annotated: tuple, shape: tuple[int, int], turned: bool, upright: bool
) -> str:
    """What makes an image differ from its annotation, and what to do."""
    if not turned or annotated != shape[::-1]:
        return 'It is another file, or was resized.'
    if upright:
        return (
            'The image was turned by its EXIF entry, and the annotation is of the '
            'image as stored: leave `upright` out.'
        )
    return (
        'The EXIF entry of the image turns it, and the annotation is of the turned '
        'image: set `upright=True` of the data set, or save the image upright and '
        'without the entry.'
    )
