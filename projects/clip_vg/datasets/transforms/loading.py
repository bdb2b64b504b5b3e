"""Load a photograph as the release does, with errors that help."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from mmcv.transforms import LoadImageFromFile
from mmdet.registry import TRANSFORMS

__all__ = ['LoadGroundingImage', 'loaded_as_stored']


@TRANSFORMS.register_module()
class LoadGroundingImage(LoadImageFromFile):
    """``LoadImageFromFile`` with PIL, EXIF rotation off.

    Modifications:

    * PIL decodes, as in the release; grey and CMYK pictures become colour;
    * EXIF rotation is ignored, since the boxes of REFER ignore it;
    * a missing or damaged picture is one error that names it and its label.

    Args:
        **kwargs: Of :class:`mmcv.transforms.LoadImageFromFile`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            **{
                'imdecode_backend': 'pillow',
                'color_type': 'color_ignore_orientation',
                **kwargs,
            }
        )

    def transform(self, results: dict) -> dict | None:
        """Load ``img_path`` into ``img`` (H, W, 3), BGR, uint8.

        Raises:
            FileNotFoundError: There is no such picture.
            ValueError: It cannot be decoded, or its size is not the annotated.
        """
        path = results['img_path']
        label = f'needed by label {results.get("sample_id", "?")}'
        # A pipe or a device would be read without end; other backends have no files.
        if os.path.exists(path) and not os.path.isfile(path):
            raise ValueError(f'{path} is no regular file ({label}).')
        try:
            results = super().transform(results)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'{path}: no such picture ({label}). Check `data_root` and '
                '`data_prefix.img`.'
            ) from error
        except Exception as error:  # each decoder has kinds of its own
            raise ValueError(
                f'{path} cannot be decoded ({label}): {type(error).__name__}: {error}. '
                'The file may be truncated: fetch it again.'
            ) from error
        annotated = (results.get('height'), results.get('width'))
        if None not in annotated and annotated != results['ori_shape'][:2]:
            raise ValueError(
                f'{path} is {results["ori_shape"][:2]} (H, W), but the annotation says '
                f'{annotated} ({label}): boxes would be off. It is another '
                'file, or was '
                'resized.'
            )
        return results


def loaded_as_stored(pipeline: Sequence[Any]) -> list:
    """A pipeline that loads with :obj:`LoadGroundingImage`.

    MMDetection's ``DetInferencer``, and whoever wrote another detector's pipeline,
    know ``LoadImageFromFile`` only; labels need their pictures as they are stored.

    Args:
        pipeline (Sequence): Transforms, or their configs.

    Returns:
        list: The same, ``LoadImageFromFile`` replaced, its arguments kept.
    """
    known = ('LoadImageFromFile', LoadImageFromFile)
    return [
        dict(step, type='LoadGroundingImage')
        if isinstance(step, Mapping) and step.get('type') in known
        else step
        for step in pipeline
    ]
