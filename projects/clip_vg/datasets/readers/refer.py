"""REFER: ``instances.json`` with boxes, ``refs(<split_by>).p`` with expressions."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...safe_pickle import load_pickle
from ..label_table import LabelTable
from ..table_builder import TableBuilder
from .common import check_splits, entry_of, image_size, read_json, required

__all__ = ['read_refer']


def read_refer(
    ann_file: Path,
    *,
    split_file: Path | None,
    splits: Sequence[str] | None = None,
    source: str | None = None,
    int_boxes: bool = False,
) -> LabelTable:
    """Read RefCOCO, RefCOCO+, RefCOCOg or RefCLEF as REFER ships them.

    Args:
        ann_file (Path): ``instances.json`` (COCO; boxes xywh).
        split_file (Path): ``refs(<split_by>).p``, a pickle of Python 2.
        splits (Sequence[str], optional): Splits to keep. Defaults to None: all.
        source (str, optional): Defaults to None: 'human'.
        int_boxes (bool): Whether x, y, w, h lose their fraction, as in the
            release. Defaults to False.

    Returns:
        LabelTable: One label per sentence, named ``<ref_id>_<sent_id>``.

    Raises:
        ValueError: A file or an entry is not as REFER writes it, a ref names an
            annotation or image that does not exist, or a split is unknown.
    """
    if split_file is None:
        raise ValueError(f'{ann_file}: REFER needs `split_file`, the refs(...).p file.')
    instances = entry_of(read_json(ann_file), dict, str(ann_file), 'a COCO dict')
    annotations = _by_id(instances, 'annotations', ann_file)
    images = _by_id(instances, 'images', ann_file)
    refs = entry_of(load_pickle(split_file), list, str(split_file), 'a list of refs')
    _check_refs(refs, splits, split_file)

    builder = TableBuilder(lambda where: f'{split_file}, expression {where}')
    for index, ref in enumerate(refs):
        if splits is not None and ref['split'] not in splits:
            continue
        where = f'{split_file}, ref {index} (ref_id {ref.get("ref_id")})'
        annotation = _joined(annotations, ref, 'ann_id', where, ann_file)
        image = _joined(images, ref, 'image_id', where, ann_file)
        file_name = required(image, 'file_name', f'{ann_file}, image {image["id"]}')
        box = required(annotation, 'bbox', f'{ann_file}, annotation {annotation["id"]}')
        size = image_size(image)
        for sentence in required(ref, 'sentences', where):
            builder.add(
                file_name,
                box,
                required(sentence, 'sent', where),
                f'{ref.get("ref_id", index)}_{required(sentence, "sent_id", where)}',
                ref['split'],
                source or 'human',
                size,
            )
    return builder.build('xywh', int_boxes)


def _by_id(instances: dict, key: str, path: Path) -> dict[Any, dict]:
    entries = entry_of(
        required(instances, key, str(path)), list, f'{path}, {key}', 'a list'
    )
    try:
        return {entry['id']: entry for entry in entries}
    except (KeyError, TypeError):
        raise ValueError(f'{path}: an entry of {key!r} has no id.') from None


def _check_refs(refs: list, splits: Sequence[str] | None, path: Path) -> None:
    for index, ref in enumerate(refs):
        where = f'{path}, ref {index}'
        required(entry_of(ref, dict, where, 'a dict'), 'split', where)
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
    entries: dict[Any, dict], ref: dict, key: str, where: str, path: Path
) -> dict:
    entry = entries.get(required(ref, key, where))
    if entry is None:
        raise ValueError(
            f'{where}: {key} {ref[key]!r} is not in {path} ({len(entries):,} entries). '
            'The two files are of different data sets or versions.'
        )
    return entry
