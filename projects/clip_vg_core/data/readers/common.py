"""What the readers share: JSON with an address, and the choice of splits."""

import json
import re
import reprlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..label_table import LabelTable

__all__ = [
    'by_id',
    'check_splits',
    'entry_of',
    'image_size',
    'keep_splits',
    'read_json',
    'required',
    'split_of',
    'targets_of',
]

_SPLIT = re.compile(r'(?<![a-zA-Z])(trainval|train|val|testA|testB|test)(?![a-zA-Z])')


def read_json(path: Path, object_hook: Callable[[dict], Any] | None = None) -> Any:
    """Read JSON, with a byte-order mark or without.

    Args:
        path (Path): The file.
        object_hook (Callable, optional): As of ``json.loads``. Defaults to None.

    Raises:
        ValueError: The file is no JSON; it says where.
    """
    content = path.read_bytes()
    try:
        return json.loads(content, object_hook=object_hook)
    except RecursionError as error:
        raise ValueError(
            f'{path} ({len(content):,} bytes) is nested too deep; expected lists and '
            'dicts of annotations.'
        ) from error
    except ValueError as error:
        if _is_json_lines(content):
            raise ValueError(
                f'{path} is JSON Lines (a value on each line), but one JSON value is '
                'expected: put the lines into a list, "[line, line, ...]".'
            ) from error
        raise ValueError(
            f'{path} ({path.stat().st_size:,} bytes) is not valid JSON: '
            f'{str(error)[:200]}. It may be truncated: fetch or write it again.'
        ) from error


def _is_json_lines(content: bytes) -> bool:
    """Whether each of the first two lines is a JSON object or list."""
    lines = [line for line in content.splitlines()[:100] if line.strip()][:2]
    try:
        return len(lines) == 2 and all(
            isinstance(json.loads(line), dict | list) for line in lines
        )
    except (ValueError, RecursionError):
        return False


def split_of(stem: str) -> str:
    """The split that a file's name says, e.g. 'train' of 'unc_train_pseudo'; or 'all'.

    Args:
        stem (str): The name without its suffix; of several splits in it, the last.
    """
    names = _SPLIT.findall(stem)
    return names[-1] if names else 'all'


def targets_of(value: Any) -> list:
    """The boxes of an expression, of which there may be none or several.

    Args:
        value (Any): A box, a list of boxes, or nothing (None, an empty list).

    Returns:
        list: The boxes, not checked.
    """
    value = value.tolist() if hasattr(value, 'tolist') else value
    if value is None:
        return []
    several = isinstance(value, list | tuple) and all(
        isinstance(box, list | tuple) or hasattr(box, 'tolist') for box in value
    )
    return list(value) if several else [value]


def by_id(entries: Iterable[Any], where: str, key: str = 'id') -> dict[Any, dict]:
    """Entries by their id.

    Args:
        entries (Iterable): Dicts.
        where (str): File and list, for errors.
        key (str): Of the id. Defaults to 'id'.

    Raises:
        ValueError: An entry is no dict or has no id, or two of different content have
            the same.
    """
    known_by_id: dict[Any, dict] = {}
    for index, entry in enumerate(entries):
        at = f'{where} {index}'
        number = required(entry_of(entry, dict, at, 'a dict'), key, at)
        try:
            known = known_by_id.setdefault(number, entry)
        except TypeError:
            raise ValueError(
                f'{at}: {key} {reprlib.repr(number)} is no number or text.'
            ) from None
        if known is not entry and known != entry:
            differ = sorted(
                (n for n in {*known, *entry} if known.get(n) != entry.get(n)), key=str
            )
            first, second = (reprlib.repr(e.get(differ[0])) for e in (known, entry))
            raise ValueError(
                f'{at}: {key} {reprlib.repr(number)} comes twice, with different '
                f'{", ".join(map(str, differ))[:200]}: {first} and {second}. Which one '
                f'is meant is not known: give each entry its own {key}.'
            )
    return known_by_id


def entry_of(value: Any, kind: type | tuple[type, ...], where: str, what: str) -> Any:
    """``value`` if it is of ``kind``, else an error that says where."""
    if isinstance(value, kind):
        return value
    raise ValueError(f'{where}: expected {what}, found {type(value).__name__}.')


def required(entry: Any, key: str, where: str) -> Any:
    """``entry[key]``, or an error that says which key of which entry is missing."""
    try:
        return entry_of(entry, dict, where, 'a dict')[key]
    except KeyError:
        raise ValueError(
            f'{where}: no {key!r}; it has {str(sorted(map(str, entry)))[:500]}.'
        ) from None


def image_size(entry: dict) -> tuple[int, int] | None:
    """(height, width) of an image entry, or None where it does not say."""
    height, width = entry.get('height'), entry.get('width')
    if not (isinstance(height, int) and isinstance(width, int)):
        return None
    # No image is larger, and it must fit into 32 bits.
    return (height, width) if max(abs(height), abs(width)) < 1 << 31 else None


def check_splits(
    wanted: Sequence[str] | None, present: Iterable[str], path: Path
) -> None:
    """Raise if a wanted split is not in the file."""
    present = set(present)
    missing = [split for split in wanted or () if split not in present]
    if missing:
        raise ValueError(
            f'{path} has no split {", ".join(map(repr, missing))}; it has '
            f'{sorted(present)}. Another `split_by` (another file) may have it.'
        )


def keep_splits(
    table: LabelTable, splits: Sequence[str] | None, path: Path
) -> LabelTable:
    """The labels of the wanted splits."""
    if splits is None:
        return table
    check_splits(splits, table.split_names, path)
    wanted = [table.split_names.index(split) for split in splits]
    chosen = [code in wanted for code in range(len(table.split_names))]
    return table.take(np.flatnonzero(np.array(chosen)[table.splits]))
