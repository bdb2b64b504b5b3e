"""Layouts whose rows are dicts with an image, expressions and boxes, each a few lines.

The registry is at the end; a layout is recognised by the keys of its rows.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from ..box_formats import BoxKind
from ..table_builder import shown
from .chat import CHAT, FLORENCE, MS_SWIFT, VLM
from .coco import COCO, MDETR, REFER, REFS_ALONE
from .common import entry_of, image_size, required, split_of, targets_of
from .documents import Document
from .labelling_tools import COCO_TEXTS, CVAT, LABEL_STUDIO, LABEL_STUDIO_MIN
from .layout import (
    PIXEL_XYWH,
    PIXEL_XYXY,
    UNSETTLED,
    Label,
    Layout,
    Options,
    labels_of_row,
    read_rows,
    refuse,
)
from .odvg import ODVG, ODVG_DETECTION
from .rows import ROWS
from .transvg import TRANSVG

__all__ = ['LAYOUTS', 'kinds_of', 'nearest_layout', 'without_ref_number']

_COCO_NAME = re.compile(r'(COCO_(?:train|val|test)\d{4}_\d{12})(?:_\d+)?(\.\w+)?')


def without_ref_number(name: Any) -> Any:
    """The image's name in ``COCO_train2014_000000581857_16.jpg``, a ref's name."""
    match = _COCO_NAME.fullmatch(name) if isinstance(name, str) else None
    return name if match is None else match[1] + (match[2] or '.jpg')


def _coco_2014(number: Any, where: str) -> str:
    """The file of an image of COCO 2014's training set, where REFER's images are."""
    if isinstance(number, str) and not number.isdigit():
        return number if Path(number).suffix else f'{number}.jpg'
    try:
        return f'COCO_train2014_{int(number):012d}.jpg'
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f'{where}: expected the number of an image, found {shown(number)}.'
        ) from None


def _image_of(document: Document, number: Any, where: str) -> str:
    """The file of a numbered image: COCO's, unless names say ReferIt or Flickr30k."""
    place = f'{document.path.parent.name}/{document.path.name}'.lower()
    if 'referit' in place or 'flickr' in place or 'refclef' in place:
        return str(number) if Path(str(number)).suffix else f'{number}.jpg'
    return _coco_2014(number, where)


# --- dicts of lists: a split has a list --------------------------------------------


def _of_splits(document: Document) -> Iterator[tuple[str, int, dict]]:
    """(split, index, entry) of a dict of lists of dicts."""
    for split, entries in document.value.items():
        at = f'{document.path}, {split}'
        for index, entry in enumerate(entry_of(entries, list, at, 'a list')):
            yield str(split), index, entry_of(entry, dict, f'{at} {index}', 'a dict')


def _split_keys(document: Document) -> set[str]:
    """Keys of the first entry in a dict of lists."""
    if document.kind != 'json' or not isinstance(document.value, dict):
        return set()
    for entries in document.value.values():
        if isinstance(entries, list) and entries and isinstance(entries[0], dict):
            return set(entries[0])
    return set()


def _split_labels(image: str, texts: str, number: str, sized: bool) -> Any:
    def read(document: Document, options: Options) -> Iterator[Label]:
        del options
        for place, (split, index, entry) in enumerate(_of_splits(document)):
            where = f'{document.path}, {split} {index}'
            yield from labels_of_row(
                place,
                entry,
                _image_of(document, required(entry, image, where), where),
                entry_of(required(entry, texts, where), list, where, f'a list {texts}'),
                targets_of(required(entry, 'bbox', where)),
                f'{split}_{entry.get(number, "")}',
                split=split,
                size=image_size(entry) if sized else None,
            )

    return read


# --- rows of Hugging Face's data sets ----------------------------------------------


def _jxu_image(row: dict, where: str) -> Any:
    """The image's name: ``file_name`` is a ref's, ``image_path`` has COCO's folders."""
    path = required(row, 'image_path', where)
    return entry_of(path, str, f'{where}, image_path', 'a text').rpartition('/')[2]


def _lmms_image(row: dict, where: str) -> Any:
    return without_ref_number(required(row, 'file_name', where))


def _minigpt_image(row: dict, where: str) -> Any:
    """``img_id`` is a ref's name without a suffix."""
    name = without_ref_number(required(row, 'img_id', where))
    if isinstance(name, str) and name and not Path(name).suffix:
        return f'{name}.jpg'
    return name


def _lmms_texts(row: dict, where: str) -> Any:
    return entry_of(
        required(row, 'answer', where), (list, str), where, 'answer: a list'
    )


def _refcoco_m_labels(document: Document, options: Options) -> Iterator[Label]:
    """An image a row; ``samples`` have sentences, a box, and a mask with a size."""
    del options
    stem, split = document.path.stem, split_of(document.path.stem)
    for number, row, where in document.records():
        for index, sample in enumerate(
            entry_of(
                required(row, 'samples', where), list, f'{where}, samples', 'a list'
            )
        ):
            at = f'{where}, sample {index}'
            size = None
            mask = entry_of(sample, dict, at, 'a dict').get('mask')
            if isinstance(mask, dict) and isinstance(mask.get('size'), list | tuple):
                size = image_size(
                    dict(zip(('height', 'width'), mask['size'], strict=False))
                )
            yield from labels_of_row(
                number,
                sample,
                without_ref_number(required(row, 'file_name', where)),
                entry_of(
                    required(sample, 'sentences', at), list, at, 'sentences: a list'
                ),
                targets_of(required(sample, 'bbox', at)),
                f'{stem}_{number}_{index}',
                split=split,
                size=size,
            )


def _imagefolder_labels(document: Document, options: Options) -> Iterator[Label]:
    """``objects`` as columns; equal expressions of an image are one label's targets."""
    keys = (
        *('text', 'texts', 'caption', 'captions', 'expression', 'expressions'),
        *('phrase', 'phrases', 'sentence', 'sentences', 'label', 'labels'),
    )
    stem, split = document.path.stem, split_of(document.path.stem)
    for number, row, where in document.records():
        objects = required(row, 'objects', where)
        if isinstance(objects, list):  # one dict each, in place of columns
            names = {name for one in objects if isinstance(one, dict) for name in one}
            objects = {
                name: [one.get(name) for one in objects if isinstance(one, dict)]
                for name in names
            }
        entry_of(objects, dict, f'{where}, objects', 'a dict')
        boxes = targets_of(required(objects, 'bbox', f'{where}, objects'))
        labels: dict[Any, list] = {}
        key = options.fields.get('text') or next(
            (k for k in keys if k in objects), None
        )
        if key is not None and key in objects:
            texts = entry_of(objects[key], list, f'{where}, {key}', 'a list')
            if len(texts) != len(boxes):
                raise ValueError(
                    f'{where}: {len(texts)} {key} and {len(boxes)} bbox in "objects"; '
                    'expected as many.'
                )
            for text, box in zip(texts, boxes, strict=True):
                entry_of(text, str, f'{where}, {key}', 'texts')
                labels.setdefault(text, []).append(box)
        else:
            key = key or next((k for k in keys if k in row), None)
            if key is None:
                raise ValueError(
                    f'{where}: no expression in "objects" or beside it; it has '
                    f'{shown(sorted(objects))}: say fields=dict(text=...).'
                )
            labels[required(row, key, where)] = boxes
        for index, (text, of_text) in enumerate(labels.items()):
            name = f'{stem}_{number}_{index}' if len(labels) > 1 else f'{stem}_{number}'
            image = required(row, 'file_name', where)
            yield Label(number, image, of_text, text, name, split, size=image_size(row))


# --- Visual Genome and Pascal VOC --------------------------------------------------


def _genome_labels(document: Document, options: Options) -> Iterator[Label]:
    """Regions of images; the image ``<image_id>.jpg`` is in VG_100K or VG_100K_2."""
    del options
    stem = document.path.stem
    for number, row, where in document.records():
        regions = entry_of(
            required(row, 'regions', where), list, f'{where}, regions', 'a list'
        )
        for index, region in enumerate(regions):
            at = f'{where}, region {index}'
            box = [required(region, key, at) for key in ('x', 'y', 'width', 'height')]
            image_id = region.get('image_id', row.get('id', row.get('image_id')))
            entry_of(image_id, (int, str), f'{at}, image_id', 'a number')
            name = region.get('region_id', region.get('id', f'{number}_{index}'))
            yield Label(
                number,
                f'{image_id}.jpg',
                [box],
                required(region, 'phrase', at),
                f'{stem}_{name}',
                'all',
            )


def _voc_labels(document: Document, options: Options) -> Iterator[Label]:
    """Objects with a ``description``, named by their number among all (DIOR-RSVG).

    A split file has those numbers, or names of files, one a line.
    """
    wanted, split = None, 'all'
    if options.split_file is not None:
        lines = options.split_file.read_text(encoding='utf-8', errors='replace').split()
        wanted, split = set(lines), split_of(options.split_file.stem)
    count = 0
    by_file: bool | None = None
    for place, (path, root) in document.rows():
        if wanted is not None and by_file is None:
            stems = {p.stem for p in path.parent.glob('*.xml')}
            by_file = bool(wanted) and wanted <= stems
        image = (root.findtext('filename') or '').strip()
        size = image_size(
            {key: _whole(root.find(f'size/{key}')) for key in ('height', 'width')}
        )
        for entry in root.findall('object'):
            name = path.stem if by_file else str(count)
            if wanted is None or name in wanted:
                text = entry.findtext('description')
                if text is None:
                    raise ValueError(
                        f'{path}, object {count}: no "description"; it has '
                        f'{shown([child.tag for child in entry])}. Pascal VOC without '
                        'expressions is an input of tools/generate_pseudo_labels.py.'
                    )
                box = [
                    _number(
                        entry.find(f'bndbox/{key}'), f'{path}, object {count}, {key}'
                    )
                    for key in ('xmin', 'ymin', 'xmax', 'ymax')
                ]
                yield Label(
                    place, image, [box], text.strip(), f'{path.stem}_{count}', split,
                    size=size,
                )  # fmt: skip
            count += 1


def _number(element: Element | None, where: str) -> float:
    text = '' if element is None else element.text or ''
    try:
        return float(text)
    except ValueError:
        raise ValueError(f'{where}: expected a number, found {shown(text)}.') from None


def _whole(element: Element | None) -> int | None:
    text = '' if element is None else (element.text or '').strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _is_voc(document: Document) -> bool:
    return document.kind == 'xml'


def _voc_place(document: Document, options: Options) -> Any:
    del options
    files = [document.path]
    if document.path.is_dir():
        files = sorted(document.path.glob('*.xml'))
    return lambda place: str(files[place])


def _has(*keys: str) -> Any:
    """Whether all of the first rows have these keys."""
    return lambda document: document.keys.issuperset(keys)


# In this order: what has more of its own comes first, plain rows last.
_ALL = (
    REFER,
    MDETR,
    COCO_TEXTS,
    COCO,
    TRANSVG,
    ODVG,
    ODVG_DETECTION,
    LABEL_STUDIO,
    LABEL_STUDIO_MIN,
    MS_SWIFT,
    CHAT,
    VLM,
    FLORENCE,
    Layout(
        'seqtr',
        'SeqTR, SimVG and InstanceVG `instances.json`',
        lambda document: _split_keys(document) >= {'expressions', 'bbox', 'image_id'},
        _split_labels('image_id', 'expressions', 'refid', sized=True),
        PIXEL_XYWH,
        pitfalls='names of images are made of COCO numbers',
    ),
    Layout(
        'simrec',
        'SimREC, RefCLIP, QueryMatch and WeakMCN `refcoco.json`',
        lambda document: _split_keys(document) >= {'iid', 'refs', 'bbox'},
        _split_labels('iid', 'refs', 'mask_id', sized=False),
        PIXEL_XYXY,
        pitfalls='names of images are made of COCO numbers',
    ),
    Layout(
        'jxu124',
        'jxu124/refcoco, refcocoplus, refcocog (Hugging Face)',
        _has('sentences', 'image_path', 'bbox', 'raw_anns'),
        read_rows(_jxu_image, 'sentences', 'bbox', texts_in='sent'),
        PIXEL_XYXY,
        pitfalls='xyxy, unlike the annotations inside; images are not in it',
    ),
    Layout(
        'refcoco_m',
        'RefCOCO-M (Hugging Face)',
        _has('file_name', 'samples'),
        _refcoco_m_labels,
        UNSETTLED,
        pitfalls='xywh or xyxy is told by the numbers',
    ),
    Layout(
        'lmms_lab',
        'lmms-lab/RefCOCO, RefCOCOplus, RefCOCOg (Hugging Face)',
        _has('question', 'answer', 'bbox', 'file_name'),
        read_rows(_lmms_image, _lmms_texts, 'bbox'),
        PIXEL_XYWH,
        pitfalls='has no training split: training on it is refused',
        training_split=False,
    ),
    Layout(
        'ref_l4',
        'Ref-L4 (Hugging Face)',
        _has('caption', 'bbox', 'bbox_id', 'file_name'),
        read_rows('file_name', 'caption', 'bbox'),
        PIXEL_XYWH,
        training_split=False,
        pitfalls='has val and test alone: training on it is refused',
    ),
    Layout(
        'humanref',
        'HumanRef JSON Lines',
        _has('image_name', 'answer_boxes', 'referring'),
        read_rows('image_name', 'referring', 'answer_boxes'),
        UNSETTLED,
        pitfalls='xyxy or xywh is told by the numbers; several targets or none',
    ),
    Layout(
        'qwen_vl',
        'Qwen-VL, InternVL and EGM evaluation JSON Lines: image, `sent`, bbox',
        _has('image', 'sent', 'bbox'),
        read_rows('image', 'sent', 'bbox'),
        PIXEL_XYXY,
    ),
    Layout(
        'shikra',
        'Shikra REC JSON Lines: `img_path`, expression, bbox',
        _has('img_path', 'expression', 'bbox'),
        read_rows('img_path', 'expression', 'bbox', 'dataset_name'),
        PIXEL_XYXY,
    ),
    Layout(
        'minigpt',
        'MiniGPT-v2 evaluation: `img_id`, sents, bbox',
        _has('img_id', 'sents', 'bbox'),
        read_rows(_minigpt_image, 'sents', 'bbox'),
        PIXEL_XYWH,
        pitfalls='`img_id` is the name of a ref; the image is without its last number',
    ),
    Layout(
        'visual_genome',
        'Visual Genome `region_descriptions.json`',
        _has('regions'),
        _genome_labels,
        PIXEL_XYWH,
        pitfalls='two folders of images: `data_prefix=dict(img=[...])`',
    ),
    Layout(
        'imagefolder',
        'Hugging Face imagefolder `metadata.jsonl`: `file_name`, objects',
        _has('file_name', 'objects'),
        _imagefolder_labels,
        PIXEL_XYWH,
        pitfalls='xywh as in their documentation',
        takes_fields=True,
    ),
    CVAT,
    Layout(
        'voc',
        'Pascal VOC XML with `description` (DIOR-RSVG): a file or a folder',
        _is_voc,
        _voc_labels,
        PIXEL_XYXY,
        pitfalls='the split file has numbers of objects over all files, in their order',
        describe=_voc_place,
    ),
    Layout(
        'openref',
        'OpenRef json',
        _has('proposal', 'relation_type'),
        refuse(
            'OpenRef has proposals whose schema is not known here; the nearest layout '
            'that is read is rows with image, text and bbox (docs/data.md)'
        ),
        PIXEL_XYWH,
        refusal='its proposals are not described',
    ),
    REFS_ALONE,
    ROWS,
)
LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in _ALL}


def nearest_layout(document: Document) -> str:
    """The layout whose keys a file has most of, for an error.

    Returns:
        str: Its title and the keys that are missing.
    """
    keys = set(document.keys) or _split_keys(document)
    if isinstance(document.value, dict):
        keys |= set(map(str, document.value))
    wanted = {
        'ODVG': {'filename', 'grounding'},
        'MDETR': {'images', 'annotations'},
        'VLM-R1': {'image', 'solution', 'normal_caption'},
        'Shikra': {'img_path', 'expression', 'bbox'},
        'Qwen-VL evaluation': {'image', 'sent', 'bbox'},
        'MiniGPT-v2': {'img_id', 'sents', 'bbox'},
        'lmms-lab/RefCOCO': {'question', 'answer', 'bbox', 'file_name'},
        'SeqTR': {'expressions', 'bbox', 'image_id'},
        'conversations': {'image', 'conversations'},
        'rows': {'image', 'text', 'bbox'},
    }
    best = max(wanted, key=lambda name: len(wanted[name] & keys) / len(wanted[name]))
    missing = sorted(wanted[best] - keys)
    return f'{best}, which has {", ".join(missing)} as well'


def kinds_of(layout: Layout, document: Document) -> tuple[BoxKind, ...]:
    """Format and unit that the boxes of a document may have."""
    return layout.boxes(document) if callable(layout.boxes) else layout.boxes
