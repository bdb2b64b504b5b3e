"""Scoring a file of predictions against labels: matching, units, what is missing."""

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data.label_table import LabelTable, box_faults
from ..utils.image_files import open_image
from .accuracy import accuracy_by_group, aligned_ious
from .predictions_file import Predictions

__all__ = [
    'BOX_FORMATS',
    'COORDINATES',
    'Evaluation',
    'evaluate_predictions',
    'format_table',
    'to_pixels',
]

BOX_FORMATS = ('xyxy', 'xywh', 'cxcywh')
COORDINATES = ('pixel', '1', '999', '1000')
# Another reading is named where it hits this share of the labels more.
_CLEARLY = 0.1
_NAMED = 3  # examples in a message


@dataclass
class Evaluation:
    """What a file of predictions scores.

    Args:
        groups (dict[str, dict[str, float]]): Of :func:`accuracy_by_group`.
        counts (dict[str, int]): Labels in each group.
        results (list[dict]): One for each label, as ``GroundingMetric`` writes them.
        warnings (list[str]): What the reader should know, as sentences.
    """

    groups: dict[str, dict[str, float]]
    counts: dict[str, int]
    results: list[dict[str, Any]]
    warnings: list[str] = field(default_factory=list)


def evaluate_predictions(
    table: LabelTable,
    predictions: Predictions,
    coordinates: str = 'pixel',
    box_format: str = 'xyxy',
    images: Path | None = None,
    only_matched: bool = False,
) -> Evaluation:
    """Score predicted boxes as ``tools/test.py`` would.

    A prediction belongs to the label of its ``sample_id``, else to the labels of its
    image and expression. A label without a prediction, or whose prediction has no
    box, is a miss.

    Args:
        table (LabelTable): N labels, one box each, xyxy in pixels.
        predictions (Predictions): As read.
        coordinates (str): Unit of the predicted boxes: 'pixel' of the original image;
            '1', '999' or '1000': shares of its sides; 'resized:WxH': pixels of the
            image resized to that size. Defaults to 'pixel'.
        box_format (str): 'xyxy', 'xywh' or 'cxcywh'. Defaults to 'xyxy'.
        images (Path, optional): Folder of the images, whose sizes are read where
            neither labels nor predictions say them. Defaults to None.
        only_matched (bool): Leave labels without a prediction out. Defaults to False.

    Returns:
        Evaluation: Scores, results and warnings.

    Raises:
        ValueError: Nothing matches, a label has two predictions that differ, or sizes
            are needed and not known.
    """
    rows, warnings = _match(table, predictions)
    matched = rows >= 0
    if not matched.any():
        raise ValueError(_nothing_matches(table, predictions))
    if missing := int((~matched).sum()):
        first = np.flatnonzero(~matched)[:_NAMED]
        named = ', '.join(table.sample_ids[i] for i in first)
        warnings.append(
            f'{missing:,} of {len(table):,} labels have no prediction and '
            f'{"are left out" if only_matched else "count as misses"}: {named}'
            f'{", ..." if missing > _NAMED else ""}.'
        )
    indices = np.flatnonzero(matched) if only_matched else np.arange(len(table))
    rows = rows[indices]
    raw = predictions.boxes[rows]
    raw[rows < 0] = np.nan
    if empty := int((np.isnan(raw).any(1) & (rows >= 0)).sum()):
        warnings.append(f'{empty:,} predictions have no box and count as misses.')
    sizes = _sizes(table, predictions, indices, rows)
    if coordinates != 'pixel':
        sizes = _read_sizes(table, indices, sizes, images)
    gt_boxes = table.boxes[indices]
    boxes = to_pixels(raw, coordinates, box_format, sizes)
    ious = aligned_ious(boxes, gt_boxes)
    # As in GroundingMetric: a label whose own box is invalid is a miss.
    true_sizes = table.sizes[table.image_index[indices]]
    for _, invalid in box_faults(gt_boxes, true_sizes):
        ious[invalid] = 0
    warnings += _better_reading(
        raw, gt_boxes, sizes, (coordinates, box_format), float((ious >= 0.5).mean())
    )
    splits = [table.split_names[code] for code in table.splits[indices]]
    sources = [table.source_names[code] for code in table.sources[indices]]
    groups = accuracy_by_group(ious, splits, sources)
    counts = {name: 0 for name in groups}
    counts[''] = len(indices)
    for values in (splits, sources):
        for name in set(values):
            if name in counts:
                counts[name] = values.count(name)
    scores = predictions.scores[rows]
    results = [
        dict(
            sample_id=table.sample_ids[label],
            image=table.images[table.image_index[label]],
            text=table.texts[label],
            iou=float(iou),
            bbox=np.nan_to_num(box).tolist(),
            gt_bbox=gt_box.tolist(),
            split=split,
            source=source,
            **({} if np.isnan(score) or row < 0 else dict(score=float(score))),
        )
        for label, iou, box, gt_box, split, source, score, row in zip(
            *(indices, ious, boxes, gt_boxes, splits, sources, scores, rows),
            strict=True,
        )
    ]
    return Evaluation(groups, counts, results, warnings)


def to_pixels(
    boxes: np.ndarray, coordinates: str, box_format: str, sizes: np.ndarray
) -> np.ndarray:
    """Boxes as xyxy in pixels of the original image.

    Args:
        boxes (np.ndarray): Of shape (N, 4).
        coordinates (str): As of :func:`evaluate_predictions`.
        box_format (str): One of :data:`BOX_FORMATS`.
        sizes (np.ndarray): Height and width of the images, of shape (N, 2); not used
            for pixels.

    Returns:
        np.ndarray: float64 (N, 4).

    Raises:
        ValueError: Unknown coordinates or format.
    """
    if box_format not in BOX_FORMATS:
        raise ValueError(f'box format {box_format!r}; expected one of {BOX_FORMATS}.')
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    if box_format == 'cxcywh':
        boxes[:, :2] -= boxes[:, 2:] / 2
    if box_format != 'xyxy':
        boxes[:, 2:] += boxes[:, :2]
    if coordinates == 'pixel':
        return boxes
    resized = re.fullmatch(r'resized:(\d+)x(\d+)', coordinates)
    if resized:
        unit = np.array([int(resized[1]), int(resized[2])] * 2, np.float64)
    elif coordinates in COORDINATES:
        unit = np.full(4, float(coordinates))
    else:
        raise ValueError(
            f'coordinates {coordinates!r}; expected one of {COORDINATES}, or '
            'resized:WIDTHxHEIGHT, such as resized:640x640.'
        )
    if not unit.all():
        raise ValueError(f'coordinates {coordinates!r}: a side of 0 pixels.')
    return boxes / unit * np.tile(sizes[:, ::-1], 2)


def _match(table: LabelTable, predictions: Predictions) -> tuple[np.ndarray, list[str]]:
    """The row of the prediction of each label, -1 where there is none."""
    matched = np.full(len(table), -1, np.int64)
    by_id = {name: i for i, name in enumerate(table.sample_ids)}
    image_key = _image_keys(table)
    unknown: list[int] = []
    rows_of: dict[int, list[int]] = defaultdict(list)
    by_content: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, name in enumerate(predictions.sample_ids):
        image, text = predictions.images[row], predictions.texts[row]
        label = by_id.get(name) if name is not None else None
        # A number of a row may be a label's id by chance.
        if label is not None and (
            text is None or _text_key(table.texts[label]) == _text_key(text)
        ):
            rows_of[label].append(row)
        elif image is not None and text is not None:
            by_content[image_key(image), _text_key(text)].append(row)
        else:
            unknown.append(row)
    for label, rows in rows_of.items():
        matched[label] = _distribute(table, predictions, [label], rows)[0]
    labels_of = _by_content(table, image_key) if by_content else {}
    for content, rows in by_content.items():
        labels = [label for label in labels_of.get(content, []) if matched[label] < 0]
        if labels:
            matched[labels] = _distribute(table, predictions, labels, rows)
        else:
            unknown += rows
    if not unknown:
        return matched, []
    named = ', '.join(
        str(predictions.sample_ids[row] or predictions.texts[row])
        for row in unknown[:_NAMED]
    )
    return matched, [
        f'{len(unknown):,} of {len(predictions):,} predictions in {predictions.path} '
        f'fit no label and are not used: {named}'
        f'{", ..." if len(unknown) > _NAMED else ""}.'
    ]


def _distribute(
    table: LabelTable, predictions: Predictions, labels: list[int], rows: list[int]
) -> list[int]:
    """Rows of labels of one content: in order, or one for all if rows are alike."""
    if len(rows) == len(labels):
        return rows
    boxes = predictions.boxes[rows]
    if not (np.isnan(boxes) & np.isnan(boxes[0]) | (boxes == boxes[0])).all():
        raise ValueError(
            f'{predictions.path}: rows {[predictions.lines[row] for row in rows]} are '
            f'for {len(labels)} label(s), {table.sample_ids[labels[0]]!r} '
            f'({table.texts[labels[0]]!r}), with different boxes: one prediction for '
            'each expression is scored. Were two runs put into one file?'
        )
    return rows[:1] * len(labels)


def _by_content(
    table: LabelTable, image_key: Callable[[str], str]
) -> dict[tuple[str, str], list[int]]:
    """Labels by image and expression: several where both are alike."""
    images = [image_key(name) for name in table.images]
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for label, (image, text) in enumerate(
        zip(table.image_index, table.texts, strict=True)
    ):
        found[images[image], _text_key(text)].append(label)
    return found


def _image_keys(table: LabelTable) -> Callable[[str], str]:
    """How images are told apart: by their stems, or by paths where stems are alike."""
    stems = [_image_key(name) for name in table.images]
    if len(set(stems)) == len(stems):
        return _image_key
    return lambda name: name.replace('\\', '/')


def _image_key(name: str) -> str:
    """What an image is called whatever its folder, suffix and COCO year."""
    stem = re.split(r'[\\/]', name)[-1].rpartition('.')[0] or name
    coco = re.fullmatch(r'(?:COCO_[a-z]+\d{4}_)?(\d{12})(?:_\d+)?', stem)
    return coco[1] if coco else stem


def _text_key(text: str) -> str:
    return ' '.join(text.casefold().split()).strip('.')


def _nothing_matches(table: LabelTable, predictions: Predictions) -> str:
    first = (
        predictions.sample_ids[0],
        predictions.images[0],
        predictions.texts[0],
    )
    label = table[0]
    return (
        f'{predictions.path}: none of {len(predictions):,} predictions fits one of '
        f'{len(table):,} labels. The first prediction is of {first} (sample_id, image, '
        f'expression), the first label is {label["sample_id"]!r} on {label["image"]}: '
        f'{label["text"]!r}. Give the same split and data set, or name the fields by '
        '--fields.'
    )


def _sizes(
    table: LabelTable, predictions: Predictions, indices: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Height and width of the labels' images, -1 where nothing says them."""
    sizes = table.sizes[table.image_index[indices]].astype(np.int64)
    unknown = (sizes <= 0).any(1) & (rows >= 0)
    sizes[unknown] = predictions.sizes[rows[unknown]]
    return sizes


def _read_sizes(
    table: LabelTable, indices: np.ndarray, sizes: np.ndarray, folder: Path | None
) -> np.ndarray:
    """The sizes, those unknown read from the images."""
    unknown = np.flatnonzero((sizes <= 0).any(1))
    if not len(unknown):
        return sizes
    if folder is None:
        name = table.images[table.image_index[indices[unknown[0]]]]
        raise ValueError(
            f'The sizes of the images of {len(unknown):,} labels are not known (the '
            f'first: {name}), and boxes that are not in pixels need them: give the '
            'folder of the images (--images).'
        )
    known: dict[int, tuple[int, int]] = {}
    for place in unknown:
        image = int(table.image_index[indices[place]])
        if image not in known:
            with open_image(folder / table.images[image]) as file:
                known[image] = (file.height, file.width)
        sizes[place] = known[image]
    return sizes


def _better_reading(
    boxes: np.ndarray,
    gt_boxes: np.ndarray,
    sizes: np.ndarray,
    used: tuple[str, str],
    accuracy: float,
) -> list[str]:
    """Whether boxes in another unit or format would fit far better."""
    known = (sizes > 0).all(1)
    scores: dict[tuple[str, str], tuple[float, float]] = {}
    for coordinates in COORDINATES:
        for box_format in BOX_FORMATS:
            if (coordinates, box_format) == used:
                continue
            pixels = to_pixels(boxes, coordinates, box_format, sizes)
            ious = aligned_ious(pixels, gt_boxes)
            if coordinates != 'pixel':
                ious = np.where(known, ious, 0)
            # The mean parts readings that are nearly one, as 999 and 1000.
            scores[coordinates, box_format] = (
                float((ious >= 0.5).mean()),
                float(ious.mean()),
            )
    best = max(scores, key=lambda reading: scores[reading])
    if scores[best][0] < accuracy + _CLEARLY:
        return []
    return [
        f'Read with --coords {used[0]} --box-format {used[1]}, {accuracy:.1%} of the '
        f'labels are hit (IoU >= 0.5); with --coords {best[0]} --box-format {best[1]} '
        f'it would be {scores[best][0]:.1%}. Find out which of the two the model '
        'writes: the better score is not a reason.'
    ]


def format_table(evaluation: Evaluation) -> str:
    """Scores as a table for people, a line for each group."""
    names = {name: name or 'all' for name in evaluation.groups}
    metrics = list(evaluation.groups[''])
    width = max(len(name) for name in names.values())
    lines = [f'{"":<{width}}  {"labels":>8}  ' + '  '.join(f'{m:>8}' for m in metrics)]
    lines += [
        f'{names[name]:<{width}}  {evaluation.counts[name]:>8,}  '
        + '  '.join(f'{group[m]:>8.4f}' for m in metrics)
        for name, group in evaluation.groups.items()
    ]
    return '\n'.join(lines)
