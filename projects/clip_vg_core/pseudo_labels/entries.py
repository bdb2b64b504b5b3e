"""Reading detections, captions and scene graphs, entry by entry."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..data.readers.common import entry_of, required
from ..utils.file_names import leads_out
from ..utils.json_stream import is_object, read_entries
from .attributes import best_attribute
from .detection import Box, Detection, Triplet
from .vocabulary import is_english

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


def _number(value: Any, where: str, what: str) -> int:
    """A whole number, as ids of categories are."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f'{where}: {what} is {value!r}; expected a whole number.')


def _image_id(entry: dict, where: str) -> int | str:
    value = required(entry, 'image_id', where)
    if isinstance(value, (int, str)) and not isinstance(value, bool):
        return value
    raise ValueError(
        f'{where}: image_id is {value!r}; expected a whole number or a string, as the '
        'ids of the images are.'
    )


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
            f'{where}: the name {name!r} has no letters, or is not English, and the '
            'labels would not be: give it an English name in the file.'
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
    for where, entry in read_entries(path, 'images'):
        sizes = [entry.get(side) for side in ('width', 'height')]
        for size in sizes:
            if size is not None and (type(size) is not int or size < 1):
                raise ValueError(f'{where}: the size {sizes} is not in whole pixels.')
        name = entry_of(required(entry, 'file_name', where), str, where, 'a file_name')
        if leads_out(name):
            raise ValueError(
                f'{where}: the file_name {name[:200]!r} is absolute or leads out of '
                'the folder of images; expected a name from there.'
            )
        yield (
            entry_of(required(entry, 'id', where), (int, str), where, 'an id'),
            name,
            sizes[0],
            sizes[1],
        )


def read_categories(path: Path) -> dict[int, str]:
    """The categories of a COCO file: id -> name.

    Raises:
        ValueError: There is none, or a name is not English.
    """
    found: dict[int, str] = {}
    for where, entry in read_entries(path, 'categories'):
        number = _number(required(entry, 'id', where), where, 'the id')
        if number in found:
            raise ValueError(
                f'{where}: the id {number} was that of {found[number]!r} already; it '
                'must be unique.'
            )
        found[number] = class_name(required(entry, 'name', where), where)
    if not found:
        raise ValueError(
            f'{path} has no "categories": the numbers of the classes mean nothing '
            'without. Give a COCO instances file by --instances.'
        )
    return found


def read_coco_detections(
    path: Path, categories: Mapping[int, str]
) -> Iterator[tuple[Any, Detection | None]]:
    """Detections of a COCO result file, or the annotations of an instances file.

    Args:
        path (Path): A list of ``image_id``, ``bbox`` (xywh), ``category_id``,
            ``score``; or an object that has it as ``annotations``, where the score may
            be missing and is 1, and crowds are left out.
        categories (Mapping[int, str]): id -> name.

    Yields:
        tuple: Image id and detection; None in the place of a crowd.

    Raises:
        ValueError: An entry is damaged or of an unknown category; it says which.
    """
    scored = not is_object(path)
    for where, entry in read_entries(path, 'annotations'):
        if entry.get('iscrowd'):
            yield _image_id(entry, where), None
            continue
        category = _number(required(entry, 'category_id', where), where, 'category_id')
        if category not in categories:
            raise ValueError(
                f'{where}: category_id {category!r} is not among the categories '
                f'{sorted(categories)[:10]}...: give the instances file of the '
                'detector that made the detections.'
            )
        score = entry.get('score', 1.0)
        if scored:
            score = required(entry, 'score', where)
        box = _xywh(required(entry, 'bbox', where), where)
        yield (
            _image_id(entry, where),
            make_detection(categories[category], box, score, entry, where),
        )


def read_captions(path: Path) -> Iterator[tuple[Any, str]]:
    """Captions of a COCO caption-result file: image id and text."""
    for where, entry in read_entries(path, 'annotations'):
        text = entry_of(required(entry, 'caption', where), str, where, 'a caption')
        yield _image_id(entry, where), text


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
        value = required(entry, key, where)
        where = f'{where}, {key}'
        value = entry_of(value, dict, where, 'a JSON object')
        name = value.get('name')
        if name is None:
            if 'category_id' not in value:
                raise ValueError(f'{where}: it has no "name" and no "category_id".')
            number = _number(value['category_id'], where, 'category_id')
            if number not in (categories or {}):
                raise ValueError(
                    f'{where}: category_id {number!r} is unknown; write its "name".'
                )
            name = (categories or {})[number]
        box = _xywh(required(value, 'bbox', where), where)
        score = value.get('score', 1.0)
        return make_detection(class_name(name, where), box, score, {}, where)

    for where, entry in read_entries(path, 'triplets'):
        yield (
            _image_id(entry, where),
            Triplet(
                end(entry, 'subject', where),
                class_name(required(entry, 'predicate', where), where),
                end(entry, 'object', where),
                unit_score(entry.get('score', 1.0), where),
            ),
        )


def read_names(path: Path) -> list[str]:
    """Class names: a JSON list, or one a line.

    Raises:
        ValueError: The file is neither, or a name is empty or not English.
    """
    try:
        text = path.read_text(encoding='utf-8-sig').strip()
        names = json.loads(text) if text[:1] in ('[', '{') else text.splitlines()
    except ValueError as error:  # of UTF-8 or JSON
        raise ValueError(
            f'{path} is no list of names in UTF-8, one a line or as JSON: {error}.'
        ) from error
    entry_of(names, list, str(path), 'a JSON list of names, or one a line')
    return [class_name(n, f'{path}, name {i}') for i, n in enumerate(names, 1)]
