"""Files of predicted boxes, of any model: rows of JSON Lines, JSON or CSV."""

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data.readers.common import entry_of, read_json

__all__ = ['FIELDS', 'Predictions', 'parse_box', 'read_predictions']

# Names that a field has in the files of public models and their evaluation code.
FIELDS: dict[str, tuple[str, ...]] = {
    'sample_id': ('sample_id', 'question_id', 'sent_id', 'id'),
    'image': ('image', 'file_name', 'filename', 'img_path', 'image_path', 'image_name'),
    'text': (
        *('text', 'expression', 'sent', 'caption', 'phrase', 'normal_caption'),
        *('referring', 'ref', 'query', 'question', 'prompt', 'problem'),
    ),
    'box': (
        *('bbox', 'box', 'pred_bbox', 'pred_box', 'prediction', 'pred', 'bboxes'),
        *('boxes', 'response', 'output', 'answer', 'model_answer', 'text_output'),
    ),
    'score': ('score', 'scores', 'confidence'),
}
_COLUMNS = (
    ('x1', 'y1', 'x2', 'y2'),
    ('xmin', 'ymin', 'xmax', 'ymax'),
    ('x', 'y', 'w', 'h'),
)
_NUMBER = r'\s*(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*'
_BOXES_IN_TEXT = tuple(
    re.compile(pattern)
    for pattern in (
        # Brackets of four numbers, pairs of points, tokens of a place, four tags.
        r'[\[({]' + ','.join([_NUMBER] * 4) + r'[\])}]',
        rf'\({_NUMBER},{_NUMBER}\)\s*,?\s*\({_NUMBER},{_NUMBER}\)',
        r'\s*'.join([r'<(?:loc_|bin_|)(\d+)>'] * 4),
        r'\{' + '><'.join([r'<(\d+)'] * 4) + r'>\}',
    )
)
_LONGEST = 20_000  # characters of a text in which a box is looked for


@dataclass
class Predictions:
    """Predicted boxes, one for each row of a file.

    Args:
        path (Path): The file.
        lines (list[int]): Where each of the N rows is, for messages.
        sample_ids (list[str or None]): Of the label that a row is meant for.
        images (list[str or None]): File names.
        texts (list[str or None]): Expressions.
        boxes (np.ndarray): float64 (N, 4) as the file has them; NaN where a row has
            no box, or was read as a set.
        scores (np.ndarray): float64 (N, ); NaN likewise.
        sizes (np.ndarray): int64 (N, 2), height and width of the image where the row
            says them, else -1.
        box_sets (list[np.ndarray]): All boxes of each row if they were read as sets,
            else empty: float64 (P, 5), the box as the file has it and its score; NaN
            where it has none.
    """

    path: Path
    lines: list[int]
    sample_ids: list[str | None]
    images: list[str | None]
    texts: list[str | None]
    boxes: np.ndarray
    scores: np.ndarray
    sizes: np.ndarray
    box_sets: list[np.ndarray] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.lines)

    def are_alike(self, rows: Sequence[int]) -> bool:
        """Whether rows have the same boxes."""
        boxes = self.box_sets or self.boxes
        return all(
            np.array_equal(boxes[row], boxes[rows[0]], equal_nan=True) for row in rows
        )


def read_predictions(
    path: Path, fields: Mapping[str, str] | None = None, sets: bool = False
) -> Predictions:
    """Read predicted boxes.

    Args:
        path (Path): JSON Lines, a JSON list (or an object with one list), or CSV or
            TSV with a header. A row has a ``sample_id``, or an image and an
            expression, and a box: four numbers, a list of boxes with ``scores`` (the
            best is taken), four columns, or a model's text with the box in it.
        fields (Mapping[str, str], optional): Name in the file of ``sample_id``,
            ``image``, ``text``, ``box`` or ``score``. Defaults to None: those of
            :data:`FIELDS`.
        sets (bool): Whether all boxes of a row count, not the best or first of them:
            for expressions with any number of targets. Defaults to False.

    Returns:
        Predictions: In the file's order.

    Raises:
        ValueError: The file is empty or damaged, or a row has neither an id nor an
            image with an expression; it says which.
    """
    rows = list(_rows(path))
    if not rows:
        raise ValueError(f'{path} is empty: it has no predictions.')
    names = _field_names([row for _, row in rows], fields or {}, path)
    found: dict[str, list] = {key: [] for key in ('id', 'image', 'text', 'box')}
    scores, sizes, box_sets = [], [], []
    for where, row in _located(path, rows):
        texts = {
            key: None if name is None or row.get(name) is None else str(row[name])
            for key, name in names.items()
            if key in ('sample_id', 'image', 'text')
        }
        if texts['sample_id'] is None and None in (texts['image'], texts['text']):
            raise ValueError(
                f'{where}: neither a sample_id nor an image with an expression; it has '
                f'{sorted(map(str, row))}. Name the fields, e.g. '
                '--fields image=file text=query box=answer.'
            )
        box: Sequence[float] = [math.nan] * 4
        score = math.nan
        if sets:
            box_sets.append(_box_set(row, names, where))
        else:
            box, score = _box_and_score(row, names, where)
        found['id'].append(texts['sample_id'])
        found['image'].append(texts['image'])
        found['text'].append(texts['text'])
        found['box'].append(box)
        scores.append(score)
        sizes.append(_size(row))
    return Predictions(
        path,
        [number for number, _ in rows],
        found['id'],
        found['image'],
        found['text'],
        np.array(found['box'], np.float64),
        np.array(scores, np.float64),
        np.array(sizes, np.int64),
        box_sets,
    )


def _rows(path: Path) -> Iterator[tuple[int, dict]]:
    """Number and content of each row."""
    if path.suffix.lower() in ('.csv', '.tsv'):
        tab = '\t' if path.suffix.lower() == '.tsv' else ','
        with path.open(encoding='utf-8-sig', newline='') as file:
            reader = csv.DictReader(file, delimiter=tab)
            try:
                yield from enumerate(reader, 2)
            except (csv.Error, UnicodeDecodeError) as error:
                raise ValueError(
                    f'{path}, after line {reader.line_num}: {error}.'
                ) from error
        return
    rows = _json_lines(path)
    if rows is not None:
        yield from rows
        return
    value = read_json(path)
    if isinstance(value, dict):
        lists = [key for key, rows in value.items() if isinstance(rows, list) and rows]
        if len(lists) != 1:
            raise ValueError(
                f'{path}: expected a list of predictions, or an object with one list; '
                f'found lists {lists}.'
            )
        value = value[lists[0]]
    for number, row in enumerate(entry_of(value, list, str(path), 'a list'), 1):
        yield number, entry_of(row, dict, f'{path}, entry {number}', 'a JSON object')


def _json_lines(path: Path) -> list[tuple[int, dict]] | None:
    """The rows of JSON Lines; None where the first line is no row by itself."""
    rows: list[tuple[int, dict]] = []
    with path.open('rb') as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode('utf-8-sig'))
            except (ValueError, RecursionError) as error:
                if not rows:
                    return None
                raise ValueError(
                    f'{path}, line {number} is not valid JSON: {error}. A file cut '
                    'short must be written again.'
                ) from error
            if not rows and not _is_row(row):
                return None
            where = f'{path}, line {number}'
            rows.append((number, entry_of(row, dict, where, 'a JSON object')))
    return rows


def _is_row(value: Any) -> bool:
    """Whether a value is a row, not a whole file on one line."""
    if not isinstance(value, dict):
        return False
    lists = [v for v in value.values() if isinstance(v, list) and v]
    # Boxes of one row are lists of numbers.
    return not (len(value) <= 2 and any(isinstance(v[0], dict) for v in lists))


def _located(
    path: Path, rows: Sequence[tuple[int, dict]]
) -> Iterator[tuple[str, dict]]:
    for number, row in rows:
        yield f'{path}, row {number}', row


def _field_names(
    rows: Sequence[dict], given: Mapping[str, str], path: Path
) -> dict[str, str | None]:
    """What each field is called in the file."""
    if unknown := set(given) - set(FIELDS):
        raise ValueError(
            f'fields {sorted(unknown)}; expected some of {sorted(FIELDS)}.'
        )
    present = {str(key) for row in rows[:100] for key in row}
    for key, name in given.items():
        if name not in present:
            raise ValueError(
                f'{path} has no field {name!r} for {key}; it has {sorted(present)}.'
            )
    names = {
        key: given.get(key) or next((n for n in known if n in present), None)
        for key, known in FIELDS.items()
    }
    # A truth beside the prediction must not be read as one.
    if 'box' not in given and 'gt_bbox' not in present and names['box'] == 'bbox':
        written = [n for n in FIELDS['box'] if n in present and n != 'bbox']
        if written:
            raise ValueError(
                f'{path} has {["bbox", *written]}: say which are the predicted boxes, '
                f'e.g. --fields box={written[0]}.'
            )
    return names


def _values(
    row: dict, names: Mapping[str, str | None], where: str
) -> tuple[Any, Any, bool]:
    """The boxes of a row, its scores, and whether the boxes are a list of boxes."""
    value: Any = _columns(row, where) if names['box'] is None else row.get(names['box'])
    scores = row.get(names['score']) if names['score'] is not None else None
    items = value if isinstance(value, list) else []
    return value, scores, bool(items) and isinstance(items[0], list | dict)


def _box_set(row: dict, names: Mapping[str, str | None], where: str) -> np.ndarray:
    """All boxes of a row and their scores, float64 (P, 5)."""
    value, scores, listed = _values(row, names, where)
    if listed:
        boxes = [parse_box(item, f'{where}, box {i}') for i, item in enumerate(value)]
    elif isinstance(value, str):
        boxes = _boxes_in_text(value)
    else:
        boxes = [parse_box(value, where)]
    if all(math.isnan(number) for box in boxes for number in box):
        return np.zeros((0, 5))
    if not isinstance(scores, list):
        scores = [scores] * len(boxes)
    if len(scores) != len(boxes):
        raise ValueError(
            f'{where}: {len(boxes)} boxes, but {len(scores)} scores; expected one for '
            'each, or none.'
        )
    numbers = np.array([_number(score, f'{where}, score') for score in scores])
    found = np.column_stack([np.array(boxes, np.float64), numbers])
    return found[~np.isnan(found[:, :4]).all(1)]


def _boxes_in_text(text: str) -> list[list[float]]:
    """All boxes in a model's text, of the notation that its first box has."""
    # What is thought of on the way is not what is predicted.
    text = re.sub(r'<think>.*?</think>', '', text[:_LONGEST], flags=re.DOTALL)
    for pattern in _BOXES_IN_TEXT:
        if found := pattern.findall(text):
            return [[float(number) for number in groups] for groups in found]
    return [parse_box(text, '')]


def _box_and_score(
    row: dict, names: Mapping[str, str | None], where: str
) -> tuple[Sequence[float], float]:
    """The box of a row and its score, NaN where there is none."""
    value, scores, listed = _values(row, names, where)
    if listed:
        boxes = [parse_box(item, f'{where}, box {i}') for i, item in enumerate(value)]
        if len(boxes) == 1:
            scores = scores[0] if isinstance(scores, list) and scores else scores
            return boxes[0], _number(scores, f'{where}, score')
        values = []
        if isinstance(scores, list) and len(scores) == len(boxes):
            values = [_number(score, f'{where}, score') for score in scores]
        if np.isnan(values).all():
            raise ValueError(
                f'{where}: {len(boxes)} boxes and no score for each: one box is scored '
                'for each expression. Give `scores`, of which the highest counts, or '
                'one box.'
            )
        best = int(np.nanargmax(values))
        return boxes[best], values[best]
    if isinstance(scores, list):
        scores = scores[0] if len(scores) == 1 else None
    return parse_box(value, where), _number(scores, f'{where}, score')


def _columns(row: dict, where: str) -> list[Any] | None:
    """Four columns of numbers as a box."""
    for names in _COLUMNS:
        if all(name in row for name in names):
            values = [row[name] for name in names]
            return None if all(v in (None, '') for v in values) else values
    raise ValueError(
        f'{where}: no field with a box ({", ".join(FIELDS["box"])}, or columns '
        f'{", ".join(_COLUMNS[0])}); it has {sorted(map(str, row))}. Name it: '
        '--fields box=NAME.'
    )


def parse_box(value: Any, where: str) -> list[float]:
    """A box as numbers, or in the text of a model.

    Args:
        value (Any): Four numbers; a dict with ``bbox_2d`` or ``bbox``; a text with
            the first box in brackets, as points, or as tokens of a place; or nothing.
        where (str): For errors.

    Returns:
        list[float]: Four numbers, NaN where the value has no box: a refusal, a text
        without one.

    Raises:
        ValueError: Numbers that are no box.
    """
    none = [math.nan] * 4
    if value is None or value == '' or value == []:
        return none
    if isinstance(value, dict):
        value = value.get('bbox_2d', value.get('bbox', value.get('box')))
        return parse_box(value, where)
    if isinstance(value, str):
        for pattern in _BOXES_IN_TEXT:
            if match := pattern.search(value[:_LONGEST]):
                return [float(number) for number in match.groups()]
        numbers = value.replace(',', ' ').split()
        try:
            return [float(n) for n in numbers] if len(numbers) == 4 else none
        except ValueError:
            return none
    if isinstance(value, list | tuple) and len(value) == 4:
        return [_number(number, f'{where}, box') for number in value]
    raise ValueError(
        f'{where}: expected a box of 4 numbers, found {str(value)[:80]!r}.'
    )


def _number(value: Any, where: str) -> float:
    if value is None or value == '':
        return math.nan
    try:
        if isinstance(value, bool):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f'{where}: expected a number, found {value!r}.') from None


def _size(row: dict) -> tuple[int, int]:
    """Height and width of the image, -1 where a row does not say them."""
    try:
        height, width = int(row['height']), int(row['width'])
    except (KeyError, TypeError, ValueError):
        return -1, -1
    return (height, width) if height > 0 and width > 0 else (-1, -1)
