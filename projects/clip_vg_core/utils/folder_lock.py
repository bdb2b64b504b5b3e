"""One process at a time in a folder that a command writes into."""

import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ['FolderLock', 'is_first_process', 'lock_folder']

# Locks of files are of processes: within one, the folders that are taken.
_TAKEN: set[Path] = set()
_RANKS = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')


def is_first_process() -> bool:
    """Whether this is the process of a distributed job that writes files.

    Told by what torchrun, SLURM or MPI have set, since nothing is initialised yet.
    """
    return all(os.environ.get(name, '0') in ('', '0') for name in _RANKS)


class FolderLock:
    """Holds a folder until it is closed, or the process ends, however it ends.

    A file lock, so that a kill leaves nothing to remove by hand; a record lock, so that
    workers that a killed process leaves for a moment do not hold it.

    Args:
        folder (str or Path): Made if it is not there.

    Raises:
        RuntimeError: Another process holds it; it says which.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._key = folder.resolve()
        if self._key in _TAKEN:
            raise _in_use(folder, 'another part of this process')
        self._file = (folder / '.lock').open('a+', encoding='utf-8')
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            holder = ' '.join(self._file.read(500).split())
            self._file.close()
            raise _in_use(folder, f'another process ({holder})') from error
        _TAKEN.add(self._key)
        self._file.truncate(0)
        command = Path(sys.argv[0]).name
        self._file.write(f'{command}, process {os.getpid()} on {socket.gethostname()}')
        self._file.flush()

    def close(self) -> None:
        """Let another process have the folder."""
        if self._key in _TAKEN:
            _TAKEN.remove(self._key)
            self._file.close()


def _in_use(folder: Path, holder: str) -> RuntimeError:
    return RuntimeError(
        f'{folder} is in use by {holder}, and two at once would mix their files. Wait '
        'for it, or name another folder.'
    )


@contextmanager
def lock_folder(folder: str | Path) -> Iterator[None]:
    """Hold a folder; of a distributed job, its first process does.

    Args:
        folder (str or Path): Made if it is not there.

    Raises:
        RuntimeError: Another process holds it.
    """
    if not is_first_process():
        yield
        return
    lock = FolderLock(folder)
    try:
        yield
    finally:
        lock.close()
