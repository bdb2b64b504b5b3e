"""Files of questions about a folder of pictures."""

import csv
import json
from pathlib import Path
from typing import Any

from ..file_names import leads_out

__all__ = ['read_questions']


def read_questions(path: Path, folder: Path) -> dict[str, list[str]]:
    """The expressions of each picture, in the order of the file.

    Args:
        path (Path): CSV with a head, or JSON Lines, of ``image`` and ``expression``.
        folder (Path): Of the pictures.

    Raises:
        ValueError: A line has no image or no expression, or the picture is not there.
    """
    with path.open(encoding='utf-8-sig', newline='') as file:
        rows: list[Any] = (
            list(csv.DictReader(file))
            if path.suffix.lower() == '.csv'
            else [json.loads(line) for line in file if line.strip()]
        )
    found: dict[str, list[str]] = {}
    for number, row in enumerate(rows, 1):
        where = f'{path}, entry {number}'
        values = [row.get(key) for key in ('image', 'expression')]
        if not all(isinstance(v, str) and v.strip() for v in values):
            raise ValueError(
                f'{where}: found {dict(row)}; expected an "image" and an "expression".'
            )
        if leads_out(values[0]):
            raise ValueError(
                f'{where}: the image {values[0][:200]!r} is absolute or leads out of '
                f'{folder}; expected a name from there.'
            )
        if not (folder / values[0]).is_file():
            raise ValueError(f'{where}: {folder / values[0]}: no such picture.')
        found.setdefault(values[0], []).append(values[1])
    if not found:
        raise ValueError(f'{path} has no questions.')
    return found
