"""Entries of large JSON files, one at a time, with errors that say where."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import ijson

from ..data.readers.common import entry_of

__all__ = ['has_list', 'is_object', 'read_entries']

_BOM = b'\xef\xbb\xbf'


def _open(path: Path) -> tuple[BinaryIO, bytes]:
    """The file at its first sign, and that sign."""
    if path.is_dir():
        raise ValueError(f'{path} is a folder; expected a JSON file.')
    file = path.open('rb')
    if file.read(3) != _BOM:
        file.seek(0)
    while (sign := file.read(1)) and sign in b' \t\r\n':
        pass
    file.seek(max(0, file.tell() - len(sign)))
    return file, sign


def is_object(path: Path) -> bool:
    """Whether a file is a JSON object, as COCO's annotations are."""
    file, sign = _open(path)
    file.close()
    return sign == b'{'


def has_list(path: Path, key: str) -> bool:
    """Whether a file is an object with a list of that name."""
    if not is_object(path):
        return False
    return any(
        (prefix, event) == (key, 'start_array')
        for prefix, event, _ in _events(path, ijson.parse)
    )


def _events(path: Path, parse: Any, *args: Any, **more: Any) -> Iterator[Any]:
    """What ijson finds; its errors as ours."""
    file, _ = _open(path)
    with file:
        try:
            yield from parse(file, *args, **more)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            raise ValueError(_what_is_wrong(path, error)) from error


def _what_is_wrong(path: Path, error: Exception) -> str:
    size = f'{path} ({path.stat().st_size:,} bytes)'
    said = ' '.join(str(error).replace('(right here) ------^', '').split())
    if 'premature EOF' in said:
        return (
            f'{size} is not whole JSON: {said}. It may be truncated: fetch or write '
            'it again.'
        )
    with path.open('rb') as file:
        for number, line in enumerate(file, 1):
            if found := re.search(rb'[:\[,]\s*(-?(?:NaN|Infinity)\b)', line):
                around = line[max(0, found.start() - 90) : found.end() + 30]
                return (
                    f'{path}, line {number}, in ...{around.decode(errors="replace")}'
                    f'...: {found[1].decode()} is no number of JSON. Leave out such '
                    'entries, or give them finite numbers.'
                )
    if 'trailing garbage' in said:
        return (
            f'{size} goes on after its first JSON value: {said}. JSON Lines (a value '
            'on each line) are not read here: put the lines into one list.'
        )
    if isinstance(error, UnicodeDecodeError):
        return f'{size} is not in UTF-8: {said}. Write it as UTF-8.'
    return f'{size} is not valid JSON: {said}. Write it again.'


def read_entries(path: Path, key: str | None) -> Iterator[tuple[str, Any]]:
    """The entries of a list in a JSON file, one at a time.

    Args:
        path (Path): The file.
        key (str, optional): Of the list in the file's object; where the file is a list
            itself, that one is read. None: the file must be a list.

    Yields:
        tuple[str, dict]: Where the entry is, for errors; and the entry.

    Raises:
        ValueError: The file is damaged, or has no such list.
    """
    file, sign = _open(path)
    file.close()
    if sign == b'[':
        prefix, what = 'item', 'entry'
    elif sign == b'{' and key is not None:
        prefix, what = f'{key}.item', key
    else:
        found = f'{sign.decode(errors="replace")!r}' if sign else 'an empty file'
        raise ValueError(
            f'{path}: expected a JSON list'
            + (f', or an object with {key!r}' if key else '')
            + f' in UTF-8, found {found}.'
        )
    number = 0
    items = _events(path, ijson.items, prefix, use_float=True)
    for number, item in enumerate(items, 1):
        where = f'{path}, {what} {number}'
        yield where, entry_of(item, dict, where, 'a JSON object')
    if not number and key is not None and sign == b'{' and not has_list(path, key):
        raise ValueError(f'{path} is an object without a list {key!r}.')
