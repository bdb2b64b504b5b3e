"""TransVG and CLIP-VG lists: ``.pth`` files, human and pseudo-labels."""

import re
from collections.abc import Sequence
from pathlib import Path

from ...safe_torch import load_torch
from ..label_table import LabelTable
from ..table_builder import TableBuilder
from .common import entry_of, keep_splits

__all__ = ['read_transvg']

# As released: boxes of these data sets are xyxy, those of RefCOCO/+/g xywh.
XYXY_DATASETS = ('referit', 'flickr')
# What pseudo-labels have in the fields of the mask file and the attributes.
PLACEHOLDER = 'useless placeholder'
_NAME = re.compile(r'(?P<dataset>.+?)_(?P<split>train|val|testA|testB|test|trainval)\b')


def read_transvg(
    ann_file: Path,
    *,
    split_file: Path | None = None,  # noqa: ARG001  # only REFER has one
    splits: Sequence[str] | None = None,
    source: str | None = None,
    int_boxes: bool = False,
) -> LabelTable:
    """Read a list as TransVG and CLIP-VG store them.

    The data set and the split are in the file's name (``unc_val.pth``,
    ``flickr_train_pseudo.pth``). An entry is
    ``(image, mask file, box, expression, attributes)``, or ``(image, box,
    expression)`` for Flickr30k; ``*_iou_result.pth`` has two boxes and the
    reliability after the expression, which are left to the curriculum.

    Args:
        ann_file (Path): The list.
        split_file (Path, optional): Not used.
        splits (Sequence[str], optional): Splits to keep. Defaults to None: all.
        source (str, optional): Defaults to None: 'human', or 'pseudo' where the
            mask file is 'useless placeholder'.
        int_boxes (bool): Whether the numbers of a box lose their fraction, as in
            the release. Defaults to False.

    Returns:
        LabelTable: Labels named ``<file>_<position>``.

    Raises:
        ValueError: The file or an entry is not as described.
    """
    entries = entry_of(load_torch(ann_file), (list, tuple), str(ann_file), 'a list')
    name = _NAME.match(ann_file.stem)
    split = name['split'] if name else 'all'
    is_xyxy = ann_file.stem.startswith(XYXY_DATASETS)
    builder = TableBuilder(lambda where: f'{ann_file}, entry {where}')
    for index, entry in enumerate(entries):
        where = f'{ann_file}, entry {index}'
        entry_of(entry, (list, tuple), where, 'a tuple or a list')
        if len(entry) == 3:
            image, box, text = entry
            made_by = 'human'
        elif len(entry) >= 5:
            image, mask_file, box, text = entry[:4]
            made_by = 'pseudo' if mask_file == PLACEHOLDER else 'human'
        else:
            raise ValueError(
                f'{where}: expected 3 fields (Flickr30k) or 5 and more, found '
                f'{len(entry)}: {entry!r}.'
            )
        builder.add(
            image,
            box.tolist() if hasattr(box, 'tolist') else box,
            text,
            f'{ann_file.stem}_{index}',
            split,
            source or made_by,
        )
    table = builder.build('xyxy' if is_xyxy else 'xywh', int_boxes)
    return keep_splits(table, splits, ann_file) if len(table) else table
