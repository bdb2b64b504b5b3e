"""TransVG and CLIP-VG lists: ``.pth`` files, human and pseudo-labels."""

import re
from collections.abc import Sequence
from pathlib import Path

from ...utils.safe_torch import load_torch
from ..label_table import LabelTable
from ..table_builder import TableBuilder
from .common import entry_of, keep_splits, split_of, targets_of

__all__ = ['named_box_format', 'read_transvg']

# As in the official code: boxes of these data sets are xyxy, those of RefCOCO/+/g xywh.
XYXY_DATASETS = ('referit', 'flickr')
XYWH_DATASETS = ('unc', 'gref', 'refcoco')
# What pseudo-labels have in the fields of the mask file and the attributes.
PLACEHOLDER = 'useless placeholder'


def named_box_format(name: str) -> str | None:
    """The box format that the name of a list says.

    Args:
        name (str): With the data set anywhere, e.g. '1_flickr_train_pseudo.pth'.

    Returns:
        str, optional: 'xyxy' (ReferIt, Flickr30k), 'xywh' (RefCOCO, + and g), or None
        where it names none of them.

    Raises:
        ValueError: It names data sets of both.
    """
    words = re.findall('[a-z]+', name.lower())
    found = {
        kind
        for kind, names in (('xyxy', XYXY_DATASETS), ('xywh', XYWH_DATASETS))
        if any(word.startswith(names) for word in words)
    }
    if len(found) > 1:
        raise ValueError(
            f'{name} names data sets whose boxes are xyxy ({", ".join(XYXY_DATASETS)}) '
            f'and others whose are xywh ({", ".join(XYWH_DATASETS)}): say '
            '`box_format` (--box-format).'
        )
    return next(iter(found), None)


def read_transvg(
    ann_file: Path,
    *,
    split_file: Path | None = None,  # noqa: ARG001  # only REFER has one
    splits: Sequence[str] | None = None,
    source: str | None = None,
    int_boxes: bool = False,
    box_format: str | None = None,
) -> LabelTable:
    """Read a list as TransVG and CLIP-VG store them.

    The data set and the split are in the file's name (``unc_val.pth``,
    ``1_flickr_train_pseudo_template_0_5.pth``). An entry is
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
        box_format (str, optional): 'xywh' or 'xyxy'. Defaults to None: xyxy where the
            name says ReferIt or Flickr30k, and where entries have three fields; else
            xywh.

    Returns:
        LabelTable: Labels named ``<file>_<position>``. Entries with no box or several
        are left out and counted in its ``notes``.

    Raises:
        ValueError: The file or an entry is not as described.
    """
    entries = entry_of(load_torch(ann_file), (list, tuple), str(ann_file), 'a list')
    split = split_of(ann_file.stem)
    places: list[int] = []
    builder = TableBuilder(lambda label: f'{ann_file}, entry {places[label]}')
    widths: dict[bool, int] = {}  # of entries with three fields or more: the first
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
        widths.setdefault(len(entry) == 3, index)
        boxes = targets_of(box)
        if len(boxes) != 1:
            builder.leave_out(len(boxes), where)
            continue
        places.append(index)
        builder.add(
            image,
            boxes[0],
            text,
            f'{ann_file.stem}_{index}',
            split,
            source or made_by,
        )
    box_format = box_format or _box_format(ann_file, widths)
    table = builder.build(box_format, int_boxes)
    return keep_splits(table, splits, ann_file) if len(table) else table


def _box_format(path: Path, widths: dict[bool, int]) -> str:
    """Of a list whose entries have three fields (True) or more (False)."""
    named = named_box_format(path.name)
    if named != 'xyxy' and len(widths) > 1:
        raise ValueError(
            f'{path}: entry {widths[True]} has three fields, whose boxes are xyxy as '
            f'those of Flickr30k, and entry {widths[False]} has more, whose boxes are '
            'xywh: say `box_format` (--box-format).'
        )
    if named == 'xywh' and True in widths:
        raise ValueError(
            f'{path} is named as a list of boxes in xywh, but its entries have three '
            'fields, as those of Flickr30k, whose boxes are xyxy: say `box_format` '
            '(--box-format).'
        )
    return 'xyxy' if named == 'xyxy' or True in widths else 'xywh'
