"""One process at a time in a folder that a command writes into."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ['is_first_process', 'lock_folder']

_RANKS = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')


def is_first_process() -> bool:
    """Whether this is the process of a distributed job that writes files.

    Told by what torchrun, SLURM or MPI have set, since nothing is initialised yet.
    """
    return all(os.environ.get(name, '0') in ('', '0') for name in _RANKS)


@contextmanager
def lock_folder(folder: str | Path, every_process: bool = False) -> Iterator[None]:
    """Lock a folder until the block or the process ends, however it ends.

    Of a distributed job, only the first process does.

    Args:
        folder (str or Path): Created if it does not exist.
        every_process (bool): Whether each process of a distributed job locks for
            itself, as those do that make an output each. Defaults to False.

    Raises:
        RuntimeError: The folder is locked already, by another process or by this one.
    """
    if not every_process and not is_first_process():
        yield
        return
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / '.lock'
    # The operating system ends the lock with the process: a kill leaves a file, but
    # nothing to remove by hand.
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        # Some versions of filelock empty the file in the attempt.
        holder = ' '.join(path.read_text(encoding='utf-8')[:500].split())
        raise RuntimeError(
            f'{folder} is in use by another process ({holder or "unknown"}), and two '
            'at once would mix their files. Wait for it, or name another folder.'
        ) from None
    try:
        # For the message of whoever comes second.
        path.write_text(
            f'{Path(sys.argv[0]).name}, process {os.getpid()} on '
            f'{socket.gethostname()}',
            encoding='utf-8',
        )
        yield
    finally:
        lock.release()
