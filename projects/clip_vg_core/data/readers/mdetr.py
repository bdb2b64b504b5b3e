"""MDETR: COCO files with one image entry per expression."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..label_table import LabelTable
from ..table_builder import TableBuilder
from .common import (
    by_id,
    entry_of,
    image_size,
    keep_splits,
    read_json,
    required,
    split_of,
)

__all__ = ['read_mdetr']


def read_mdetr(
    ann_file: Path,
    *,
    split_file: Path | None = None,  # noqa: ARG001  # only REFER has one
    splits: Sequence[str] | None = None,
    source: str | None = None,
    int_boxes: bool = False,
    box_format: str | None = None,
) -> LabelTable:
    """Read ``finetune_refcoco_val.json`` and its like.

    Args:
        ann_file (Path): COCO with ``caption`` at every image; boxes xywh.
        split_file (Path, optional): Not used.
        splits (Sequence[str], optional): Splits to keep. Defaults to None: all.
        source (str, optional): Defaults to None: 'human'.
        int_boxes (bool): Whether x, y, w, h lose their fraction. Defaults to
            False.
        box_format (str, optional): 'xywh' or 'xyxy'. Defaults to None: 'xywh'.

    Returns:
        LabelTable: Labels named ``<file>_<image id>``; the split is the end of
        the file's name. Expressions with no box or several are left out and counted in
        its ``notes``.

    Raises:
        ValueError: The file or an entry is not as described, or two image entries of
            different content have the same id.
    """
    content = entry_of(read_json(ann_file), dict, str(ann_file), 'a COCO dict')
    images, annotations = (
        entry_of(
            required(content, key, str(ann_file)), list, f'{ann_file}, {key}', 'a list'
        )
        for key in ('images', 'annotations')
    )
    boxes: dict[Any, list] = {}
    for index, annotation in enumerate(annotations):
        where = f'{ann_file}, annotation {index}'
        image_id = required(annotation, 'image_id', where)
        entry_of(image_id, (int, float, str), f'{where}, image_id', 'a number or text')
        box = required(annotation, 'bbox', where)
        of_image = boxes.setdefault(image_id, [])
        # gRefCOCO's and RefDrone's way to say that there is none.
        if not (annotation.get('empty') or annotation.get('category_id') == -1):
            of_image.append(box)
    split = split_of(ann_file.stem)
    places: list[Any] = []
    builder = TableBuilder(lambda label: f'{ann_file}, image entry {places[label]}')
    for image_id, image in by_id(images, f'{ann_file}, image entry').items():
        where = f'{ann_file}, image entry {image_id}'
        of_image = boxes.get(image_id, [])
        if len(of_image) != 1:
            builder.leave_out(len(of_image), where)
            continue
        places.append(image_id)
        builder.add(
            required(image, 'file_name', where),
            of_image[0],
            required(image, 'caption', where),
            f'{ann_file.stem}_{image_id}',
            split,
            source or 'human',
            image_size(image),
        )
    return keep_splits(builder.build(box_format or 'xywh', int_boxes), splits, ann_file)
