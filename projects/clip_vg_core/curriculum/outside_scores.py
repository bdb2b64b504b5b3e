"""Reliability scores that were made elsewhere: a file of sample_id and probability."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..data.label_files import LabelFile
from ..data.readers.documents import open_document
from ..utils.atomic import file_sha256
from .reliability_file import ReliabilityFile

__all__ = ['mean_scores', 'read_outside_scores', 'write_outside_scores']

_COLUMNS = ('sample_id', 'probability')


def read_outside_scores(path: str | Path) -> dict[str, float]:
    """The probability of each label that it is right, by its ``sample_id``.

    Args:
        path (str or Path): CSV whose header has ``sample_id`` and ``probability``, or
            JSON Lines of such objects; other columns are passed over.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A row lacks one of them, its probability is not in [0, 1], or a
            ``sample_id`` occurs twice; it says which.
    """
    document = open_document(Path(path))
    scores: dict[str, float] = {}
    for number, row in document.rows():
        where = document.where(number)
        if not isinstance(row, dict) or any(row.get(c) is None for c in _COLUMNS):
            found = sorted(map(str, row)) if isinstance(row, dict) else row
            raise ValueError(
                f'{where}: found {str(found)[:200]}; expected a sample_id and a '
                'probability.'
            )
        name, value = (row[column] for column in _COLUMNS)
        try:
            score = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            score = math.nan
        if not 0 <= score <= 1:
            raise ValueError(
                f'{where}: probability is {value!r}; expected a number in [0, 1]. '
                'Logits or percents must be turned into probabilities first.'
            )
        if scores.setdefault(str(name), score) != score:
            raise ValueError(
                f'{where}: {name!r} had the probability {scores[str(name)]} before; '
                'expected each sample_id once.'
            )
    if not scores:
        raise ValueError(f'{path} has no rows of sample_id and probability.')
    return scores


def write_outside_scores(
    path: str | Path,
    sample_ids: Mapping[str, Sequence[str]],
    files: Sequence[LabelFile],
    folder: str | Path,
    name: str,
    overwrite: bool = False,
) -> None:
    """Write the scores of a file as reliability files, one for each source.

    Args:
        path (str or Path): See :func:`read_outside_scores`.
        sample_ids (Mapping[str, Sequence[str]]): Those of the labels of each source of
            the data set, in the order of its file.
        files (Sequence[LabelFile]): The sources to write.
        folder (str or Path): Output folder.
        name (str): Of the measurer.
        overwrite (bool): See :class:`ReliabilityFile`. Defaults to False.

    Raises:
        ValueError: A label is not in the file, or the file has one that no source has.
    """
    scores = read_outside_scores(path)
    for file in files:
        missing = [i for i in sample_ids[file.source] if i not in scores]
        if missing:
            raise ValueError(
                f'{path} has no probability of {missing[0]!r}, and of {len(missing):,} '
                f'of the {file.count:,} labels of {file.source!r} in all; expected '
                'every one. Give other sources by --sources, or score the rest.'
            )
    unknown = scores.keys() - {i for own in sample_ids.values() for i in own}
    if unknown:
        raise ValueError(
            f'{path} has the sample_id {min(unknown)!r}, and {len(unknown):,} in all, '
            f'that no label of {sorted(sample_ids)} has: it is of other labels.'
        )
    measurer = dict(name=name, sha256=file_sha256(path))
    for file in files:
        values = np.array([scores[i] for i in sample_ids[file.source]], np.float32)
        stored = ReliabilityFile(folder, measurer, file, overwrite=overwrite)
        stored.write(file.keys, values)
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
