"""What a training run has left in its work dir: its last checkpoint, its best score."""

import re
from dataclasses import dataclass
from pathlib import Path

from ..compat import load_from_local

__all__ = ['RunResult', 'last_checkpoint', 'read_result']


@dataclass(frozen=True)
class RunResult:
    """Best validation of a finished training run, and the path of its checkpoint."""

    score: float
    checkpoint: str


def last_checkpoint(work_dir: str | Path) -> Path | None:
    """The last checkpoint of a training run, also in a folder that was moved or copied.

    MMEngine's ``find_latest_checkpoint`` gives the absolute path that was written,
    which after a move is none, and after a copy the original's.

    Args:
        work_dir (str or Path): Work dir of the training run.

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


def read_result(work_dir: str | Path, max_epochs: int) -> RunResult | None:
    """Best validation of a training run, if it has come to its end.

    Args:
        work_dir (str or Path): Work dir of the training run.
        max_epochs (int): Its number of epochs.

    Returns:
        RunResult, optional: None if the training run is not finished.

    Raises:
        ValueError: It has finished without a best checkpoint.
    """
    last = last_checkpoint(work_dir)
    if last is None:
        return None
    checkpoint = load_from_local(str(last), map_location='cpu')
    if checkpoint['meta']['epoch'] < max_epochs:
        return None
    info = checkpoint['message_hub']['runtime_info']
    best = info.get('best_ckpt')
    if best is None:
        raise ValueError(
            f'{last}: the training run has no best checkpoint. Set '
            'default_hooks.checkpoint.save_best and validate at least once.'
        )
    # By name: the path was written before the folder was moved or copied.
    return RunResult(float(info['best_score']), str(Path(work_dir, Path(best).name)))
