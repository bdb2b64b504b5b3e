"""Rows of any file with one label each: JSON, JSON Lines, CSV, TSV, parquet.

The fields are told by the usual names of columns, or by the user.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..box_formats import BoxKind
from .common import image_size, split_of, targets_of
from .documents import Document
from .layout import PIXEL_XYWH, PIXEL_XYXY, UNSETTLED, Label, Layout, Options, value_at

__all__ = ['FIELDS', 'ROWS', 'parse_fields']

# What `fields` may name, and the names that are taken where it does not.
FIELDS: dict[str, tuple[str, ...]] = {
    'image': (
        *('image', 'img', 'file_name', 'filename', 'image_path', 'img_path'),
        *('image_name', 'image_file', 'file', 'path'),
    ),
    'text': (
        *('text', 'expression', 'caption', 'sentence', 'sent', 'phrase', 'query'),
        *('referring_expression', 'description', 'expressions', 'sentences', 'texts'),
    ),
    'box': (
        *('bbox', 'box', 'bboxes', 'boxes', 'bbox_xyxy', 'box_xyxy', 'xyxy'),
        *('bbox_xywh', 'box_xywh', 'xywh', 'bbox_cxcywh', 'cxcywh'),
    ),
    'height': ('image_height', 'img_height', 'height', 'img_h', 'image_h'),
    'width': ('image_width', 'img_width', 'width', 'img_w', 'image_w'),
    'split': ('split',),
    'sample_id': ('sample_id',),
    'source': ('source',),
    'image_set': ('dataset', 'dataset_name'),
}
# Columns of a box, and its format.
COLUMNS = {
    ('x1', 'y1', 'x2', 'y2'): 'xyxy',
    ('xmin', 'ymin', 'xmax', 'ymax'): 'xyxy',
    ('x_min', 'y_min', 'x_max', 'y_max'): 'xyxy',
    ('left', 'top', 'right', 'bottom'): 'xyxy',
    ('cx', 'cy', 'w', 'h'): 'cxcywh',
    ('x', 'y', 'w', 'h'): 'xywh',
    ('x', 'y', 'width', 'height'): 'xywh',
}
_KINDS = {'xyxy': PIXEL_XYXY, 'xywh': PIXEL_XYWH}


def _names(document: Document) -> list[str]:
    """Columns that any of the first rows has."""
    rows = [row for row in document.head if isinstance(row, dict)]
    return list(dict.fromkeys(name for row in rows for name in row))


def _fields(document: Document, given: Mapping[str, Any]) -> dict[str, Any]:
    """The column or columns of each field.

    Raises:
        ValueError: A field that is needed is not there, or several could be it.
    """
    unknown = sorted(given.keys() - FIELDS.keys())
    if unknown:
        raise ValueError(
            f'fields={dict(given)!r}: {", ".join(unknown)} is no field; expected '
            f'{sorted(FIELDS)}.'
        )
    names = _names(document)
    fields: dict[str, Any] = dict(given)
    if 'box' not in fields:
        fields.update(_box_field(document, names))
    of_box = fields.get('box')
    of_box = set(of_box) if isinstance(of_box, list | tuple) else {of_box}
    for field in FIELDS.keys() - fields.keys():
        present = [n for n in FIELDS[field] if n in names and n not in of_box]
        if len(present) > 1 and field in ('image', 'text'):
            raise _ambiguous(document, field, present)
        if present:
            fields[field] = present[0]
    for field in ('image', 'text', 'box'):
        if field not in fields:
            raise ValueError(
                f'{document.path}: no column is named as the {field} of a label; it '
                f'has {str(names)[:500]}: say which, fields=dict({field}=...) '
                f'(--fields {field}=...), one of the usual names {FIELDS[field]}, or '
                'use a known layout (docs/data.md).'
            )
    return fields


def _box_field(document: Document, names: list[str]) -> dict[str, Any]:
    """The column or the four columns of boxes, if there are such."""
    columns = [c for c in COLUMNS if set(c) <= set(names)]
    single = [name for name in FIELDS['box'] if name in names]
    if len(single) + min(len(columns), 1) > 1:
        raise _ambiguous(document, 'box', [*single, *map(list, columns)])
    choice: list[Any] = [*columns[:1], *single]
    return dict(box=choice[0]) if choice else {}


def _ambiguous(document: Document, field: str, names: list) -> ValueError:
    return ValueError(
        f'{document.path}: several columns can be the {field} of a label, {names}: say '
        f'which, fields=dict({field}=...) (--fields {field}=...).'
    )


def _number(value: Any) -> Any:
    """A number of a text; what is none stays, for the error that names it."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _boxes(row: dict, field: Any, where: str) -> list:
    """The targets of a row; an empty cell is no target."""
    if isinstance(field, list | tuple):
        values = [value_at(row, name, where) for name in field]
        if all(value in (None, '') for value in values):
            return []
        return [[_number(value) for value in values]]
    value = value_at(row, field, where)
    if isinstance(value, str):
        value = [_number(part) for part in re.split(r'[\s,;]+', value.strip()) if part]
    return [
        [_number(number) for number in box] if isinstance(box, list | tuple) else box
        for box in targets_of(value or None if isinstance(value, list) else value)
    ]


def _side(value: Any) -> Any:
    """A whole number of a text, as cells of CSV are."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value[:10])
    return value


def _labels(document: Document, options: Options) -> Iterator[Label]:
    fields = _fields(document, options.fields)
    stem, split = document.path.stem, split_of(document.path.stem)
    for number, row, where in document.records():
        image = value_at(row, fields['image'], where)
        if isinstance(image, dict):  # Hugging Face's images
            image = image.get('path') or f'{stem}_{number}.jpg'
        texts = value_at(row, fields['text'], where)
        boxes = _boxes(row, fields['box'], where)
        several = isinstance(texts, list | tuple)
        given = {
            key: str(row[fields[key]])
            for key in ('split', 'source', 'image_set')
            if key in fields and row.get(fields[key]) not in (None, '')
        }
        size = {key: _side(row.get(fields.get(key))) for key in ('height', 'width')}
        name = row.get(fields.get('sample_id')) or f'{stem}_{number}'
        for index, text in enumerate(texts if several else [texts]):
            yield Label(
                number,
                image,
                boxes,
                text,
                f'{name}_{index}' if several else str(name),
                given.get('split', split),
                given.get('source', ''),
                image_size(size),
                image_set=given.get('image_set', ''),
            )


def _kinds(document: Document) -> tuple[BoxKind, ...]:
    """What names of columns say of the boxes; else the numbers must tell."""
    names = _names(document)
    for name in names:
        for words, kinds in _KINDS.items():
            if words in name.lower():
                return kinds
    for columns, box_format in COLUMNS.items():
        if set(columns) <= set(names) and not set(FIELDS['box']) & set(names):
            return (BoxKind(box_format, 'pixel'),)
    return UNSETTLED


def _matches(document: Document) -> bool:
    """Whether rows have an image, an expression and a box by the usual names."""
    if not document.keys:
        return False
    try:
        _fields(document, {})
    except ValueError:
        return False
    return True


ROWS = Layout(
    'rows',
    'Rows of any JSON, JSON Lines, CSV, TSV or parquet file: image, text, bbox',
    _matches,
    _labels,
    _kinds,
    pitfalls=(
        'xyxy or xywh is told by names of columns or by the numbers, or say '
        '`box_format`, `box_unit`, `fields`'
    ),
    unique_names=True,
)


def parse_fields(pairs: list[str] | None) -> dict[str, str | list[str]]:
    """Columns by their field, of the ``FIELD=COLUMN`` of a command line.

    Raises:
        ValueError: One is not of this form.
    """
    fields: dict[str, str | list[str]] = {}
    for pair in pairs or []:
        field, separator, column = pair.partition('=')
        if not separator or not column:
            raise ValueError(
                f'--fields {pair}: expected FIELD=COLUMN, e.g. text=words.'
            )
        fields[field] = column.split(',') if ',' in column else column
    return fields
