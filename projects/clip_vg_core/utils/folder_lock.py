"""One process at a time in a folder that a command writes into."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ['FolderLock', 'is_first_process', 'lock_folder']

_RANKS = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')


def is_first_process() -> bool:
    """Whether this is the process of a distributed job that writes files.

    Told by what torchrun, SLURM or MPI have set, since nothing is initialised yet.
    """
    return all(os.environ.get(name, '0') in ('', '0') for name in _RANKS)


class FolderLock:
    """Lock of a folder until it is closed, or the process ends, however it ends.

    Args:
        folder (str or Path): Created if it does not exist.

    Raises:
        RuntimeError: The folder is locked already, by another process or by this one.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        # The operating system ends the lock with the process: a kill leaves a file, but
        # nothing to remove by hand.
        path = folder / '.lock'
        self._lock = FileLock(path)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            # Some versions of filelock empty the file in the attempt.
            holder = ' '.join(path.read_text(encoding='utf-8')[:500].split())
            raise RuntimeError(
                f'{folder} is in use by another process ({holder or "unknown"}), and '
                'two at once would mix their files. Wait for it, or name another '
                'folder.'
            ) from None
        # For the message of whoever comes second.
        command = Path(sys.argv[0]).name
        path.write_text(
            f'{command}, process {os.getpid()} on {socket.gethostname()}',
            encoding='utf-8',
        )

    def close(self) -> None:
        """Release the folder."""
        self._lock.release()


@contextmanager
def lock_folder(folder: str | Path) -> Iterator[None]:
    """Lock a folder; of a distributed job, only its first process does.

    Args:
        folder (str or Path): Created if it does not exist.

    Raises:
        RuntimeError: The folder is locked already.
    """
    if not is_first_process():
        yield
        return
    lock = FolderLock(folder)
    try:
        yield
    finally:
        lock.close()
