"""Detections, captions and scene graphs of COCO's kind, entry by entry."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..data.readers.common import entry_of, read_json, required
from ..utils.file_names import leads_out
from .cleaning import best_attribute
from .detection import Box, Detection, Triplet
from .vocabulary import is_english

__all__ = [
    'OTHER',
    'CocoFile',
    'ListedImage',
    'class_name',
    'make_detection',
    'read_names',
    'unit_score',
]

# Id, file name, width and height, which the file may not have.
ListedImage = tuple[int | str, str, int | None, int | None]
# In the place of an entry, and of its image id: it is of an image of another shard.
OTHER: Any = object()
_OTHER_ENTRY: Any = (OTHER, None)
# What annotations have that no label is made of, and that takes most of the memory.
_LEFT_OUT = ('segmentation', 'keypoints')


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
    """Name of a class in an expression: lower case, no underscores or explanations.

    Raises:
        ValueError: It is no English text.
    """
    text = entry_of(name, str, where, 'a name').replace('_', ' ')
    # LVIS explains some of its names: "sandal (type of shoe)".
    text = ' '.join(re.sub(r'\([^)]*\)', ' ', text).split())
    if not is_english(text):
        raise ValueError(
            f'{where}: the name {name!r} has no letters, or is not English, and the '
            'labels would not be: give it an English name in the file.'
        )
    return text.lower()


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


def _without_outlines(entry: dict) -> dict:
    for key in _LEFT_OUT:
        entry.pop(key, None)
    return entry


def _of_some_images(is_other: Callable[[Any], bool]) -> Callable[[dict], Any]:
    """What stays in memory of an entry, where others read the rest of the images."""

    def read(entry: dict) -> Any:
        return OTHER if is_other(entry.get('image_id')) else _without_outlines(entry)

    return read


class CocoFile:
    """A JSON file of annotations or results, read whole.

    Args:
        path (Path): A list of entries, or an object with lists of entries.
        is_other (Callable, optional): Says of an ``image_id`` whether it is of an image
            that nobody asks for; entries of these, :data:`OTHER`, take no memory.
            Defaults to None: all are read.

    Raises:
        ValueError: The file is no JSON in UTF-8, or neither of the two.
    """

    def __init__(
        self, path: Path, is_other: Callable[[Any], bool] | None = None
    ) -> None:
        self.path = path
        if path.is_dir():
            raise ValueError(f'{path} is a folder; expected a JSON file.')
        with path.open('rb') as file:
            encoding = json.detect_encoding(file.read(4))
        if not encoding.startswith('utf-8'):
            raise ValueError(f'{path} is in {encoding}; expected JSON in UTF-8.')
        hook = _without_outlines if is_other is None else _of_some_images(is_other)
        self.content = read_json(path, hook)
        if not isinstance(self.content, (list, dict)):
            raise ValueError(
                f'{path}: expected a JSON list, or an object of lists, found '
                f'{type(self.content).__name__}.'
            )

    def has(self, key: str) -> bool:
        """Whether the file is an object with a list of that name."""
        return isinstance(self.content, dict) and isinstance(
            self.content.get(key), list
        )

    def _entries(self, key: str) -> Iterator[tuple[str, dict]]:
        """Where each entry is, for errors; and the entry.

        Args:
            key (str): Name of the list; a file that is a list itself has no names.
        """
        if isinstance(self.content, list):
            entries, what = self.content, 'entry'
        elif self.has(key):
            entries, what = self.content[key], key
        else:
            raise ValueError(
                f'{self.path} is an object without a list {key!r}; it has '
                f'{sorted(self.content)[:10]}.'
            )
        for number, entry in enumerate(entries, 1):
            where = f'{self.path}, {what} {number}'
            if entry is not OTHER:
                entry_of(entry, dict, where, 'a JSON object')
            yield where, entry

    def images(self) -> Iterator[ListedImage]:
        """Id, file name, width and height (None: not in the file) of each image."""
        for where, entry in self._entries('images'):
            sizes = [entry.get(side) for side in ('width', 'height')]
            for size in sizes:
                if size is not None and (type(size) is not int or size < 1):
                    raise ValueError(
                        f'{where}: the size {sizes} is not in whole pixels.'
                    )
            name = entry_of(
                required(entry, 'file_name', where), str, where, 'a file_name'
            )
            if leads_out(name):
                raise ValueError(
                    f'{where}: the file_name {name[:200]!r} is absolute or leads out '
                    'of the folder of images; expected a name from there.'
                )
            number = entry_of(required(entry, 'id', where), (int, str), where, 'an id')
            yield number, name, sizes[0], sizes[1]

    def categories(self) -> dict[int, str]:
        """Names of the categories by their id.

        Raises:
            ValueError: There is none, or a name is not English.
        """
        names: dict[int, str] = {}
        for where, entry in self._entries('categories'):
            number = _number(required(entry, 'id', where), where, 'the id')
            if number in names:
                raise ValueError(
                    f'{where}: the id {number} was that of {names[number]!r} already; '
                    'it must be unique.'
                )
            names[number] = class_name(required(entry, 'name', where), where)
        if not names:
            raise ValueError(
                f'{self.path} has no "categories": the numbers of the classes mean '
                'nothing without. Give a COCO instances file by --instances.'
            )
        return names

    def detections(
        self, categories: Mapping[int, str]
    ) -> Iterator[tuple[int | str, Detection | None]]:
        """Image id and detection of each entry of ``annotations``.

        Args:
            categories (Mapping[int, str]): id -> name.

        Yields:
            tuple: Image id and detection; None in the place of a crowd. The entries
            of a file that is a list must have a ``score``; in an instances file it may
            be missing and is 1.

        Raises:
            ValueError: An entry is damaged or of an unknown category; it says which.
        """
        scored = isinstance(self.content, list)
        for where, entry in self._entries('annotations'):
            if entry is OTHER:
                yield _OTHER_ENTRY
                continue
            if entry.get('iscrowd'):
                yield _image_id(entry, where), None
                continue
            category = _number(
                required(entry, 'category_id', where), where, 'category_id'
            )
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

    def captions(self) -> Iterator[tuple[int | str, str]]:
        """Image id and text of each caption."""
        for where, entry in self._entries('annotations'):
            if entry is OTHER:
                yield _OTHER_ENTRY
                continue
            text = entry_of(required(entry, 'caption', where), str, where, 'a caption')
            yield _image_id(entry, where), text

    def triplets(
        self, categories: Mapping[int, str] | None = None
    ) -> Iterator[tuple[int | str, Triplet]]:
        """Image id and triplet of each edge of a scene graph.

        Entries are ``{"image_id", "subject": {"name" or "category_id", "bbox" (xywh),
        "score"}, "predicate", "score", "object": {...}}``; a missing score is 1.

        Args:
            categories (Mapping[int, str], optional): id -> name. Defaults to None.

        Raises:
            ValueError: An entry is damaged; it says which.
        """
        for where, entry in self._entries('triplets'):
            if entry is OTHER:
                yield _OTHER_ENTRY
                continue
            yield (
                _image_id(entry, where),
                Triplet(
                    _triplet_end(entry, 'subject', categories or {}, where),
                    class_name(required(entry, 'predicate', where), where),
                    _triplet_end(entry, 'object', categories or {}, where),
                    unit_score(entry.get('score', 1.0), where),
                ),
            )


def _triplet_end(
    entry: dict, key: str, categories: Mapping[int, str], where: str
) -> Detection:
    """Subject or object of an edge; attributes are part of its name."""
    value = required(entry, key, where)
    where = f'{where}, {key}'
    value = entry_of(value, dict, where, 'a JSON object')
    name = value.get('name')
    if name is None:
        if 'category_id' not in value:
            raise ValueError(f'{where}: it has no "name" and no "category_id".')
        number = _number(value['category_id'], where, 'category_id')
        if number not in categories:
            raise ValueError(
                f'{where}: category_id {number!r} is unknown; write its "name".'
            )
        name = categories[number]
    box = _xywh(required(value, 'bbox', where), where)
    score = value.get('score', 1.0)
    return make_detection(class_name(name, where), box, score, {}, where)


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
