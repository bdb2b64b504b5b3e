"""Scoring a file of predictions against labels: matching, units, what is missing."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data.label_table import LabelTable, box_faults
from .accuracy import accuracy_by_group, aligned_ious, group_masks
from .generalized import (
    MatchingRule,
    count_expression,
    scores_or_ones,
    summarize_by_group,
    written_boxes,
)
from .prediction_units import (
    better_reading,
    better_reading_of_sets,
    image_sizes,
    to_pixels,
)
from .predictions_file import Predictions

__all__ = [
    'Evaluation',
    'evaluate_box_sets',
    'evaluate_predictions',
    'format_table',
]

_NAMED = 3  # examples in a message


@dataclass
class Evaluation:
    """What a file of predictions scores.

    Args:
        groups (dict[str, dict[str, float]]): Of :func:`accuracy_by_group`, or of sets
            of boxes of :func:`summarize_by_group`.
        counts (dict[str, int]): Labels in each group.
        results (list[dict]): One for each label, as ``GroundingMetric`` writes them, or
            for sets ``GeneralizedGroundingMetric``.
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
    indices, rows, warnings = _rows_of_labels(table, predictions, only_matched)
    raw = predictions.boxes[rows]
    raw[rows < 0] = np.nan
    if empty := int((np.isnan(raw).any(1) & (rows >= 0)).sum()):
        warnings.append(f'{empty:,} predictions have no box and count as misses.')
    needed = coordinates != 'pixel'
    sizes = image_sizes(table, predictions, indices, rows, images, needed)
    gt_boxes = table.boxes[indices]
    boxes = to_pixels(raw, coordinates, box_format, sizes)
    ious = aligned_ious(boxes, gt_boxes)
    # As in GroundingMetric: a label whose own box is invalid is a miss.
    true_sizes = table.sizes[table.image_index[indices]]
    for _, invalid in box_faults(gt_boxes, true_sizes):
        ious[invalid] = 0
    warnings += better_reading(
        raw, gt_boxes, sizes, (coordinates, box_format), float((ious >= 0.5).mean())
    )
    splits = [table.split_names[code] for code in table.splits[indices]]
    sources = [table.source_names[code] for code in table.sources[indices]]
    groups = accuracy_by_group(ious, splits, sources)
    masks = group_masks(splits, sources)
    counts = {name: int(mask.sum()) for name, mask in masks.items()}
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
            score=None if np.isnan(score) or row < 0 else float(score),
        )
        for label, iou, box, gt_box, split, source, score, row in zip(
            *(indices, ious, boxes, gt_boxes, splits, sources, scores, rows),
            strict=True,
        )
    ]
    return Evaluation(groups, counts, results, warnings)


def evaluate_box_sets(
    table: LabelTable,
    predictions: Predictions,
    rule: MatchingRule,
    coordinates: str = 'pixel',
    box_format: str = 'xyxy',
    images: Path | None = None,
    only_matched: bool = False,
) -> Evaluation:
    """Score sets of predicted boxes as ``GeneralizedGroundingMetric`` would.

    Args:
        table (LabelTable): N labels of any number of boxes, xyxy in pixels.
        predictions (Predictions): As read with ``sets``.
        rule (MatchingRule): Which boxes count, and how they are matched.
        coordinates (str): As of :func:`evaluate_predictions`.
        box_format (str): As of :func:`evaluate_predictions`.
        images (Path, optional): As of :func:`evaluate_predictions`.
        only_matched (bool): As of :func:`evaluate_predictions`. By default nothing is
            predicted for a label without a prediction.

    Returns:
        Evaluation: Groups of :func:`summarize_by_group`, results and warnings.

    Raises:
        ValueError: As :func:`evaluate_predictions`.
    """
    indices, rows, warnings = _rows_of_labels(table, predictions, only_matched)
    needed = coordinates != 'pixel'
    sizes = image_sizes(table, predictions, indices, rows, images, needed)
    true_sizes = table.sizes[table.image_index[indices]]
    nothing = np.zeros((0, 5))
    counts, results, compared = [], [], []
    for i, (label, row) in enumerate(zip(indices.tolist(), rows.tolist(), strict=True)):
        found = predictions.box_sets[row] if row >= 0 else nothing
        scores, targets = scores_or_ones(found[:, 4]), table.targets(label).copy()
        own_sizes = np.tile(sizes[i], (len(found), 1))
        boxes = to_pixels(found[:, :4], coordinates, box_format, own_sizes)
        # As in GeneralizedGroundingMetric: a target that is invalid is never found.
        faults = box_faults(targets, np.tile(true_sizes[i], (len(targets), 1)))
        for _, invalid in faults:
            targets[invalid] = np.nan
        counts.append(count_expression(boxes, scores, targets, rule))
        written = written_boxes(scores, rule)
        results.append(
            dict(
                sample_id=table.sample_ids[label],
                image=table.images[table.image_index[label]],
                text=table.texts[label],
                bboxes=np.nan_to_num(boxes[written]).tolist(),
                scores=[None if np.isnan(s) else s for s in found[written, 4].tolist()],
                gt_bboxes=np.nan_to_num(targets).tolist(),
                f1=counts[-1].f1,
                split=table.split_names[table.splits[label]],
                source=table.source_names[table.sources[label]],
            )
        )
        compared.append((found[rule.counting(scores), :4], targets, sizes[i]))
    warnings += better_reading_of_sets(compared, (coordinates, box_format))
    groups = summarize_by_group(
        counts,
        [result['split'] for result in results],
        [result['source'] for result in results],
        rule,
    )
    sizes_of_groups = {k: int(v['num_expressions']) for k, v in groups.items()}
    return Evaluation(groups, sizes_of_groups, results, warnings)


def _rows_of_labels(
    table: LabelTable, predictions: Predictions, only_matched: bool
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The labels that are scored, the row of the prediction of each, and warnings."""
    rows, warnings = _match(table, predictions)
    missed = 'count as misses'
    if predictions.box_sets:
        missed = 'count as ones for which nothing is predicted'
    matched = rows >= 0
    if not matched.any():
        raise ValueError(_nothing_matches(table, predictions))
    if missing := int((~matched).sum()):
        first = np.flatnonzero(~matched)[:_NAMED]
        named = ', '.join(table.sample_ids[i] for i in first)
        warnings.append(
            f'{missing:,} of {len(table):,} labels have no prediction and '
            f'{"are left out" if only_matched else missed}: {named}'
            f'{", ..." if missing > _NAMED else ""}.'
        )
    indices = np.flatnonzero(matched) if only_matched else np.arange(len(table))
    return indices, rows[indices], warnings


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
    if not predictions.are_alike(rows):
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


def format_table(evaluation: Evaluation) -> str:
    """Scores as a table for people, a line for each group."""
    names = {name: name or 'all' for name in evaluation.groups}
    # A group may lack what it has no labels for, but all labels lack nothing.
    metrics = [m for m in evaluation.groups[''] if not m.startswith('num_')]
    width = max(len(name) for name in names.values())
    widths = {metric: max(8, len(metric)) for metric in metrics}

    def line(name: str, count: str, cells: Mapping[str, str]) -> str:
        columns = [f'{cells.get(m, "-"):>{widths[m]}}' for m in metrics]
        return '  '.join([f'{name:<{width}}', f'{count:>8}', *columns])

    return '\n'.join(
        [
            line('', 'labels', {metric: metric for metric in metrics}),
            *(
                line(
                    names[name],
                    f'{evaluation.counts[name]:,}',
                    {metric: f'{value:.4f}' for metric, value in group.items()},
                )
                for name, group in evaluation.groups.items()
            ),
        ]
    )
