"""REFER: ``instances.json`` with boxes, ``refs(<split_by>).p`` with expressions."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...utils.safe_pickle import load_pickle
from ..label_table import LabelTable
from ..table_builder import TableBuilder
from .common import by_id, check_splits, entry_of, image_size, read_json, required

__all__ = ['read_refer']


def read_refer(
    ann_file: Path,
    *,
    split_file: Path | None,
    splits: Sequence[str] | None = None,
    source: str | None = None,
    int_boxes: bool = False,
    box_format: str | None = None,
) -> LabelTable:
    """Read RefCOCO, RefCOCO+, RefCOCOg or RefCLEF as REFER ships them.

    Args:
        ann_file (Path): ``instances.json`` (COCO; boxes xywh).
        split_file (Path): ``refs(<split_by>).p``, a pickle of Python 2.
        splits (Sequence[str], optional): Splits to keep. Defaults to None: all.
        source (str, optional): Defaults to None: 'human'.
        int_boxes (bool): Whether x, y, w, h lose their fraction, as in the
            release. Defaults to False.
        box_format (str, optional): 'xywh' or 'xyxy'. Defaults to None: 'xywh'.

    Returns:
        LabelTable: One label per sentence, named ``<ref_id>_<sent_id>``. Those of refs
        with no annotation or several (gRefCOCO) are left out and counted in its
        ``notes``.

    Raises:
        ValueError: A file or an entry is not as REFER writes it, a ref names an
            annotation or image that does not exist, an id comes twice with different
            content, or a split is unknown.
    """
    if split_file is None:
        raise ValueError(f'{ann_file}: REFER needs `split_file`, the refs(...).p file.')
    instances = entry_of(read_json(ann_file), dict, str(ann_file), 'a COCO dict')
    annotations = _by_id(instances, 'annotations', ann_file)
    images = _by_id(instances, 'images', ann_file)
    is_json = split_file.suffix == '.json'
    content = read_json(split_file) if is_json else load_pickle(split_file)
    refs = entry_of(content, list, str(split_file), 'a list of refs')
    _check_refs(refs, splits, split_file)
    read: set[Any] = set()

    builder = TableBuilder(lambda where: f'{split_file}, expression {where}')
    for index, ref in enumerate(refs):
        if splits is not None and ref['split'] not in splits:
            continue
        where = f'{split_file}, ref {index} (ref_id {ref.get("ref_id")})'
        if 'ref_id' in ref and ref['ref_id'] in read:  # the same once more
            continue
        read.add(ref.get('ref_id'))
        sentences = entry_of(
            required(ref, 'sentences', where), list, f'{where}, sentences', 'a list'
        )
        targets = _targets(ref, where)
        if len(targets) != 1:
            for number in range(len(sentences)):
                builder.leave_out(len(targets), f'{where}, sentence {number}')
            continue
        annotation = _joined(annotations, 'ann_id', targets[0], where, ann_file)
        image_id = required(ref, 'image_id', where)
        image = _joined(images, 'image_id', image_id, where, ann_file)
        file_name = required(image, 'file_name', f'{ann_file}, image {image["id"]}')
        box = required(annotation, 'bbox', f'{ann_file}, annotation {annotation["id"]}')
        size = image_size(image)
        for sentence in by_id(sentences, f'{where}, sentence', 'sent_id').values():
            builder.add(
                file_name,
                box,
                required(sentence, 'sent', where),
                f'{ref.get("ref_id", index)}_{required(sentence, "sent_id", where)}',
                ref['split'],
                source or 'human',
                size,
            )
    return builder.build(box_format or 'xywh', int_boxes)


def _by_id(instances: dict, key: str, path: Path) -> dict[Any, dict]:
    entries = entry_of(
        required(instances, key, str(path)), list, f'{path}, {key}', 'a list'
    )
    return by_id(entries, f'{path}, {key}')


def _targets(ref: dict, where: str) -> list:
    """The ids of a ref's annotations: one, or as gRefCOCO has them, none or several."""
    found = required(ref, 'ann_id', where)
    if ref.get('no_target'):
        return []
    found = found if isinstance(found, list | tuple) else [found]
    return [number for number in found if number != -1]


def _check_refs(refs: list, splits: Sequence[str] | None, path: Path) -> None:
    for index, ref in enumerate(refs):
        where = f'{path}, ref {index}'
        required(entry_of(ref, dict, where, 'a dict'), 'split', where)
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
        raise ValueError(f'{where}: {key} {number!r} is no number or text.')
    entry = entries.get(number)
    if entry is None:
        raise ValueError(
            f'{where}: {key} {number!r} is not in {path} ({len(entries):,} entries). '
            'The two files are of different data sets or versions.'
        )
    return entry
