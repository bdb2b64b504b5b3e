"""Files of questions about a folder of images."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..utils.file_names import leads_out
from .image_checks import why_missing

__all__ = ['read_questions']

_COLUMNS = ('image', 'expression')
_EXPECTED = (
    'Expected UTF-8: a CSV whose first line is "image,expression", or JSON Lines of '
    '{"image": ..., "expression": ...}'
)


def read_questions(path: Path, folder: Path) -> dict[str, list[str]]:
    """The expressions of each image, in the order of the file.

    Args:
        path (Path): CSV with a head, or JSON Lines, of ``image`` and ``expression``;
            in UTF-8, with a byte-order mark or without.
        folder (Path): Of the images.

    Raises:
        ValueError: The file is of another encoding or kind, or a line has no image, no
            expression, more fields than columns, or an image that is not there; it
            names file and line.
    """
    text = _decoded(path)
    rows = _csv_rows if path.suffix.lower() == '.csv' else _json_rows
    expressions: dict[str, list[str]] = {}
    for number, row in rows(path, text):
        where = f'{path}, line {number}'
        values: list[Any] = [row.get(key) for key in _COLUMNS]
        if not all(isinstance(v, str) and v.strip() for v in values):
            raise ValueError(
                f'{where}: found {row}; expected an "image" and an "expression".'
            )
        image, expression = values
        if leads_out(image):
            raise ValueError(
                f'{where}: the image {image[:200]!r} is absolute or leads out of '
                f'{folder}; expected a name from there.'
            )
        if not (folder / image).is_file():
            why = why_missing(folder / image)
            raise ValueError(
                f'{where}: {folder / image}: no such image. {why}'.rstrip()
            )
        expressions.setdefault(image, []).append(expression)
    if not expressions:
        raise ValueError(f'{path} has no questions. {_EXPECTED}.')
    return expressions


def _decoded(path: Path) -> str:
    content = path.read_bytes()
    try:
        text = content.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b'\n') + 1
        utf16 = content[:2] in (b'\xff\xfe', b'\xfe\xff')
        what = 'UTF-16' if utf16 else f'not UTF-8 ({error.reason})'
        raise ValueError(f'{path}, line {line}: it is {what}. {_EXPECTED}.') from error
    if '\0' in text:
        raise ValueError(f'{path}: it has zero bytes, as UTF-16 has. {_EXPECTED}.')
    return text


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number of the line and fields of each row that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=''), strict=True)
    try:
        head = [name.strip() for name in next(reader, [])]
        if not set(_COLUMNS) <= set(head):
            raise ValueError(
                f'{path}, line 1: the columns are {head}; expected '
                f'{" and ".join(_COLUMNS)}. {_EXPECTED}.'
            )
        first = reader.line_num + 1
        for row in reader:
            if row and len(row) != len(head):
                raise ValueError(
                    f'{path}, line {first}: {len(row)} fields {row}, but there are '
                    f'{len(head)} columns {head}. Put an expression with a comma into '
                    'quotes: "red, left".'
                )
            if row:
                yield first, dict(zip(head, row, strict=True))
            first = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f'{path}, line {reader.line_num}: {error}. {_EXPECTED}.'
        ) from error


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number of the line and object of each line that is not blank."""
    # Not splitlines(): JSON strings may have the separators of Unicode.
    for number, line in enumerate(text.split('\n'), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f'{path}, line {number} is not a JSON object: {error}. {_EXPECTED}.'
            ) from error
        if not isinstance(row, dict):
            raise ValueError(
                f'{path}, line {number}: found {type(row).__name__}, expected an '
                f'object. {_EXPECTED}.'
            )
        yield number, row
