"""What a file that is continued or reused was made from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .atomic import replacing

__all__ = ['bind', 'origin_path']


def origin_path(path: Path) -> Path:
    """Where it is said what a file was made from."""
    return path.with_name(f'{path.name}.origin.json')


def bind(path: Path, origin: Mapping[str, Any], overwrite: bool = False) -> None:
    """Go on with a file only if it was made from the same.

    Args:
        path (Path): The file, which need not be there.
        origin (Mapping[str, Any]): What decides its content, as JSON: hashes rather
            than names.
        overwrite (bool): Whether a file that was made from something else is removed,
            to be made anew. Defaults to False.

    Raises:
        ValueError: It was made from something else, or does not say from what.
    """
    beside = origin_path(path)
    origin = json.loads(json.dumps(origin))
    if path.exists() and path.stat().st_size:
        found = _read(beside)
        changed = sorted(
            key for key in {*found, *origin} if found.get(key) != origin.get(key)
        )
        if not changed:
            return
        if not overwrite:
            raise ValueError(
                f'{path} was made from something else: '
                + '; '.join(
                    f'{key} was {_short(found.get(key))}, is {_short(origin.get(key))}'
                    for key in changed
                )
                + '. Use what it was made from, name another output, or say '
                '--overwrite to make it anew.'
            )
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(beside) as partial:
        partial.write_text(json.dumps(origin, indent=1) + '\n', encoding='utf-8')


def _read(path: Path) -> dict[str, Any]:
    """What is said there; nothing if it is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _short(value: Any) -> str:
    text = 'unknown' if value is None else str(value)
    return text if len(text) <= 16 else f'{text[:16]}...'
