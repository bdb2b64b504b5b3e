"""Annotation files as documents: one JSON value, rows, tuples, or XML.

What a file is, its first bytes say; nothing in it is run. JSON is bounded in depth, XML
may not declare entities, pickles and ``.pth`` files go through the safe loaders.
"""

import csv
import io
import json
import xml.etree.ElementTree as ElementTree
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any
from xml.parsers import expat

from ...utils.safe_pickle import load_pickle
from ...utils.safe_torch import load_torch
from ..table_builder import shown
from .common import entry_of, read_json

__all__ = ['Document', 'images_inside', 'open_document']

_HEAD = 50  # rows that a layout is recognised by
_LONGEST_LINE = 1 << 20  # bytes of a first line that is looked at
_LONGEST_CELL = 1 << 24  # characters of a cell of CSV; the csv module's is 131,072


@dataclass
class Document:
    """One annotation file.

    Args:
        path (Path): The file, or a folder of XML files.
        kind (str): 'json', 'json lines', 'csv', 'parquet', 'pickle', 'torch', 'xml'.
        noun (str): What a row is called in errors: 'entry', 'line' or 'row'.
        value (Any): The value of JSON, a pickle or a ``.pth`` file. Defaults to None.
        read_rows (Callable, optional): Yields (number, row) from the file's beginning.
            Defaults to None: those of ``value``, if it is a list.
        companion (Any): The value of a second file, as REFER's refs. Defaults to None.
    """

    path: Path
    kind: str
    noun: str = 'entry'
    value: Any = None
    read_rows: Callable[[], Iterator[tuple[int, Any]]] | None = field(
        default=None, repr=False
    )
    companion: Any = None

    def rows(self) -> Iterator[tuple[int, Any]]:
        """Rows with their numbers, as errors call them."""
        if self.read_rows is not None:
            yield from self.read_rows()
        elif isinstance(self.value, list | tuple):
            yield from enumerate(self.value)

    def records(self) -> Iterator[tuple[int, dict, str]]:
        """Number, content and place for errors of rows that must be dicts.

        Raises:
            ValueError: A row is none.
        """
        for number, row in self.rows():
            where = self.where(number)
            yield number, entry_of(row, dict, where, 'a JSON object'), where

    def where(self, number: int) -> str:
        """File and row, for errors."""
        return f'{self.path}, {self.noun} {number}'

    @cached_property
    def head(self) -> list:
        """The first rows, that tell the layout."""
        return [row for _, row in islice(self.rows(), _HEAD)]

    @cached_property
    def keys(self) -> frozenset[str]:
        """Keys that most of the first rows have; none where they are no dicts."""
        counts = Counter(k for row in self.head if isinstance(row, dict) for k in row)
        # Most, as an entry that lacks one is to be named by its reader.
        half = len(self.head) / 2
        return frozenset(
            k for k, n in counts.items() if n > half and isinstance(k, str)
        )


def open_document(path: Path) -> Document:
    """Open an annotation file by what is in it.

    Args:
        path (Path): A file, or a folder of XML files.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is empty, damaged, or no container that is known.
    """
    if path.is_dir():
        files = sorted(path.glob('*.xml'))
        if not files:
            raise ValueError(f'{path} is a folder without .xml files; expected a file.')
        return Document(path, 'xml', 'file', read_rows=lambda: _xml_rows(files))
    with path.open('rb') as file:
        start = file.read(4096)
    if start.startswith(b'PAR1'):
        return Document(path, 'parquet', 'row', read_rows=lambda: _parquet_rows(path))
    if path.suffix in ('.pth', '.pt') or start.startswith(b'PK\3\4'):
        return Document(path, 'torch', value=load_torch(path))
    if path.suffix in ('.p', '.pkl', '.pickle') or start.startswith(b'\x80'):
        return Document(path, 'pickle', value=load_pickle(path))
    text = start.removeprefix(BOM_UTF8).lstrip()
    if path.suffix in ('.jsonl', '.odvg') or _is_lines(path, text):
        return Document(path, 'json lines', 'line', read_rows=lambda: _json_rows(path))
    if text.startswith((b'{', b'[')) or path.suffix == '.json':
        return Document(path, 'json', value=read_json(path))
    if text.startswith(b'<'):
        return Document(path, 'xml', 'file', read_rows=lambda: _xml_rows([path]))
    if b'\0' not in start and any(c in text.partition(b'\n')[0] for c in b',\t;'):
        return Document(path, 'csv', 'row', read_rows=lambda: _csv_rows(path))
    what = f'{text[:20]!r}' if text else 'nothing'
    raise ValueError(
        f'{path} begins with {what}: expected JSON, JSON Lines, CSV, parquet, XML, a '
        '.pth list or a pickle of annotations (docs/data.md).'
    )


def _is_lines(path: Path, text: bytes) -> bool:
    """Whether a file has a JSON object on its first line and another value after it."""
    if not text.startswith(b'{'):
        return False
    with path.open('rb') as file:
        line = b'\n'
        while line and not line.strip():
            line = file.readline(_LONGEST_LINE).removeprefix(BOM_UTF8)
        following = file.read(4096).strip()
    if not line.endswith(b'\n') or not following:
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open('rb') as file:
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(BOM_UTF8)
            if line.strip():
                yield number, _parse(line, f'{path}, line {number}')


def _parse(line: bytes, where: str) -> dict:
    try:
        return entry_of(json.loads(line.decode()), dict, where, 'a JSON object')
    except UnicodeDecodeError as error:
        raise ValueError(f'{where} is not in UTF-8: {error}. Write it so.') from error
    except RecursionError as error:
        raise ValueError(f'{where} is nested too deep; expected a label.') from error
    except json.JSONDecodeError as error:
        raise ValueError(
            f'{where} is not valid JSON: {error}. Expected one JSON object a line.'
        ) from error
    except ValueError as error:
        if str(error).startswith(where):
            raise
        # Of a number with thousands of digits.
        raise ValueError(f'{where} cannot be read: {error}.') from error


def _csv_rows(path: Path) -> Iterator[tuple[int, dict]]:
    try:
        text = path.read_bytes().decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is not in UTF-8: {error}. Write it so.') from error
    header = text.partition('\n')[0]
    delimiter = max('\t,;', key=header.count)
    # The limit is the module's, not a reader's.
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        rows = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter)
        names = [name.strip() for name in next(rows)]
        if len(set(names)) < len(names):
            raise ValueError(f'{path}: two columns have one name in {shown(names)}.')
        for number, row in enumerate(rows, 2):
            if len(row) not in (0, len(names)):
                raise ValueError(
                    f'{path}, row {number}: {len(row)} cells, but the header has '
                    f'{len(names)}: {shown(names)}.'
                )
            if row:
                yield number, dict(zip(names, map(_cell, row), strict=True))
    except csv.Error as error:
        raise ValueError(f'{path} is no CSV that can be read: {error}.') from error
    finally:
        csv.field_size_limit(limit)


def _cell(text: str) -> Any:
    """A list or dict where a cell is one in JSON; else the text."""
    if text[:1] in ('[', '{'):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text


@contextmanager
def _parquet_file(path: Path) -> Iterator[Any]:
    """An open ``pyarrow.parquet.ParquetFile``; its errors name the file."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(
            f'{path} is a parquet file, which needs pyarrow: pip install pyarrow.'
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            yield file
    # A damaged file can claim any type and any size.
    except (pyarrow.ArrowException, OSError, OverflowError, UnicodeError) as error:
        raise ValueError(
            f'{path} ({path.stat().st_size:,} bytes) cannot be read as parquet: '
            f'{" ".join(str(error).split())[:200]}. It may be truncated: fetch it '
            'again.'
        ) from error


def _is_image(kind: Any) -> bool:
    """Whether an Arrow type is Hugging Face's image: bytes with a path."""
    from pyarrow import types

    if not types.is_struct(kind):
        return False
    return {'bytes', 'path'} <= {kind.field(i).name for i in range(kind.num_fields)}


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict]]:
    """Rows without the bytes of images."""
    with _parquet_file(path) as file:
        schema = file.schema_arrow
        columns = []
        for column in schema:
            # Of an image, its name alone: its bytes may be gigabytes.
            leaf = f'{column.name}.path' if _is_image(column.type) else column.name
            columns.append(leaf)
        number = 0
        for batch in file.iter_batches(1024, columns=columns):
            for row in batch.to_pylist():
                yield number, row
                number += 1


def images_inside(path: Path) -> Iterator[tuple[int, dict, bytes]]:
    """Rows of a parquet file that have an image inside, and its bytes.

    Raises:
        ValueError: There is no column of images.
    """
    with _parquet_file(path) as file:
        columns = [c.name for c in file.schema_arrow if _is_image(c.type)]
        if not columns:
            raise ValueError(
                f'{path} has no images inside; it has the columns '
                f'{file.schema_arrow.names}. Give the folder of the images.'
            )
        number = 0
        for batch in file.iter_batches(64):
            for row in batch.to_pylist():
                content = (row[columns[0]] or {}).get('bytes')
                if content is not None:
                    yield number, row, content
                number += 1


def _xml_rows(files: list[Path]) -> Iterator[tuple[int, tuple[Path, Any]]]:
    for number, path in enumerate(files):
        yield number, (path, _parse_xml(path))


def _parse_xml(path: Path) -> ElementTree.Element:
    content = path.read_bytes()
    # Entities of a document type can grow without end, or name other files.
    guard = expat.ParserCreate()
    depth = 0

    def refuse(*_: Any) -> None:
        raise ValueError(
            f'{path} declares a document type, which may hold entities: expected plain '
            'XML as of Pascal VOC. Remove the line "<!DOCTYPE ...>".'
        )

    def enter(*_: Any) -> None:
        nonlocal depth
        depth += 1
        if depth > 100:
            raise ValueError(f'{path} is nested over 100 deep; expected Pascal VOC.')

    def leave(*_: Any) -> None:
        nonlocal depth
        depth -= 1

    guard.StartDoctypeDeclHandler = refuse
    guard.StartElementHandler, guard.EndElementHandler = enter, leave
    try:
        guard.Parse(content, True)
        return ElementTree.fromstring(content)  # noqa: S314  # after the guard
    except (expat.ExpatError, ElementTree.ParseError, LookupError) as error:
        raise ValueError(
            f'{path} ({len(content):,} bytes) is not valid XML: {error}. It may be '
            'truncated: fetch or write it again.'
        ) from error
