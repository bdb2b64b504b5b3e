"""Reliability scores that were made elsewhere: a file of sample_id and probability."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.label_files import LabelFile
from ..data.readers.documents import open_document
from ..metrics.accuracy import aligned_ious
from ..utils.atomic import file_sha256
from .reliability_file import ReliabilityFile

__all__ = [
    'mean_scores',
    'read_outside_predictions',
    'read_outside_scores',
    'write_outside_scores',
]

_SCORE, _BOX = 'probability', 'bbox'


def read_outside_scores(path: str | Path) -> dict[str, float]:
    """The probability of each label that it is right, by its ``sample_id``.

    Args:
        path (str or Path): As of :func:`read_outside_predictions`.

    Returns:
        dict[str, float]: NaN where a row has a box alone.
    """
    return {name: score for name, (score, _) in read_outside_predictions(path).items()}


def read_outside_predictions(
    path: str | Path,
) -> dict[str, tuple[float, tuple[float, ...]]]:
    """What something else predicts for labels, by their ``sample_id``.

    Args:
        path (str or Path): CSV with a header, or JSON Lines, of ``sample_id`` and
            ``probability`` that the label is right, or ``bbox``, the box that the
            expression means, xyxy in pixels (in CSV four numbers in a cell), or both;
            other columns are passed over.

    Returns:
        dict: Probability in [0, 1] and box of each; NaN where there is none.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A row lacks them, its probability is not in [0, 1], its box is
            none, or a ``sample_id`` occurs twice; it says which.
    """
    document = open_document(Path(path))
    predictions: dict[str, tuple[float, tuple[float, ...]]] = {}
    for number, row in document.rows():
        where = document.where(number)
        name, score, box = (
            (row.get(column) for column in ('sample_id', _SCORE, _BOX))
            if isinstance(row, dict)
            else (None, None, None)
        )
        if name is None or (score is None and box is None):
            found = sorted(map(str, row)) if isinstance(row, dict) else row
            raise ValueError(
                f'{where}: found {str(found)[:200]}; expected a sample_id and a '
                f'{_SCORE}, or a {_BOX}.'
            )
        has_box = box not in (None, '')
        read = (
            math.nan if has_box and score in (None, '') else _probability(score, where),
            _box(box, where) if has_box else (math.nan,) * 4,
        )
        before = predictions.setdefault(str(name), read)
        if not np.array_equal(_flat(before), _flat(read), equal_nan=True):
            raise ValueError(
                f'{where}: {name!r} had {_SCORE} and {_BOX} {before} before; expected '
                'each sample_id once.'
            )
    if not predictions:
        raise ValueError(f'{path} has no rows of sample_id and {_SCORE} or {_BOX}.')
    return predictions


def _flat(prediction: tuple[float, tuple[float, ...]]) -> list[float]:
    return [prediction[0], *prediction[1]]


def _probability(value: Any, where: str) -> float:
    try:
        score = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        score = math.nan
    if not 0 <= score <= 1:
        raise ValueError(
            f'{where}: probability is {value!r}; expected a number in [0, 1]. '
            'Logits or percents must be turned into probabilities first.'
        )
    return score


def _box(value: Any, where: str) -> tuple[float, ...]:
    parts = value
    if isinstance(value, str):
        parts = re.split(r'[\s,;]+', value.strip('[]() '))
    try:
        box = tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        box = ()
    is_box = len(box) == 4 and all(map(math.isfinite, box))
    if not is_box or box[2] <= box[0] or box[3] <= box[1]:
        raise ValueError(
            f'{where}: bbox is {str(value)[:200]!r}; expected x1, y1, x2, y2 in pixels '
            'of the image, x1 < x2 and y1 < y2.'
        )
    return box


def write_outside_scores(
    path: str | Path,
    labels: Mapping[str, tuple[Sequence[str], np.ndarray, np.ndarray]],
    files: Sequence[LabelFile],
    folder: str | Path,
    name: str,
    overwrite: bool = False,
) -> None:
    """Write the scores of a file as reliability files, one for each source.

    Args:
        path (str or Path): See :func:`read_outside_predictions`. Where it has a box
            alone, its IoU with the label's box is the score.
        labels (Mapping[str, tuple]): Of each source of the data set: the sample_ids of
            its n labels, their keys (n, ), and their boxes (n, 4), xyxy in pixels.
        files (Sequence[LabelFile]): The sources to write.
        folder (str or Path): Output folder.
        name (str): Of the measurer.
        overwrite (bool): See :class:`ReliabilityFile`. Defaults to False.

    Raises:
        ValueError: A label is not in the file, or the file has one that no source has.
    """
    scores = read_outside_predictions(path)
    for file in files:
        names = labels[file.source][0]
        missing = [name for name in names if name not in scores]
        if missing:
            raise ValueError(
                f'{path} has no probability of {missing[0]!r}, and of {len(missing):,} '
                f'of the {len(names):,} labels of {file.source!r} in all; expected '
                'every one. Give other sources by --sources, or score the rest.'
            )
    unknown = scores.keys() - {i for own, *_ in labels.values() for i in own}
    if unknown:
        raise ValueError(
            f'{path} has the sample_id {min(unknown)!r}, and {len(unknown):,} in all, '
            f'that no label of {sorted(labels)} has: it is of other labels.'
        )
    measurer = dict(name=name, sha256=file_sha256(path))
    for file in files:
        names, keys, boxes = labels[file.source]
        read = [scores[name] for name in names]
        values = np.array([score for score, _ in read], np.float32)
        predicted = np.array([box for _, box in read], np.float32)
        values = np.where(np.isnan(values), aligned_ious(predicted, boxes), values)
        stored = ReliabilityFile(folder, measurer, file, overwrite=overwrite)
        stored.write(keys, values, predicted)
        stored.flush()


def mean_scores(
    tables: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Mean reliability of several measurers, and the boxes of the first.

    Args:
        tables (Sequence[tuple]): Reliability (N, ) and predicted boxes (N, 4) of each.

    Returns:
        tuple: The same; NaN where one of them has not scored a label.
    """
    return np.mean([values for values, _ in tables], axis=0), tables[0][1]
