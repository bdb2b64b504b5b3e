"""MDETR: COCO files with one image entry per expression."""

import re
from collections.abc import Sequence
from pathlib import Path

from ..label_table import LabelTable
from ..table_builder import TableBuilder
from .common import entry_of, image_size, keep_splits, read_json, required

__all__ = ['read_mdetr']


def read_mdetr(
    ann_file: Path,
    *,
    split_file: Path | None = None,  # noqa: ARG001  # only REFER has one
    splits: Sequence[str] | None = None,
    source: str | None = None,
    int_boxes: bool = False,
) -> LabelTable:
    """Read ``finetune_refcoco_val.json`` and its like.

    Args:
        ann_file (Path): COCO with ``caption`` at every image; boxes xywh.
        split_file (Path, optional): Not used.
        splits (Sequence[str], optional): Splits to keep. Defaults to None: all.
        source (str, optional): Defaults to None: 'human'.
        int_boxes (bool): Whether x, y, w, h lose their fraction. Defaults to
            False.

    Returns:
        LabelTable: Labels named ``<file>_<image id>``; the split is the end of
        the file's name.

    Raises:
        ValueError: The file or an entry is not as described.
    """
    content = entry_of(read_json(ann_file), dict, str(ann_file), 'a COCO dict')
    images = required(content, 'images', str(ann_file))
    boxes: dict = {}
    for index, annotation in enumerate(required(content, 'annotations', str(ann_file))):
        where = f'{ann_file}, annotation {index}'
        image_id = required(annotation, 'image_id', where)
        if image_id in boxes:
            raise ValueError(
                f'{where}: image entry {image_id} has a second box; an expression has '
                'one here.'
            )
        boxes[image_id] = required(annotation, 'bbox', where)
    found = re.search(r'(train|val|testA|testB|test)$', ann_file.stem)
    split = found[0] if found else 'all'
    builder = TableBuilder(lambda where: f'{ann_file}, image entry {where}')
    for index, image in enumerate(images):
        where = f'{ann_file}, image entry {index}'
        image_id = required(image, 'id', where)
        if image_id not in boxes:
            raise ValueError(
                f'{where} (id {image_id}): no annotation has this image_id.'
            )
        builder.add(
            required(image, 'file_name', where),
            boxes[image_id],
            required(image, 'caption', where),
            f'{ann_file.stem}_{image_id}',
            split,
            source or 'human',
            image_size(image),
        )
    return keep_splits(builder.build('xywh', int_boxes), splits, ann_file)
