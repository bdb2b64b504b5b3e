"""RefCOCOs and other lists made for vision-language models."""

from collections.abc import Sequence
from pathlib import Path

from ..label_table import LabelTable
from ..table_builder import TableBuilder
from .common import (
    entry_of,
    image_size,
    keep_splits,
    read_json,
    required,
    split_of,
    targets_of,
)

__all__ = ['read_vlm']


def read_vlm(
    ann_file: Path,
    *,
    split_file: Path | None = None,  # noqa: ARG001  # only REFER has one
    splits: Sequence[str] | None = None,
    source: str | None = None,
    int_boxes: bool = False,
    box_format: str | None = None,
) -> LabelTable:
    """Read a JSON list of ``{"image", "normal_caption" or "problem", "solution"}``.

    Args:
        ann_file (Path): The list; ``solution`` is an xyxy box in pixels.
        split_file (Path, optional): Not used.
        splits (Sequence[str], optional): Splits to keep. Defaults to None: all.
        source (str, optional): Defaults to None: 'human'.
        int_boxes (bool): Whether x1, y1, x2, y2 lose their fraction. Defaults to
            False.
        box_format (str, optional): 'xywh' or 'xyxy'. Defaults to None: 'xyxy'.

    Returns:
        LabelTable: Labels named ``<file>_<position>``; the split is the end of
        the file's name. Entries with no box or several are left out and counted in
        its ``notes``.

    Raises:
        ValueError: The file or an entry is not as described.
    """
    entries = entry_of(read_json(ann_file), list, str(ann_file), 'a JSON list')
    split = split_of(ann_file.stem)
    places: list[int] = []
    builder = TableBuilder(lambda label: f'{ann_file}, entry {places[label]}')
    for index, entry in enumerate(entries):
        where = f'{ann_file}, entry {index}'
        entry_of(entry, dict, where, 'a JSON object')
        boxes = targets_of(required(entry, 'solution', where))
        if len(boxes) != 1:
            builder.leave_out(len(boxes), where)
            continue
        places.append(index)
        key = 'normal_caption' if 'normal_caption' in entry else 'problem'
        builder.add(
            required(entry, 'image', where),
            boxes[0],
            required(entry, key, where),
            f'{ann_file.stem}_{index}',
            split,
            source or 'human',
            image_size(entry),
        )
    return keep_splits(builder.build(box_format or 'xyxy', int_boxes), splits, ann_file)
