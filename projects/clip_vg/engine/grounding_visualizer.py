"""MMDetection's visualizer, for images with several expressions."""

from pathlib import Path
from typing import Any

import numpy as np
from mmdet.registry import VISUALIZERS
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.dist import master_only
from mmengine.structures import InstanceData

from projects.clip_vg_core.utils.file_names import file_name

__all__ = ['GroundingVisualizer']


@VISUALIZERS.register_module()
class GroundingVisualizer(DetLocalVisualizer):
    """``DetLocalVisualizer`` that writes each sample to a file of its own.

    Modifications:

    * MMDetection names files by the image's base name alone (``tools/test.py
      --show-dir``, ``browse_dataset.py``). Where another sample has that name, be it
      another expression of the image or an image of another folder, the sample's
      ``sample_id`` (the first of a grouped sample) is added: ``<stem>-<id>.jpg``.
    * Scores that only fill up, of a detector without any, are not written on boxes.
    """

    def __init__(self, name: str = 'visualizer', *args: Any, **kwargs: Any) -> None:
        super().__init__(name, *args, **kwargs)
        self._owners: dict[Path, str] = {}  # files, and the samples drawn in them

    @master_only
    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: DetDataSample | None = None,
        *args: Any,
        out_file: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Draw a sample; see :meth:`DetLocalVisualizer.add_datasample`."""
        if out_file is not None and data_sample is not None:
            out_file = self._own_file(Path(out_file), data_sample)
        super().add_datasample(
            name, image, data_sample, *args, out_file=out_file, **kwargs
        )

    def _draw_instances(
        self, image: np.ndarray, instances: InstanceData, *args: Any
    ) -> np.ndarray:
        """Draw boxes; see :meth:`DetLocalVisualizer._draw_instances`."""
        if not instances.get('scored', True):
            instances = instances.clone()
            del instances.scores
        return super()._draw_instances(image, instances, *args)

    def _own_file(self, path: Path, sample: DetDataSample) -> str:
        owner = sample.get('sample_id', sample.get('img_path', ''))
        owner = owner if isinstance(owner, str) else owner[0]
        if self._owners.setdefault(path, owner) != owner:
            path = path.with_name(f'{path.stem}-{file_name(owner)}{path.suffix}')
        return str(path)
