"""Files that are written whole or not at all, and what tells their content."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ['file_sha256', 'replacing']


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file under another name that replaces it once it is whole.

    Args:
        path (Path): The file, in a folder that exists.

    Yields:
        Path: File to write, with the suffix of ``path``.
    """
    # In the same folder, since a rename is atomic within a file system only; the suffix
    # at the end, since NumPy and Matplotlib choose or add one by it.
    partial = path.with_name(f'.partial.{path.name}')
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:  # an interrupt leaves nothing behind either
        partial.unlink(missing_ok=True)
        raise


def file_sha256(path: str | Path) -> str:
    """The sha256 of a file's content."""
    digest = hashlib.sha256()
    with Path(path).open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
