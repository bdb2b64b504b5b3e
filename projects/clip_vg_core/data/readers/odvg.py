"""ODVG JSON Lines, one expression per line: this project's own format."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...utils.atomic import replacing
from ..label_table import LabelTable
from .common import entry_of, image_size, required, targets_of
from .documents import Document
from .layout import PIXEL_XYXY, Label, Layout, Options, refuse

__all__ = ['ODVG', 'ODVG_DETECTION', 'odvg_line', 'write_odvg']

# A label's place is its line times this, and its region: more than any line has.
_REGIONS = 1 << 32


def _rows(document: Document) -> Iterator[tuple[int, Any]]:
    """Lines; of a file with one object, that one."""
    if document.kind == 'json' and isinstance(document.value, dict):
        return iter([(1, document.value)])
    return document.rows()


def _matches(document: Document) -> bool:
    if document.kind == 'json' and isinstance(document.value, dict):
        return {'filename', 'grounding'} <= document.value.keys()
    if document.kind == 'json lines' and not document.head:
        return True
    return 'grounding' in document.keys


def _labels(document: Document, options: Options) -> Iterator[Label]:
    """Lines of one region are an expression; of several, each phrase is one.

    A line without a region is an expression without a target. Labels are named by
    ``sample_id``, or ``<file>_<line>[_<region>]``.
    """
    del options
    stem = document.path.stem
    for number, entry in _rows(document):
        where = f'{document.path}, line {number}'
        grounding = entry_of(
            required(entry, 'grounding', where), dict, where, 'a dict "grounding"'
        )
        regions = entry_of(
            required(grounding, 'regions', where), list, where, 'a list "regions"'
        )
        name = str(entry.get('sample_id', f'{stem}_{number}'))
        image = required(entry, 'filename', where)
        split = str(entry.get('split', 'all'))
        made_by = str(entry.get('source', 'human'))
        size = image_size(entry)
        if len(regions) < 2:
            boxes = []
            if regions:
                entry_of(regions[0], dict, f'{where}, region 0', 'a dict')
                boxes = targets_of(required(regions[0], 'bbox', f'{where}, region 0'))
            text = required(grounding, 'caption', where)
            place = number * _REGIONS
            yield Label(place, image, boxes, text, name, split, made_by, size)
            continue
        for index, region in enumerate(regions):
            at = f'{where}, region {index}'
            boxes = targets_of(required(region, 'bbox', at))
            phrase = _phrase(required(region, 'phrase', at))
            place = number * _REGIONS + index + 1
            yield Label(
                place, image, boxes, phrase, f'{name}_{index}', split, made_by, size
            )


def _line_and_region(document: Document, _: Options) -> Callable[[int], str]:
    def describe(place: int) -> str:
        line, region = divmod(place, _REGIONS)
        suffix = f', region {region - 1}' if region else ''
        return f'{document.path}, line {line}{suffix}'

    return describe


def _phrase(phrase: Any) -> Any:
    """A phrase, which GoldG has as a list of its parts."""
    if isinstance(phrase, list) and all(isinstance(part, str) for part in phrase):
        return ' '.join(phrase)
    return phrase


ODVG = Layout(
    'odvg',
    'ODVG JSON Lines (MMDetection, this project; gRefCOCO and GoldG as well)',
    _matches,
    _labels,
    PIXEL_XYXY,
    since='0.1',
    pitfalls='a line without a region is an expression without a target',
    describe=_line_and_region,
    unique_names=True,
)
ODVG_DETECTION = Layout(
    'odvg_detection',
    'ODVG lines of detections (Objects365)',
    lambda document: 'detection' in document.keys,
    refuse(
        'ODVG lines with "detection" have classes and boxes, but no expressions; the '
        'nearest layout that is read is ODVG with "grounding" '
        '(tools/generate_pseudo_labels.py makes expressions of detections)'
    ),
    PIXEL_XYXY,
    refusal='no expressions',
)


def write_odvg(
    table: LabelTable,
    path: str | Path,
    overwrite: bool = False,
    extras: Sequence[Mapping[str, Any]] | None = None,
) -> None:
    """Write labels as ODVG JSON Lines; the whole file or nothing.

    Several targets of a label are a list of boxes in its region, as MMDetection has
    them; a label without a target has no region.

    Args:
        table (LabelTable): Labels of images whose size is known.
        path (str or Path): Output path.
        overwrite (bool): Whether an existing file may be replaced. Defaults to
            False.
        extras (Sequence[Mapping], optional): What the line of each label has besides.
            Defaults to None: nothing.

    Raises:
        FileExistsError: The file exists and may not be replaced.
        ValueError: An image's size is unknown; ODVG needs it.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f'{path} exists; remove it or allow overwriting.')
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        with partial.open('w', encoding='utf-8') as file:
            for index, label in enumerate(table):
                extra = {} if extras is None else extras[index]
                file.write(odvg_line(label, **extra))
        os.chmod(partial, 0o644)


def odvg_line(label: Mapping[str, Any], **extra: Any) -> str:
    """One label as a line of ODVG.

    Args:
        label (Mapping): ``image``, ``height``, ``width``, ``text``, ``bbox`` (xyxy in
            pixels) or a list ``bboxes``, ``sample_id``, ``split``, ``source``.
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
    boxes = label['bboxes'] if 'bboxes' in label else [label['bbox']]
    regions = []
    if boxes:
        box = boxes[0] if len(boxes) == 1 else boxes
        regions = [dict(bbox=box, phrase=text, tokens_positive=[[0, len(text)]])]
    line = dict(
        filename=label['image'],
        height=label['height'],
        width=label['width'],
        grounding=dict(caption=text, regions=regions),
        sample_id=label['sample_id'],
        split=label['split'],
        source=label['source'],
        **extra,
    )
    return json.dumps(line, ensure_ascii=False) + '\n'
