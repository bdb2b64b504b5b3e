"""The checkpoint that a work dir is asked for by."""

from pathlib import Path

from mmengine.runner import find_latest_checkpoint

__all__ = ['find_checkpoint']


def find_checkpoint(path: str | Path) -> str:
    """The checkpoint that a file or a work dir means: its best one, else its last.

    Raises:
        FileNotFoundError: The work dir has none.
    """
    if not Path(path).is_dir():
        return str(path)
    best = sorted(Path(path).glob('best_*.pth'), key=lambda p: p.stat().st_mtime)
    found = str(best[-1]) if best else find_latest_checkpoint(str(path))
    if found is None:
        raise FileNotFoundError(f'{path} has no checkpoint: train first.')
    return found
