"""Files of texts about images: captions and expressions, mostly without boxes."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..data.box_checks import check_fit
from ..data.label_table import LabelTable
from ..data.readers import layout_of, read_annotations
from ..data.readers.documents import Document, open_document
from ..data.readers.rows import ROWS, texts_of_rows
from ..data.table_builder import TableBuilder, shown
from .detection import Box, GivenText
from .entries import CocoFile

__all__ = ['read_texts']

# Where it is, for errors; the image's id or file name; and the text.
Entry = tuple[str, int | str, GivenText]


def read_texts(
    path: Path,
    split_file: Path | None = None,
    fields: Mapping[str, Any] | None = None,
    ignore_boxes: bool = False,
) -> Iterator[Entry]:
    """Texts of a file of any layout, each with its image.

    COCO captions; rows (JSON Lines, JSON, CSV, parquet) of an image and a text or a
    list of texts, which may have a box, ``region`` (the number of a detection of the
    image) or ``negative``; and all layouts of ``read_annotations``.

    Args:
        path (Path): The file.
        split_file (Path, optional): REFER's refs. Defaults to None.
        fields (Mapping, optional): Columns of a file of rows, see ``read_annotations``.
            Defaults to None: by the usual names.
        ignore_boxes (bool): Whether texts with a box are read as if they had none.
            Defaults to False.

    Yields:
        tuple[str, int | str, GivenText]: Where it is, for errors; its image, by the id
        (COCO captions) or file name; and the text.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged or has no texts, or an entry is wrong.
    """
    if not path.is_file():
        raise FileNotFoundError(f'--texts {path}: no such file.')
    document = open_document(path)
    if split_file is None and _has_captions(document):
        for number, (image_id, caption) in enumerate(CocoFile(path).captions(), 1):
            yield f'{path}, caption {number}', image_id, GivenText(caption)
        return
    if split_file is None and _is_rows(document):
        table, places, extras = _of_rows(document, fields or {})
    else:
        table = read_annotations(path, split_file, targets='any', fields=fields)
        places = [f'{path}, label {name}' for name in table.sample_ids]
        extras = [(False, None)] * len(table)
    for label, where, (negative, region) in zip(table, places, extras, strict=True):
        box = None if ignore_boxes else _only_box(label['bboxes'], where)
        if region is not None and ignore_boxes:
            region = None
        if negative and (box is not None or region is not None):
            raise ValueError(
                f'{where}: the text {shown(label["text"])} is negative, and has a box '
                'or region; expected one of the two.'
            )
        yield where, label['image'], GivenText(label['text'], box, region, negative)


def _has_captions(document: Document) -> bool:
    """Whether a document is of COCO's captions, or of caption results."""
    entries = document.value
    if isinstance(entries, dict):
        entries = entries.get('annotations')
    first = entries[0] if isinstance(entries, list) and entries else None
    return isinstance(first, dict) and {'image_id', 'caption'} <= first.keys()


def _is_rows(document: Document) -> bool:
    """Whether a document has rows that are of no layout with a form of its own."""
    if not document.keys:
        return False
    try:
        layout = layout_of(document)
    except ValueError:  # which rows without a box are to readers of labels
        return True
    return layout is ROWS or bool(layout.refusal)


def _of_rows(
    document: Document, fields: Mapping[str, Any]
) -> tuple[LabelTable, list[str], list[tuple[bool, int | None]]]:
    """Texts as a table, where each is, and whether it is negative, and its region."""
    builder = TableBuilder(document.where, 'any')
    places: list[str] = []
    extras: list[tuple[bool, int | None]] = []
    for label, row in texts_of_rows(document, fields):
        where = document.where(label.place)
        builder.add_targets(
            label.image,
            label.boxes,
            label.text,
            label.sample_id,
            label.split or 'all',
            label.source,
            label.size,
            place=label.place,
        )
        places.append(where)
        extras.append((_negative(row, where), _region(row, where)))
    kinds = ROWS.boxes(document) if callable(ROWS.boxes) else ROWS.boxes
    table = builder.build(kinds)
    check_fit(table, str(document.path))
    return table, places, extras


def _negative(row: Mapping[str, Any], where: str) -> bool:
    value = row.get('negative') or False
    if isinstance(value, str):  # a cell of CSV
        value = {'true': True, 'false': False}.get(value.lower(), value)
    if not isinstance(value, bool):
        raise ValueError(
            f'{where}: negative is {shown(value)}; expected true or false.'
        )
    return value


def _region(row: Mapping[str, Any], where: str) -> int | None:
    value = row.get('region')
    if value is None or value == '':
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:10])
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(
            f'{where}: region is {shown(value)}; expected the number of a detection of '
            'the image, from 0.'
        )
    return value


def _only_box(boxes: list[list[float]], where: str) -> Box | None:
    if not boxes:
        return None
    if len(boxes) > 1:
        raise ValueError(
            f'{where}: the text has {len(boxes)} boxes; expected one or none. Say '
            '--ignore-boxes to find one box for each text.'
        )
    left, top, right, bottom = boxes[0]
    return left, top, right, bottom
