"""Models that the visitors of a page share, each loaded once."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoints.work_dir import find_checkpoint
from .grounding_inferencer import GroundingInferencer

__all__ = ['SharedModels', 'name_checkpoints']


def name_checkpoints(paths: Sequence[str | Path]) -> dict[str, Path]:
    """Short names that tell checkpoints apart: a folder and a file, more if needed.

    Args:
        paths (Sequence[str or Path]): As :func:`find_checkpoint` takes them.

    Returns:
        dict[str, Path]: The files, or exported folders, by their names, in order.

    Raises:
        FileNotFoundError: There is no such file, or none in a work dir.
        ValueError: There is none at all, or one is given twice.
    """
    found = [find_checkpoint(path).absolute() for path in paths]
    # Not the file's own link, which in a cache of Hugging Face leads to a nameless one.
    files = [path.parent.resolve() / path.name for path in found]
    if not files or len(set(files)) < len(files):
        raise ValueError(
            f'The checkpoints are {[str(file) for file in files]}; expected one or '
            'more, each once.'
        )
    depth = 2
    while len({file.parts[-depth:] for file in files}) < len(files):
        depth += 1
    return {'/'.join(file.parts[-depth:]).lstrip('/'): file for file in files}


class SharedModels:
    """Inferencers by name, loaded when first used; one prediction at a time.

    Safe to call from several threads. What was loaded stays in memory.

    Args:
        checkpoints (Mapping[str, Path]): Files by their names.
        config (str or Path, optional): As ``GroundingInferencer`` takes it. Defaults
            to None: what each checkpoint holds.
        device (str, optional): Defaults to None: a GPU where there is one.
    """

    def __init__(
        self,
        checkpoints: Mapping[str, Path],
        config: str | Path | None = None,
        device: str | None = None,
    ) -> None:
        self.checkpoints = dict(checkpoints)
        self.config, self.device = config, device
        self._loaded: dict[str, GroundingInferencer] = {}
        self._lock = threading.Lock()

    def predict(
        self, name: str, image: np.ndarray, expressions: Sequence[str]
    ) -> dict[str, Any]:
        """Ground expressions in an image.

        Args:
            name (str): Of a checkpoint.
            image (np.ndarray): RGB of shape (H, W, 3), uint8.
            expressions (Sequence[str]): At least one.

        Returns:
            dict: ``texts``, ``bboxes`` (xyxy in pixels of the image), their ``scores``
            (each None of a model without scores) and ``labels``, the numbers of their
            expressions.

        Raises:
            KeyError: There is no checkpoint of that name.
        """
        with self._lock:
            # Inside the lock: two visitors must not load the same model twice.
            if name not in self._loaded:
                self._loaded[name] = GroundingInferencer(
                    self.checkpoints[name], config=self.config, device=self.device
                )
            return self._loaded[name](image[..., ::-1], expressions)['predictions'][0]
