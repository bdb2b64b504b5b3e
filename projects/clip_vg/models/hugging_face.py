"""Files of Hugging Face on this machine, and its package, which is optional."""

from importlib import import_module
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

__all__ = ['find_files', 'import_transformers']


def import_transformers(needed_by: str) -> Any:
    """The package ``transformers``.

    Raises:
        ImportError: It is not installed; the error tells how to install it.
    """
    try:
        return import_module('transformers')
    except ImportError as error:
        raise ImportError(
            f'{needed_by!r} is of Hugging Face, whose package is needed to read it: '
            f"pip install -e '.[towers]' ({error})."
        ) from error


def find_files(name: str, file: str) -> str | None:
    """The folder on this machine that has a file of Hugging Face.

    Args:
        name (str): A folder, or a name on the hub, looked up in its local cache.
        file (str): Name of the file.

    Returns:
        str or None: None if it is not on this machine.
    """
    if (Path(name).expanduser() / file).is_file():
        return str(Path(name).expanduser())
    try:
        cached = try_to_load_from_cache(name, file)
    except ValueError:  # no name that the hub could have
        return None
    return str(Path(cached).parent) if isinstance(cached, str) else None
