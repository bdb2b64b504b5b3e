"""Rows of any file with one label each: JSON, JSON Lines, CSV, TSV, parquet.

The fields are told by the usual names of columns, or by the user.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..box_formats import BoxKind
from .common import image_size, split_of, targets_of
from .documents import Document
from .layout import PIXEL_XYWH, PIXEL_XYXY, UNSETTLED, Label, Layout, Options, value_at

__all__ = ['FIELDS', 'ROWS', 'lacking_fields', 'parse_fields', 'texts_of_rows']

# What `fields` may name, and the names that are taken where it does not; spaces, dashes
# and capitals of a column do not count.
FIELDS: dict[str, tuple[str, ...]] = {
    'image': (
        *('image', 'img', 'file_name', 'filename', 'image_path', 'img_path'),
        *('image_name', 'image_file', 'file', 'path', 'photo', 'picture'),
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
    # Rows that are alike in it, or in several columns, are boxes of one label.
    'label': (),
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


def _plain(name: Any) -> str:
    """A column's name without what spreadsheets add to it."""
    return re.sub(r'[\s-]+', '_', str(name).strip().lower())


def _fields(
    document: Document,
    given: Mapping[str, Any],
    needed: Sequence[str] = ('image', 'text', 'box'),
) -> dict[str, Any]:
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
        # In the order of the usual names.
        present = [
            n
            for usual in FIELDS[field]
            for n in names
            if _plain(n) == usual and n not in of_box
        ]
        if len(present) > 1 and field in ('image', 'text'):
            raise _ambiguous(document, field, present)
        if present:
            fields[field] = present[0]
    for field in needed:
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
    by_plain = {_plain(name): name for name in reversed(names)}
    columns = [
        tuple(by_plain[name] for name in c) for c in COLUMNS if set(c) <= set(by_plain)
    ]
    single = [name for name in names if _plain(name) in FIELDS['box']]
    if len(single) + min(len(columns), 1) > 1:
        raise _ambiguous(document, 'box', [*single, *map(list, columns)])
    choice: list[Any] = [*columns[:1], *single]
    return dict(box=choice[0]) if choice else {}


def lacking_fields(document: Document) -> str:
    """What rows lack to be read by the usual names, and how to say it.

    Args:
        document (Document): One of no known layout, whose rows have keys.
    """
    names = _names(document)
    known = {
        field
        for field in ('image', 'text')
        if any(_plain(name) in FIELDS[field] for name in names)
    }
    if _box_field(document, names):
        known.add('box')
    lacking = [field for field in ('image', 'text', 'box') if field not in known]
    if not lacking:
        return ''
    if document.kind == 'csv' and any(_is_number(name) for name in names):
        return (
            'Its first line looks like a label: write the names of the columns above '
            'it, such as image,text,x,y,w,h.'
        )
    nested = [
        name
        for row in document.head[:1]
        for name, value in row.items()
        if isinstance(value, list) and value and isinstance(value[0], dict)
    ]
    if nested and len(lacking) > 1:
        return (
            f'Labels within {", ".join(map(repr, nested))} of an image are not read: '
            'write a row for each, with an image, a text and a bbox.'
        )
    columns = dict(image='COLUMN', text='COLUMN', box='COLUMN')
    for name in names:  # what looks like a file is the image
        if any(_is_image(row.get(name)) for row in document.head[:1]):
            columns['image'] = str(name)
    said = ' '.join(f'{field}={columns[field]}' for field in lacking)
    four = ', of four columns box=A,B,C,D' if 'box' in lacking else ''
    return (
        f'As rows, it has no column of a usual name for {" and ".join(lacking)}: say '
        f'--fields {said}{four} (in a config fields=dict({lacking[0]}=...)).'
    )


def _is_number(name: Any) -> bool:
    return isinstance(_number(name), float)


def _is_image(value: Any) -> bool:
    return isinstance(value, str) and bool(
        re.search(r'\.(jpe?g|png|webp|bmp|tiff?)$', value[-8:].lower())
    )


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
        value = _box_of_text(value)
    if isinstance(value, list) and value and all(isinstance(b, dict) for b in value):
        value = [_box_of_dict(box) for box in value]
    return [
        [_number(number) for number in box] if isinstance(box, list | tuple) else box
        for box in targets_of(
            value or None if isinstance(value, list) else _box_of_dict(value)
        )
    ]


def _box_of_text(cell: str) -> Any:
    """What a cell has: four numbers, or lists as JSON and Python write them."""
    if cell.lstrip().startswith('['):
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            if not cell.strip('[]() '):  # broken, and no empty list
                return [cell]
    return [_number(part) for part in re.split(r'[\s,;]+', cell.strip('[]() ')) if part]


def _columns_of(box: Any) -> tuple[str, str, str, str] | tuple[()]:
    """The names of the four numbers in a box that is a dict, e.g. x, y, w, h."""
    if isinstance(box, dict):
        for columns in COLUMNS:
            if set(columns) <= box.keys():
                return columns
    return ()


def _box_of_dict(box: Any) -> Any:
    """A box as four numbers, if it is a dict that names them."""
    columns = _columns_of(box)
    return [box[name] for name in columns] if columns else box


def _side(value: Any) -> Any:
    """A whole number of a text, as cells of CSV are."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value[:10])
    return value


def _labels(document: Document, options: Options) -> Iterator[Label]:
    fields = _fields(document, options.fields)
    rows = _read(document, fields)
    if 'label' in fields:
        yield from _joined(document, rows, fields['label'])
    else:
        for label, _ in rows:
            yield label


def _joined(
    document: Document,
    rows: Iterator[tuple[Label, dict]],
    columns: str | Sequence[str],
) -> Iterator[Label]:
    """One label for all rows that are alike in some columns; their boxes, each once."""
    columns = [columns] if isinstance(columns, str) else columns
    alike: dict[tuple, list[Label]] = {}
    for label, row in rows:
        where = document.where(label.place)
        key = tuple(str(value_at(row, column, where)) for column in columns)
        alike.setdefault(key, []).append(label)
    for key, labels in alike.items():
        first, boxes = labels[0], []
        for label in labels:
            if (label.image, label.text) != (first.image, first.text):
                raise ValueError(
                    f'{document.where(label.place)}: the label {key} has another image '
                    f'or expression in {document.noun} {first.place}; expected the '
                    'same in all rows of a label.'
                )
            boxes += [box for box in label.boxes if box not in boxes]
        yield first._replace(boxes=boxes)


def texts_of_rows(
    document: Document, given: Mapping[str, Any]
) -> Iterator[tuple[Label, dict]]:
    """Labels of rows that have an image and an expression, with a box or without.

    Args:
        document (Document): The rows.
        given (Mapping): Columns of fields, of ``FIELDS``; empty: by the usual names.

    Yields:
        tuple[Label, dict]: A label, and the row that it is in.
    """
    return _read(document, _fields(document, given, ('image', 'text')))


def _read(document: Document, fields: Mapping) -> Iterator[tuple[Label, dict]]:
    """Labels of rows by their columns."""
    stem, split = document.path.stem, split_of(document.path.stem)
    for number, row, where in document.records():
        image = value_at(row, fields['image'], where)
        if isinstance(image, dict):  # Hugging Face's images
            image = image.get('path') or f'{stem}_{number}.jpg'
        texts = value_at(row, fields['text'], where)
        boxes = _boxes(row, fields['box'], where) if 'box' in fields else []
        several = isinstance(texts, list | tuple)
        given = {
            key: str(row[fields[key]])
            for key in ('split', 'source', 'image_set')
            if key in fields and row.get(fields[key]) not in (None, '')
        }
        size = {key: _side(row.get(fields.get(key))) for key in ('height', 'width')}
        name = row.get(fields.get('sample_id')) or f'{stem}_{number}'
        for index, text in enumerate(texts if several else [texts]):
            label = Label(
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
            yield label, row


def _kinds(document: Document) -> tuple[BoxKind, ...]:
    """What names of columns say of the boxes; else the numbers must tell."""
    names = _names(document)
    for name in names:
        for words, kinds in _KINDS.items():
            if words in name.lower():
                return kinds
    plain = set(map(_plain, names))
    for columns, box_format in COLUMNS.items():
        if set(columns) <= plain and not set(FIELDS['box']) & plain:
            return (BoxKind(box_format, 'pixel'),)
    for row in document.head:
        for value in row.values() if isinstance(row, dict) else ():
            several = isinstance(value, list) and len(value) > 0
            if named := _columns_of(value[0] if several else value):
                return (BoxKind(COLUMNS[named], 'pixel'),)
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
