"""COCO-like files: REFER with its refs, and MDETR with a caption at each image."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..table_builder import shown
from .common import by_id, check_splits, entry_of, image_size, required, split_of
from .documents import Document, open_document
from .layout import PIXEL_XYWH, Label, Layout, Options, refuse

__all__ = ['COCO', 'MDETR', 'REFER', 'REFS_ALONE']

# MDETR's names of data sets of captions whose phrases have boxes.
_PHRASE_SETS = ('flickr', 'mixed')


def _is_coco(document: Document) -> bool:
    """Whether a document is a dict with COCO's lists."""
    return isinstance(document.value, dict) and bool(
        {'images', 'annotations'} & document.value.keys()
    )


def _captioned(document: Document) -> bool:
    images = document.value.get('images')
    if not isinstance(images, list) or not images:
        return True  # the reader says what is wrong
    return any(not isinstance(i, dict) or 'caption' in i for i in images[:50])


def _content(document: Document) -> dict:
    """The dict of a COCO file."""
    path = document.path
    if document.kind == 'json lines':
        raise ValueError(
            f'{path} is JSON Lines (a value on each line), but one dict with "images" '
            'and "annotations" is expected.'
        )
    return entry_of(document.value, dict, str(path), 'a COCO dict')


# --- REFER -------------------------------------------------------------------------


def _lists(document: Document, key: str) -> dict[Any, dict]:
    path = document.path
    entries = entry_of(
        required(_content(document), key, str(path)), list, f'{path}, {key}', 'a list'
    )
    return by_id(entries, f'{path}, {key}')


def _refer_labels(document: Document, options: Options) -> Iterator[Label]:
    """One label for each sentence of a ref, named ``<ref_id>_<sent_id>``."""
    path, split_file = document.path, options.split_file
    if split_file is None:
        raise ValueError(f'{path}: REFER needs `split_file`, the refs(...).p file.')
    annotations, images = (_lists(document, key) for key in ('annotations', 'images'))
    content = open_document(split_file).value
    refs = entry_of(content, list, str(split_file), 'a list of refs')
    document.companion = refs
    _check_refs(refs, options.splits, split_file)
    ids_read: set[Any] = set()
    for index, ref in enumerate(refs):
        if options.splits is not None and ref['split'] not in options.splits:
            continue
        where = f'{split_file}, ref {index} (ref_id {str(ref.get("ref_id"))[:40]})'
        if 'ref_id' in ref and ref['ref_id'] in ids_read:  # the same once more
            continue
        ids_read.add(ref.get('ref_id'))
        sentences = entry_of(
            required(ref, 'sentences', where), list, f'{where}, sentences', 'a list'
        )
        boxes = []
        for number in _targets(ref, where):
            annotation = _joined(annotations, 'ann_id', number, where, path)
            at = f'{path}, annotation {annotation["id"]}'
            boxes.append(required(annotation, 'bbox', at))
        image_id = required(ref, 'image_id', where)
        image = _joined(images, 'image_id', image_id, where, path)
        file_name = required(image, 'file_name', f'{path}, image {image["id"]}')
        size = image_size(image)
        for sentence in by_id(sentences, f'{where}, sentence', 'sent_id').values():
            yield Label(
                index,
                file_name,
                boxes,
                required(sentence, 'sent', where),
                f'{ref.get("ref_id", index)}_{required(sentence, "sent_id", where)}',
                ref['split'],
                size=size,
            )


def _targets(ref: dict, where: str) -> list:
    """The ids of a ref's annotations: one, or as gRefCOCO has them, none or several."""
    ids = required(ref, 'ann_id', where)
    if ref.get('no_target'):
        return []
    ids = ids if isinstance(ids, list | tuple) else [ids]
    return [number for number in ids if number != -1]


def _check_refs(refs: list, splits: Sequence[str] | None, path: Path) -> None:
    for index, ref in enumerate(refs):
        where = f'{path}, ref {index}'
        split = required(entry_of(ref, dict, where, 'a dict'), 'split', where)
        entry_of(split, str, f'{where}, split', 'a text')
    by_id((ref for ref in refs if 'ref_id' in ref), f'{path}, ref', 'ref_id')
    if refs or splits:
        present = {ref['split'] for ref in refs}
        try:
            check_splits(splits, present, path)
        except ValueError as error:
            others = sorted(
                re.sub(r'^refs\((.*)\)\.p$', r'\1', other.name)
                for other in path.parent.glob('refs(*).p')
            )
            raise ValueError(f'{error} Here `split_by` can be: {others}.') from None


def _joined(
    entries: dict[Any, dict], key: str, number: Any, where: str, path: Path
) -> dict:
    if isinstance(number, list | dict | set):
        raise ValueError(f'{where}: {key} {shown(number)} is no number or text.')
    entry = entries.get(number)
    if entry is None:
        raise ValueError(
            f'{where}: {key} {shown(number)} is not in {path} ({len(entries):,} '
            'entries). The two files are of different data sets or versions.'
        )
    return entry


def _ref(document: Document, options: Options) -> Callable[[int], str]:
    def describe(place: int) -> str:
        name = str(document.companion[place].get('ref_id'))[:40]
        return f'{options.split_file}, ref {place} (ref_id {name})'

    return describe


def _is_refs(document: Document) -> bool:
    return {'sentences', 'ann_id', 'split'} <= document.keys


REFER = Layout(
    'refer',
    'REFER: `instances.json` with `refs(unc).p` or .json (RefCOCO, +, g, RefCLEF, '
    'RRSIS-D; gRefCOCO: `grefs(unc).json`)',
    lambda _: False,  # chosen by the split_file
    _refer_labels,
    PIXEL_XYWH,
    since='0.1',
    pitfalls='give the refs as `split_file`; several targets or none in gRefCOCO',
    describe=_ref,
)
REFS_ALONE = Layout(
    'refs_alone',
    "REFER's refs without boxes",
    lambda document: _is_refs(document) and 'raw_anns' not in document.keys,
    refuse(
        "these are REFER's refs, which have expressions without boxes: give "
        '`ann_file="instances.json"` and this file as `split_file`'
    ),
    PIXEL_XYWH,
    refusal='the boxes are in instances.json',
)


# --- MDETR -------------------------------------------------------------------------


def _mdetr_labels(document: Document, options: Options) -> Iterator[Label]:
    """One expression an image entry, named ``<file>_<image id>``.

    The boxes of captions whose phrases have boxes (``final_flickr_separateGT_*``) are
    split by their tokens: ``<file>_<image id>_<phrase>``.
    """
    del options
    path = document.path
    content = _content(document)
    images, annotations = (
        entry_of(required(content, key, str(path)), list, f'{path}, {key}', 'a list')
        for key in ('images', 'annotations')
    )
    by_image: dict[Any, list] = {}
    for index, annotation in enumerate(annotations):
        where = f'{path}, annotation {index}'
        image_id = required(annotation, 'image_id', where)
        entry_of(image_id, (int, float, str), f'{where}, image_id', 'a number or text')
        box = required(annotation, 'bbox', where)
        of_image = by_image.setdefault(image_id, [])
        # gRefCOCO's and RefDrone's way to say that there is none.
        if not (annotation.get('empty') or annotation.get('category_id') == -1):
            of_image.append((box, annotation.get('tokens_positive')))
    stem, split = path.stem, split_of(path.stem)
    entries = by_id(images, f'{path}, image entry')
    for place, (image_id, image) in enumerate(entries.items()):
        where = f'{path}, image entry {str(image_id)[:40]}'
        caption = required(image, 'caption', where)
        phrases = _phrases(by_image.get(image_id, []), image, caption, where)
        for number, (text, boxes) in enumerate(phrases):
            suffix = f'_{number}' if len(phrases) > 1 else ''
            yield Label(
                place,
                required(image, 'file_name', where),
                boxes,
                text,
                f'{stem}_{image_id}{suffix}',
                split,
                size=image_size(image),
                image_set=str(image.get('dataset_name') or ''),
            )


def _phrases(
    annotations: list[tuple[Any, Any]], image: dict, caption: Any, where: str
) -> list[tuple[Any, list]]:
    """Expressions of an image entry with their boxes."""
    whole = [(caption, [box for box, _ in annotations])]
    spans: dict[str, list] = {}
    for box, tokens in annotations:
        spans.setdefault(repr(tokens), [tokens]).append(box)
    # Elsewhere (gRefCOCO, RefDrone) all boxes of an entry are targets of its caption.
    name = str(image.get('dataset_name') or '').lower()
    grounds_phrases = name.startswith(_PHRASE_SETS) or 'tokens_positive_eval' in image
    if len(spans) < 2 or not grounds_phrases:
        return whole
    return [
        (_words(caption, tokens, where), boxes) for tokens, *boxes in spans.values()
    ]


def _words(caption: Any, tokens: Any, where: str) -> str:
    """The words of a caption at ``[[begin, end], ...]``."""
    try:
        parts = [caption[begin:end] for begin, end in tokens]
        return ' '.join(parts)
    except (TypeError, ValueError):
        raise ValueError(
            f'{where}: tokens_positive must be pairs of places in the caption, found '
            f'{shown(tokens)}.'
        ) from None


def _mdetr_entry(document: Document, _: Options) -> Callable[[int], str]:
    """Names an image entry by its id, of which there may be twice the same."""
    ids: list = []

    def describe(place: int) -> str:
        if not ids:
            ids.extend(dict.fromkeys(image['id'] for image in document.value['images']))
        return f'{document.path}, image entry {shown(ids[place])}'

    return describe


MDETR = Layout(
    'mdetr',
    'MDETR json (`finetune_refcoco_val.json`, `final_flickr_separateGT_*`, gRefCOCO, '
    'RefDrone, FineCops-Ref, Ref-L4 reviewed)',
    lambda document: _is_coco(document) and _captioned(document),
    _mdetr_labels,
    PIXEL_XYWH,
    since='0.1',
    pitfalls=(
        'several annotations of an entry are several targets, in Flickr30k and GoldG '
        'several phrases; `empty` or category -1 is no target'
    ),
    describe=_mdetr_entry,
)
COCO = Layout(
    'coco',
    'COCO detection json',
    _is_coco,
    refuse(
        'COCO boxes without expressions: no image has a "caption". Of REFER data sets, '
        'give `split_file` too, e.g. "refcoco/refs(unc).p"; for pseudo-labels, this is '
        'an input of tools/generate_pseudo_labels.py'
    ),
    PIXEL_XYWH,
    refusal='no expressions',
)
