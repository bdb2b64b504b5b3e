"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ['replacing']


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
