"""What "checkpoint" means to every tool: a file, or one of several kinds of folders."""

import re
from pathlib import Path

from projects.clip_vg_core.runtime.deployment_file import NAME
from projects.clip_vg_core.utils.atomic import file_sha256

from .hub_folder import CONFIG, WEIGHTS

__all__ = ['checkpoint_sha256', 'find_checkpoint', 'find_weights', 'last_checkpoint']


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint that a path stands for.

    Args:
        path (str or Path): A file; the work dir of a training run, or of
            ``tools/self_paced.py``; the folder of a published detector, see
            :func:`find_pretrained`; or that of an exported detector.

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
    if (path / WEIGHTS).is_file() and (path / CONFIG).is_file():
        return path / WEIGHTS
    # Several, where a killed run left the best one of before.
    best = sorted(path.glob('best_*.pth'), key=lambda file: file.stat().st_mtime)
    # A search leaves no checkpoint but its final model.
    final = (path / 'model.pth', path / 'final' / 'model.pth')
    chosen = best[-1:] or [file for file in final if file.is_file()]
    last = chosen[0] if chosen else last_checkpoint(path)
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
    checkpoint = find_checkpoint(path)
    if checkpoint.is_dir():
        raise ValueError(
            f'{checkpoint} is an exported detector; expected the checkpoint that it '
            'was exported from, or its work dir.'
        )
    return checkpoint


def checkpoint_sha256(checkpoint: Path) -> str:
    """Hash that identifies a checkpoint, wherever it is.

    Args:
        checkpoint (Path): Of :func:`find_checkpoint`. Of an exported folder, the
            file that has the hashes of all others counts.
    """
    return file_sha256(checkpoint / NAME if checkpoint.is_dir() else checkpoint)


def last_checkpoint(work_dir: str | Path) -> Path | None:
    """The last checkpoint of a training run, also in a folder that was moved or copied.

    MMEngine's ``find_latest_checkpoint`` gives the absolute path that was written,
    which after a move is none, and after a copy the original's.

    Args:
        work_dir (str or Path): Of the training run.

    Returns:
        Path, optional: None where there is none.

    Raises:
        FileNotFoundError: The file that ``last_checkpoint`` names is gone.
    """
    note = Path(work_dir, 'last_checkpoint')
    if note.is_file():
        named = Path(note.read_text(encoding='utf-8').strip())
        # The second: checkpoints that were written elsewhere (`out_dir`).
        for path in (note.with_name(named.name), named):
            if path.is_file():
                return path
        raise FileNotFoundError(
            f'{note} names {named}, which is neither there nor in {work_dir}; that has '
            f'{sorted(path.name for path in note.parent.glob("*.pth")) or "no .pth"}. '
            'Name a file, or remove last_checkpoint.'
        )
    numbered = {
        int(match[1]): path
        for path in Path(work_dir).glob('*.pth')
        if (match := re.fullmatch(r'(?:epoch|iter)_(\d+)\.pth', path.name))
    }
    return numbered[max(numbered)] if numbered else None
