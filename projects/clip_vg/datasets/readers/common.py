"""What the readers share: JSON with an address, and the choice of splits."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..label_table import LabelTable

__all__ = [
    'check_splits',
    'entry_of',
    'image_size',
    'keep_splits',
    'read_json',
    'required',
]


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        ValueError: The file is no JSON; it says where.
    """
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f'{path} ({path.stat().st_size:,} bytes) is not valid JSON: '
            f'{error}. It may '
            'be truncated: fetch or write it again.'
        ) from error


def entry_of(value: Any, kind: type | tuple[type, ...], where: str, what: str) -> Any:
    """``value`` if it is of ``kind``, else an error that says where."""
    if isinstance(value, kind):
        return value
    raise ValueError(f'{where}: expected {what}, found {type(value).__name__}.')


def required(entry: dict, key: str, where: str) -> Any:
    """``entry[key]``, or an error that says which key of which entry is missing."""
    try:
        return entry[key]
    except KeyError:
        raise ValueError(
            f'{where}: no {key!r}; it has {sorted(map(str, entry))}.'
        ) from None


def image_size(entry: dict) -> tuple[int, int] | None:
    """(height, width) of an image entry, or None where it does not say."""
    height, width = entry.get('height'), entry.get('width')
    if isinstance(height, int) and isinstance(width, int):
        return height, width
    return None


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
