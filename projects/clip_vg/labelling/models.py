"""The models of a generation of pseudo-labels, each loaded when it is needed."""

from collections.abc import Sequence
from pathlib import Path

from projects.clip_vg_core.pseudo_labels.generation import Generation
from projects.clip_vg_core.pseudo_labels.template import Describe

from .captioner import caption
from .clip_attributes import ClipAttributes
from .detector import detect

__all__ = ['LabelModels']


class LabelModels:
    """Runs the detector, the captioner and the CLIP of a generation.

    Args:
        job (Generation): Names the models and the folder of images.
    """

    def __init__(self, job: Generation) -> None:
        self.job = job

    def _images(self) -> Path:
        assert self.job.inputs.images is not None  # Generation.check has seen it
        return self.job.inputs.images

    def detect(self, names: Sequence[str], upright: bool, work_dir: Path) -> Path:
        """Write the detections on some images as a COCO file."""
        job = self.job
        config, checkpoint = [*(job.detector or ()), None][:2]
        assert config is not None
        return detect(
            config,
            checkpoint,
            self._images(),
            names,
            work_dir / 'detections.json',
            work_dir,
            batch_size=job.batch_size,
            processes=job.workers,
            device=job.device,
            min_score=job.min_score,
            overwrite=job.overwrite,
            upright=upright,
        )

    def caption(
        self,
        ids: Sequence[int | str],
        names: Sequence[str],
        upright: bool,
        work_dir: Path,
    ) -> Path:
        """Write captions of some images as COCO caption results."""
        job = self.job
        assert job.captioner is not None
        model, weights = job.captioner
        return caption(
            model,
            weights,
            self._images(),
            names,
            ids,
            work_dir / 'captions.json',
            work_dir,
            batch_size=job.batch_size,
            device=job.device,
            overwrite=job.overwrite,
            upright=upright,
        )

    def describe(self, words: Sequence[str], upright: bool) -> Describe:
        """A function that gives detections one of the words as attribute."""
        assert self.job.maker.clip is not None
        return ClipAttributes(words=words, upright=upright, **self.job.maker.clip)
