"""Imports that take less time: PyTorch and MMDetection bring thousands of modules."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ['collection_paused', 'without_packages']


@contextmanager
def collection_paused() -> Iterator[None]:
    """Collect no garbage meanwhile.

    Of what imports create, everything stays; collections that look through hundreds
    of thousands of objects again and again take a sixth of the time of the imports.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def without_packages(*names: str) -> Iterator[None]:
    """Let packages that are not loaded yet be missing meanwhile.

    For packages that others import where they are installed, and whose use is no part
    of a command. What is imported meanwhile does without them in this process;
    afterwards they can be imported again. Not for a library: its user may need them.

    Args:
        names (str): Top-level packages.
    """
    # None is Python's own way to say so: an import of it raises ModuleNotFoundError.
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name, gc) is None:
                del sys.modules[name]
