"""TransVG, CLIP-VG, HiVG, OneRef and CPL lists: ``.pth`` files of tuples."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..box_formats import BoxKind
from ..table_builder import shown
from .common import entry_of, split_of, targets_of
from .documents import Document
from .layout import PIXEL_XYWH, PIXEL_XYXY, Label, Layout, Options

__all__ = ['PLACEHOLDER', 'TRANSVG', 'named_box_format']

# As in the official code: boxes of these data sets are xyxy, those of RefCOCO/+/g xywh.
XYXY_DATASETS = ('referit', 'flickr')
XYWH_DATASETS = ('unc', 'gref', 'refcoco')
# What pseudo-labels have in the fields of the mask file and the attributes.
PLACEHOLDER = 'useless placeholder'
# Of a list whose format is guessed, the share of boxes that may contradict it.
_SLIPS = 0.05


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
    kinds = {
        kind
        for kind, names in (('xyxy', XYXY_DATASETS), ('xywh', XYWH_DATASETS))
        if any(word.startswith(names) for word in words)
    }
    if len(kinds) > 1:
        raise ValueError(
            f'{name} names data sets whose boxes are xyxy ({", ".join(XYXY_DATASETS)}) '
            f'and others whose are xywh ({", ".join(XYWH_DATASETS)}): say '
            '`box_format` (--box-format).'
        )
    return next(iter(kinds), None)


def _matches(document: Document) -> bool:
    return document.kind == 'torch' and isinstance(document.value, list | tuple)


def _is_cpl(entry: list | tuple) -> bool:
    """Whether four fields are (image, box, expression, weight)."""
    return len(entry) == 4 and isinstance(entry[2], str)


def _labels(document: Document, options: Options) -> Iterator[Label]:
    """Entries of 3 fields (Flickr30k), 4 (CPL) or 5 and more.

    Of five or more, the second is a mask file, a placeholder, the image's size or, in
    HiVG's and OneRef's mixed lists, the name of the data set.
    ``*_iou_result.pth`` has two boxes and the reliability after the expression, which
    are left to the curriculum; the weight of CPL is not used.
    """
    del options
    stem, split = document.path.stem, split_of(document.path.stem)
    for index, entry in document.rows():
        where = document.where(index)
        entry_of(entry, (list, tuple), where, 'a tuple or a list')
        made_by, image_set = 'human', ''
        if len(entry) == 3 or _is_cpl(entry):
            image, box, text = entry[:3]
        elif len(entry) >= 5:
            image, second, box, text = entry[:4]
            # Not `==`: arrays compare by element.
            if isinstance(second, str):
                made_by = 'pseudo' if second == PLACEHOLDER else 'human'
                image_set = second if second in XYXY_DATASETS else ''
            elif isinstance(second, dict):
                image_set = 'coco'
        else:
            raise ValueError(
                f'{where}: expected 3 fields (Flickr30k), 4 (CPL: image, box, '
                f'expression, weight) or 5 and more, found {len(entry)}: '
                f'{shown(entry)}.'
            )
        yield Label(
            index,
            image,
            targets_of(box),
            text,
            f'{stem}_{index}',
            split,
            made_by,
            image_set=image_set,
        )


def _boxes(document: Document) -> tuple[BoxKind, ...]:
    """The format that the names and the entries say; an error where they disagree."""
    path = document.path
    stated = _stated_kind(path)
    if stated:
        return stated
    named = named_box_format(path.name)
    widths: dict[bool, int] = {}  # of entries with three fields or more: the first
    mixed = None  # the first entry that names a data set
    for index, entry in document.rows():
        if isinstance(entry, list | tuple):
            widths.setdefault(len(entry) == 3, index)
            second = entry[1] if len(entry) >= 5 else None
            if mixed is None and isinstance(second, str) and second in XYXY_DATASETS:
                mixed = index
    if named == 'xyxy' and mixed is not None:
        raise ValueError(
            f'{path} is named as a list of boxes in xyxy, but entry {mixed} names its '
            'data set as the mixed lists of HiVG and OneRef do, whose boxes are xywh: '
            'say `box_format` (--box-format).'
        )
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
    if named != 'xyxy' and True not in widths:
        return PIXEL_XYWH
    _check_order(document)
    return PIXEL_XYXY


def _stated_kind(path: Path) -> tuple[BoxKind, ...] | None:
    """A format in the name of the file or its folder, as OneRef's ``box_xywh/``."""
    for name in (path.name, path.parent.name):
        words = set(re.findall('xyxy|xywh', name.lower()))
        if len(words) == 1:
            return PIXEL_XYXY if words == {'xyxy'} else PIXEL_XYWH
    return None


def _check_order(document: Document) -> None:
    """Refuse boxes that are taken for xyxy, but whose right lies left of their left."""
    boxes = []
    for _, entry in document.rows():
        if isinstance(entry, list | tuple) and len(entry) >= 3:
            box = entry[1] if len(entry) == 3 else entry[2]
            try:
                left, top, right, bottom = box
                boxes.append((float(left), float(top), float(right), float(bottom)))
            except (TypeError, ValueError, OverflowError):
                continue  # reported with its entry later
    corners = np.array(boxes).reshape(-1, 4)
    wrong = ~(corners[:, 2:] > corners[:, :2]).all(1)
    if len(corners) >= 3 and wrong.mean() > _SLIPS:
        first = corners[int(wrong.argmax())].tolist()
        raise ValueError(
            f'{document.path} looks like a list of boxes in xyxy by its name or its '
            f'fields, but in {int(wrong.sum()):,} of {len(corners):,} boxes the right '
            f'or lower side is not beyond the left or upper one, e.g. {first}: they '
            'look like xywh; say `box_format` (--box-format).'
        )


TRANSVG = Layout(
    'transvg',
    'TransVG, CLIP-VG, HiVG, OneRef and CPL lists (`unc_val.pth`)',
    _matches,
    _labels,
    _boxes,
    since='0.1',
    pitfalls=(
        'xywh; xyxy where the name says ReferIt or Flickr30k, or entries have three '
        'fields; refused where name, entries and numbers disagree'
    ),
)
