"""Reading detections, captions and scene graphs, entry by entry."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ijson

from ...datasets.readers.common import entry_of, required
from ...pseudo_labels.attributes import best_attribute
from ...pseudo_labels.detection import Box, Detection, Triplet
from ...pseudo_labels.vocabulary import is_english

__all__ = [
    'class_name',
    'make_detection',
    'read_captions',
    'read_categories',
    'read_coco_detections',
    'read_images',
    'read_names',
    'read_triplets',
    'unit_score',
]


def _items(path: Path, key: str | None) -> Iterator[tuple[str, Any]]:
    """The entries of a list in a JSON file, one at a time, and where each is.

    Args:
        path (Path): The file.
        key (str, optional): Of the list in the file's object; where the file is a list
            itself, that one is read. None: the file must be a list.
    """
    with path.open('rb') as file:
        first = file.read(64).lstrip(b'\xef\xbb\xbf \t\r\n')[:1]
        file.seek(0)
        if first == b'[':
            prefix, what = 'item', 'entry'
        elif first == b'{' and key is not None:
            prefix, what = f'{key}.item', key
        else:
            raise ValueError(f'{path}: expected a JSON list, found {first.decode()!r}.')
        try:
            for number, item in enumerate(ijson.items(file, prefix, use_float=True), 1):
                yield (
                    f'{path}, {what} {number}',
                    entry_of(item, dict, f'{path}, {what} {number}', 'a JSON object'),
                )
        except ijson.JSONError as error:
            raise ValueError(
                f'{path} ({path.stat().st_size:,} bytes) is not valid JSON: {error}. '
                'It may be truncated: fetch or write it again.'
            ) from error


def class_name(name: Any, where: str) -> str:
    """A class's name as it is said: lower case, no underscores, no explanations.

    Raises:
        ValueError: It is no English text.
    """
    said = entry_of(name, str, where, 'a name').replace('_', ' ')
    # LVIS explains some of its names: "sandal (type of shoe)".
    said = ' '.join(re.sub(r'\([^)]*\)', ' ', said).split())
    if not is_english(said):
        raise ValueError(
            f'{where}: the name {name!r} is not English, and the labels would not be: '
            'translate it in the file.'
        )
    return said.lower()


def unit_score(value: Any, where: str, what: str = 'score') -> float:
    """A score in [0, 1], or an error that says which entry has another."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f'{where}: {what} is {value!r}; expected a number in [0, 1].')
    if not 0 <= value <= 1:  # also what is not a number
        raise ValueError(
            f'{where}: {what} is {value}; expected a number in [0, 1]. Logits or '
            'percents must be turned into probabilities first.'
        )
    return float(value)


def _box(value: Any, where: str) -> tuple[float, ...]:
    if (
        not isinstance(value, (list, tuple))
        or len(value) != 4
        or not all(
            isinstance(edge, (int, float)) and math.isfinite(edge) for edge in value
        )
    ):
        raise ValueError(f'{where}: bbox is {value!r}; expected four finite numbers.')
    return tuple(map(float, value))


def _xywh(value: Any, where: str) -> Box:
    left, top, width, height = _box(value, where)
    return left, top, left + width, top + height


def make_detection(
    name: str, box: Any, score: Any, entry: Mapping[str, Any], where: str
) -> Detection:
    """A detection of checked numbers.

    Args:
        name (str): Its class.
        box (Any): xyxy in pixels.
        score (Any): Its confidence.
        entry (Mapping): What may hold ``attributes`` (name -> score), or
            ``attribute`` and ``attribute_score`` (1 if it is not there).
        where (str): For errors.

    Returns:
        Detection: With its most likely attribute.
    """
    attribute, sure = None, 0.0
    if entry.get('attributes') is not None:
        scores = entry_of(
            entry['attributes'], dict, where, 'attributes as {name: score}'
        )
        attribute, sure = best_attribute(
            {k: unit_score(v, where, f'attribute {k!r}') for k, v in scores.items()}
        )
    elif entry.get('attribute') is not None:
        attribute = entry['attribute']
        sure = unit_score(entry.get('attribute_score', 1.0), where, 'attribute_score')
    if attribute is not None:
        attribute = class_name(attribute, where)
    corners = _box(box, where)
    return Detection(
        name,
        (corners[0], corners[1], corners[2], corners[3]),
        unit_score(score, where),
        attribute,
        sure,
    )


def read_images(path: Path) -> Iterator[tuple[Any, str, int | None, int | None]]:
    """The images of a COCO file: id, file name, width and height, if it says."""
    for where, entry in _items(path, 'images'):
        sizes = [entry.get(side) for side in ('width', 'height')]
        for size in sizes:
            if size is not None and (not isinstance(size, int) or size < 1):
                raise ValueError(f'{where}: the size {sizes} is not in whole pixels.')
        yield (
            entry_of(required(entry, 'id', where), (int, str), where, 'an id'),
            entry_of(required(entry, 'file_name', where), str, where, 'a file_name'),
            sizes[0],
            sizes[1],
        )


def read_categories(path: Path) -> dict[int, str]:
    """The categories of a COCO file: id -> name.

    Raises:
        ValueError: There is none, or a name is not English.
    """
    found = {
        required(entry, 'id', where): class_name(required(entry, 'name', where), where)
        for where, entry in _items(path, 'categories')
    }
    if not found:
        raise ValueError(
            f'{path} has no "categories": the numbers of the classes mean nothing '
            'without. Give a COCO instances file by --instances.'
        )
    return found


def read_coco_detections(
    path: Path, categories: Mapping[int, str]
) -> Iterator[tuple[Any, Detection]]:
    """Detections of a COCO result file, or the annotations of an instances file.

    Args:
        path (Path): A list of ``image_id``, ``bbox`` (xywh), ``category_id``,
            ``score``; or an object that has it as ``annotations``, where the score may
            be missing and is 1, and crowds are left out.
        categories (Mapping[int, str]): id -> name.

    Yields:
        tuple: Image id and detection.

    Raises:
        ValueError: An entry is damaged or of an unknown category; it says which.
    """
    for where, entry in _items(path, 'annotations'):
        if entry.get('iscrowd'):
            continue
        category = required(entry, 'category_id', where)
        if category not in categories:
            raise ValueError(
                f'{where}: category_id {category!r} is not among the categories '
                f'{sorted(categories)[:10]}...: give the instances file of the '
                'detector that made the detections.'
            )
        score = entry.get('score', 1.0)
        if ', entry ' in where:
            score = required(entry, 'score', where)
        box = _xywh(required(entry, 'bbox', where), where)
        yield (
            required(entry, 'image_id', where),
            make_detection(categories[category], box, score, entry, where),
        )


def read_captions(path: Path) -> Iterator[tuple[Any, str]]:
    """Captions of a COCO caption-result file: image id and text."""
    for where, entry in _items(path, 'annotations'):
        text = entry_of(required(entry, 'caption', where), str, where, 'a caption')
        yield required(entry, 'image_id', where), text


def read_triplets(
    path: Path, categories: Mapping[int, str] | None = None
) -> Iterator[tuple[Any, Triplet]]:
    """Scene graphs: a JSON list with one entry for each edge.

    Args:
        path (Path): Entries ``{"image_id", "subject": {"name" or "category_id",
            "bbox" (xywh), "score"}, "predicate", "score", "object": {...}}``; scores
            that are missing are 1.
        categories (Mapping[int, str], optional): id -> name. Defaults to None.

    Yields:
        tuple: Image id and triplet.

    Raises:
        ValueError: An entry is damaged; it says which.
    """

    def end(entry: dict, key: str, where: str) -> Detection:
        where = f'{where}, {key}'
        value = entry_of(required(entry, key, where), dict, where, 'a JSON object')
        name = value.get('name')
        if name is None:
            number = required(value, 'category_id', where)
            if number not in (categories or {}):
                raise ValueError(
                    f'{where}: category_id {number!r} is unknown; write its "name".'
                )
            name = (categories or {})[number]
        box = _xywh(required(value, 'bbox', where), where)
        score = value.get('score', 1.0)
        return make_detection(class_name(name, where), box, score, {}, where)

    for where, entry in _items(path, 'triplets'):
        yield (
            required(entry, 'image_id', where),
            Triplet(
                end(entry, 'subject', where),
                class_name(required(entry, 'predicate', where), where),
                end(entry, 'object', where),
                unit_score(entry.get('score', 1.0), where),
            ),
        )


def read_names(path: Path) -> list[str]:
    """Class names: a JSON list, or one a line."""
    text = path.read_text(encoding='utf-8')
    names = json.loads(text) if text.lstrip().startswith('[') else text.splitlines()
    return [class_name(n, f'{path}, name {i}') for i, n in enumerate(names, 1) if n]
