"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ['replacing']


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file under another name, which then takes its place.

    Args:
        path (Path): The file, in a folder that exists.

    Yields:
        Path: Where to write; with the file's suffix, as some writers go by it.
    """
    partial = path.with_name(f'.partial.{path.name}')
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
