"""What "checkpoint" means to every tool: a file, a work dir or an exported folder."""

from pathlib import Path
from typing import Any

from mmengine.config import Config

from projects.clip_vg_core.curriculum.reliability_file import file_sha256
from projects.clip_vg_core.runtime.deployment_file import NAME

from ..checkpoints.training_run import last_checkpoint
from ..deployment.served_clip_vg import served_config

__all__ = ['checkpoint_sha256', 'find_checkpoint', 'find_weights', 'use_exported']


def find_checkpoint(path: str | Path) -> Path:
    """What a user means by a checkpoint.

    Args:
        path (str or Path): A file; the work dir of a training run, or of
            ``tools/self_paced.py``; or the folder of an exported detector.

    Returns:
        Path: The file, or the exported folder. Of a work dir its best checkpoint, else
        its last.

    Raises:
        FileNotFoundError: There is no such file, or the folder has none.
    """
    path = Path(path).expanduser()
    if path.is_file() or (path / NAME).is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(f'{path}: no such checkpoint.')
    best = sorted(path.glob('best_*.pth'), key=lambda file: file.stat().st_mtime)
    # A search leaves no checkpoint but its final model.
    final = (path / 'model.pth', path / 'final' / 'model.pth')
    found = best[-1:] or [file for file in final if file.is_file()]
    last = found[0] if found else last_checkpoint(path)
    if last is None:
        raise FileNotFoundError(
            f'{path} has no checkpoint: train first. It is no exported detector '
            f'either, which has a {NAME} (tools/deployment/export.py).'
        )
    return last


def find_weights(path: str | Path) -> Path:
    """The file of :func:`find_checkpoint`.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is an exported detector.
    """
    found = find_checkpoint(path)
    if found.is_dir():
        raise ValueError(
            f'{found} is an exported detector; expected the checkpoint that it was '
            'exported from, or its work dir.'
        )
    return found


def checkpoint_sha256(found: Path) -> str:
    """What tells a checkpoint apart, wherever it lies.

    Args:
        found (Path): Of :func:`find_checkpoint`. Of an exported folder, the file that
            has the hashes of all others counts.
    """
    return file_sha256(found / NAME if found.is_dir() else found)


def use_exported(cfg: Config, folder: Path, **options: Any) -> None:
    """Put an exported detector and its transforms into a config, in place.

    Args:
        cfg (Config): With ``model`` and ``test_dataloader``.
        folder (Path): The exported folder.
        options: Of :class:`ServedCLIPVG`.
    """
    served = served_config(folder, **options)
    cfg.model = served.model
    cfg.test_dataloader.dataset.pipeline = served.test_dataloader.dataset.pipeline
