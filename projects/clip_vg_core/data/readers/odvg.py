"""ODVG JSON Lines, one expression per line: this project's own format."""

import json
import os
import tempfile
from array import array
from codecs import BOM_UTF8
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..label_table import LabelTable
from ..table_builder import TableBuilder
from .common import entry_of, image_size, keep_splits, required, targets_of

__all__ = ['odvg_line', 'read_odvg', 'write_odvg']


def read_odvg(
    ann_file: Path,
    *,
    split_file: Path | None = None,  # noqa: ARG001  # only REFER has one
    splits: Sequence[str] | None = None,
    source: str | None = None,
    int_boxes: bool = False,
    box_format: str | None = None,
) -> LabelTable:
    """Read ODVG grounding lines, ours or MMDetection's.

    Args:
        ann_file (Path): One JSON object a line; boxes xyxy. A line of several
            regions gives a label for each, its phrase being the expression.
        split_file (Path, optional): Not used.
        splits (Sequence[str], optional): Splits to keep. Defaults to None: all.
        source (str, optional): Overrides the lines'. Defaults to None: the
            line's ``source``, else 'human'.
        int_boxes (bool): Whether x1, y1, x2, y2 lose their fraction. Defaults to
            False.
        box_format (str, optional): 'xywh' or 'xyxy'. Defaults to None: 'xyxy'.

    Returns:
        LabelTable: Named by ``sample_id``, or ``<file>_<line>_<region>``. Lines without
        a region and regions of several boxes are left out and counted in its
        ``notes``.

    Raises:
        ValueError: A line is not as described, or a ``sample_id`` comes twice.
    """
    # Of each label: a hash of its name, and its line.
    names, lines = array('q'), array('q')
    builder = TableBuilder(lambda label: f'{ann_file}, line {lines[label]}')
    with ann_file.open('rb') as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f'{ann_file}, line {number}'
            entry = _parse(line.removeprefix(BOM_UTF8) if number == 1 else line, where)
            grounding = entry_of(
                required(entry, 'grounding', where), dict, where, 'a dict "grounding"'
            )
            regions = entry_of(
                required(grounding, 'regions', where), list, where, 'a list "regions"'
            )
            if not regions:
                builder.leave_out(0, where)
            for index, region in enumerate(regions):
                at = f'{where}, region {index}'
                entry_of(region, dict, at, 'a dict')
                boxes = targets_of(required(region, 'bbox', at))
                if len(boxes) != 1:
                    builder.leave_out(len(boxes), at)
                    continue
                if len(regions) == 1:
                    text = required(grounding, 'caption', where)
                    sample_id = str(entry.get('sample_id', f'{ann_file.stem}_{number}'))
                else:
                    text = required(region, 'phrase', at)
                    base = entry.get('sample_id', f'{ann_file.stem}_{number}')
                    sample_id = f'{base}_{index}'
                names.append(hash(sample_id))
                lines.append(number)
                builder.add(
                    required(entry, 'filename', where),
                    boxes[0],
                    text,
                    sample_id,
                    str(entry.get('split', 'all')),
                    source or str(entry.get('source', 'human')),
                    image_size(entry),
                )
    table = builder.build(box_format or 'xyxy', int_boxes)
    _check_unique(ann_file, table, np.frombuffer(names, np.int64), lines)
    return keep_splits(table, splits, ann_file)


def _check_unique(
    path: Path, table: LabelTable, hashes: np.ndarray, lines: Sequence[int]
) -> None:
    """Raise if two labels have the same name."""
    order = np.argsort(hashes, kind='stable')
    same = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
    for first, second in zip(order[same], order[same + 1], strict=True):
        name = table.sample_ids[second]
        if table.sample_ids[first] == name:
            raise ValueError(
                f'{path}, line {lines[second]}: the sample_id {name!r} was used in '
                f'line {lines[first]} already; it must be unique.'
            )


def _parse(line: bytes, where: str) -> dict:
    try:
        return entry_of(json.loads(line.decode()), dict, where, 'a JSON object')
    except UnicodeDecodeError as error:
        raise ValueError(f'{where} is not in UTF-8: {error}. Write it so.') from error
    except json.JSONDecodeError as error:
        raise ValueError(
            f'{where} is not valid JSON: {error}. Expected one JSON object a line.'
        ) from error


def write_odvg(table: LabelTable, path: str | Path, overwrite: bool = False) -> None:
    """Write labels as ODVG JSON Lines; the whole file or nothing.

    Args:
        table (LabelTable): The labels.
        path (str or Path): Where to.
        overwrite (bool): Whether an existing file may be replaced. Defaults to
            False.

    Raises:
        FileExistsError: The file exists and may not be replaced.
        ValueError: An image's size is unknown; ODVG needs it.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f'{path} exists; remove it or allow overwriting.')
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        'w', dir=path.parent, prefix=f'.{path.name}.', delete=False, encoding='utf-8'
    ) as file:
        try:
            for label in table:
                file.write(odvg_line(label))
            file.close()
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def odvg_line(label: Mapping[str, Any], **extra: Any) -> str:
    """One label as a line of ODVG.

    Args:
        label (Mapping): ``image``, ``height``, ``width``, ``text``, ``bbox`` (xyxy in
            pixels), ``sample_id``, ``split``, ``source``.
        extra: What the line has besides.

    Returns:
        str: JSON and a newline.

    Raises:
        ValueError: The size of the image is unknown; ODVG needs it.
    """
    if label['height'] is None:
        raise ValueError(
            f'label {label["sample_id"]}: the size of {label["image"]} is unknown, and '
            'ODVG needs it: give the folder of the images, it is read from there.'
        )
    text = label['text']
    region = dict(bbox=label['bbox'], phrase=text, tokens_positive=[[0, len(text)]])
    line = dict(
        filename=label['image'],
        height=label['height'],
        width=label['width'],
        grounding=dict(caption=text, regions=[region]),
        sample_id=label['sample_id'],
        split=label['split'],
        source=label['source'],
        **extra,
    )
    return json.dumps(line, ensure_ascii=False) + '\n'
