"""Reading pickles of strangers: names in them never become objects of Python.

:mod:`.pickle_machine` interprets a file, :mod:`.stand_ins` has what its names mean. A
file is bounded, too: in its bytes, in instructions and seconds, in how deep containers
lie in each other, and in how much there is if what is shared were written out, which no
``repr`` or comparison of a value could survive otherwise.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .pickle_machine import Machine
from .stand_ins import (
    PLAIN_NAMES,
    Limits,
    UnsafePickleError,
    check_value,
    require,
    thaw,
)

__all__ = ['UnsafePickleError', 'interpret', 'load_pickle', 'unreadable']


def unreadable(path: Path, error: Exception, what: str) -> ValueError:
    """The one error for a file that is not what it should be."""
    if isinstance(error, UnsafePickleError):
        return UnsafePickleError(
            f'{path} was refused, and nothing of it was run: {error}. Use a file from '
            'a source you trust, or write the data anew as JSON.'
        )
    if not path.is_file():
        return ValueError(f'{path}: no such file. Expected {what}.')
    return ValueError(
        f'{path} ({path.stat().st_size:,} bytes) cannot be read as {what}: '
        f'{type(error).__name__}: {str(error)[:300]}. It may be truncated by an '
        'interrupted download or a killed write: fetch or write it again, or use an '
        'earlier one.'
    )


def interpret(
    data: bytes,
    names: Mapping[str, Callable] = PLAIN_NAMES,
    encoding: str = 'latin1',
    limits: Limits | None = None,
) -> Any:
    """The value of a pickle in memory; see :func:`load_pickle`."""
    machine = Machine(data, names, encoding, limits)
    value = machine.load()
    if check_value(value, machine.instructions, machine.limits):
        value = thaw(value)
    return value


def load_pickle(
    path: str | Path,
    encoding: str = 'latin1',
    names: Mapping[str, Callable] = PLAIN_NAMES,
    limits: Limits | None = None,
) -> Any:
    """Read a pickle of plain containers; no name in it becomes an object of Python.

    Args:
        path (str or Path): The pickle.
        encoding (str): How to read Python 2 strings. Defaults to 'latin1', as
            the REFER files need.
        names (Mapping[str, Callable]): What stands in for the names in it. Defaults to
            those of containers and of NumPy's numbers and numeric arrays.
        limits (Limits, optional): Defaults to None: those of :class:`Limits`.

    Returns:
        Any: Lists, tuples, dicts, sets, str, bytes, numbers, NumPy arrays.

    Raises:
        UnsafePickleError: The file asks for anything else, and it names what; or it is
            over a limit.
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged or no pickle at all.
    """
    path, limits = Path(path), limits or Limits()
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file.')
    try:
        size = path.stat().st_size
        require(size <= limits.size, f'{size:,} bytes large, over {limits.size:,}')
        return interpret(path.read_bytes(), names, encoding, limits)
    except Exception as error:  # a hostile stream can raise almost anything
        raise unreadable(path, error, 'a pickle') from error
