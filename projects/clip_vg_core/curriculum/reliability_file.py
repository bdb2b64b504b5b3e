"""Reliability scores of labels on disk, joined with the labels by their keys."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..data.label_files import LabelFile
from ..utils.atomic import replacing
from ..utils.file_names import file_name

__all__ = [
    'AGREEMENT',
    'ZERO_SHOT',
    'KeyIndex',
    'ReliabilityFile',
    'describe_scores',
    'read_boxes',
    'read_keys',
    'read_outcomes',
    'read_reliability',
    'read_scored',
    'reliability_path',
    'source_of',
    'write_scores',
]

# Name of the measurer that is zero-shot CLIP matching.
AGREEMENT = 'agreement'
# And of the one that is zero-shot grounding.
ZERO_SHOT = 'zero_shot'


class KeyIndex:
    """Finds labels by their keys.

    Args:
        keys (np.ndarray): uint64 (N, ), one for each row of a table.
    """

    def __init__(self, keys: np.ndarray) -> None:
        self._order = np.argsort(keys, kind='stable')
        self._sorted = keys[self._order]

    def rows(self, keys: np.ndarray) -> np.ndarray:
        """Rows of the table with these keys, int64 of their shape; -1: not there."""
        if keys.dtype != np.uint64:
            raise TypeError(f'Keys of labels are uint64, got {keys.dtype}.')
        if not len(self._sorted):
            return np.full(keys.shape, -1, np.int64)
        # In ascending order a million searches stay in the processor's cache.
        order = np.argsort(keys)
        places = np.empty(keys.shape, np.int64)
        places[order] = np.searchsorted(self._sorted, keys[order])
        places = places.clip(max=len(self._sorted) - 1)
        return np.where(self._sorted[places] == keys, self._order[places], -1)


def reliability_path(folder: str | Path, measurer: str, source: str) -> Path:
    """Path of the scores of a source's labels under a measurer."""
    return Path(folder) / f'{file_name(measurer)}__{file_name(source)}.npy'


def read_reliability(path: str | Path, labels: LabelFile | None = None) -> np.ndarray:
    """Open a reliability file.

    Args:
        path (str or Path): ``<measurer>__<source>.npy``, its manifest beside it.
        labels (LabelFile, optional): Labels to get the scores of. They are joined by
            their keys, so the file may score others too, in any order. Defaults to
            None: not checked, all of the file in its order.

    Returns:
        np.ndarray: float32, one score for each label in the order of ``labels``, in
        [0, 1] or NaN (not scored); memory-mapped read-only where the file has just
        these.

    Raises:
        FileNotFoundError: The file or its manifest is missing.
        ValueError: They are damaged, or do not score all of the labels as they are.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f'{path}: no such reliability file. Make it with '
            'tools/score_reliability.py CONFIG CHECKPOINT --out-dir DIR.'
        )
    manifest = _read_manifest(path)
    values = _open_array(path, 'r', (manifest['labels']['count'],))
    invalid = np.flatnonzero((values < 0) | (values > 1))
    if len(invalid):
        raise ValueError(
            f'{path}, label {invalid[0]}: reliability {values[invalid[0]]}; expected '
            '[0, 1] or NaN.'
        )
    return _joined(path, manifest, values, labels)


def read_boxes(path: str | Path, labels: LabelFile | None = None) -> np.ndarray:
    """The boxes that were predicted for the labels of a reliability file.

    Args:
        path (str or Path): As of :func:`read_reliability`.
        labels (LabelFile, optional): As there.

    Returns:
        np.ndarray: float32 (N, 4), xyxy in pixels of the original image; NaN where
        none is known.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: They are damaged, or belong to other labels.
    """
    path = Path(path)
    manifest = _read_manifest(path)
    shape = (manifest['labels']['count'], 4)
    boxes = _open_array(_boxes_path(path), 'r', shape)
    return _joined(path, manifest, boxes, labels)


def read_outcomes(path: str | Path, labels: LabelFile | None = None) -> np.ndarray:
    """What a correction has made of the labels of a reliability file.

    Args:
        path (str or Path): As of :func:`read_reliability`.
        labels (LabelFile, optional): As there.

    Returns:
        np.ndarray: int8 (N, ) of :data:`.correction.KEPT`, ``MOVED`` and ``DROPPED``;
        -1 for labels that were not corrected.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: They are damaged, or belong to other labels.
    """
    path = Path(path)
    manifest = _read_manifest(path)
    shape = (manifest['labels']['count'],)
    outcomes = _open_array(_outcome_path(path), 'r', shape, np.int8)
    return _joined(path, manifest, outcomes, labels)


def source_of(path: str | Path) -> str:
    """Name of the source whose labels a reliability file scores.

    Raises:
        FileNotFoundError: Its manifest is missing.
        ValueError: Its manifest is damaged.
    """
    return _read_manifest(Path(path))['labels']['source']


def read_keys(path: str | Path) -> np.ndarray:
    """Keys of the labels of a reliability file, uint64 (N, ); none if not written."""
    return _load_keys(_keys_path(Path(path)))


def describe_scores(
    measurer: Mapping[str, Any], labels: LabelFile, transforms: list | None = None
) -> dict[str, Any]:
    """The manifest of a reliability file; see :class:`ReliabilityFile`."""
    manifest = dict(
        measurer=measurer,
        labels=labels.described(),
        transforms=transforms,
        keys='labels and images' if labels.add_image_bytes else 'labels',
    )
    # As it is read back, so that the two can be compared: JSON has no tuples.
    return json.loads(json.dumps(manifest, default=str))


def read_scored(
    path: Path, manifest: Mapping[str, Any], labels: LabelFile, overwrite: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """What is known of labels under a measurer.

    Args:
        path (Path): Of a reliability file, which need not exist.
        manifest (Mapping): Of :func:`describe_scores`.
        labels (LabelFile): N labels, which may be a part of those of the file.
        overwrite (bool): Whether scores of another measurer count as none. Defaults to
            False.

    Returns:
        tuple: Reliability (N, ) and predicted boxes (N, 4) xyxy, float32; NaN where
        not scored yet.

    Raises:
        ValueError: The file is of another measurer.
    """
    values, boxes = _unscored(labels.count), _unscored(labels.count, 4)
    if path.exists():
        stored = _read_manifest(path)
        if _is_of_same(path, stored, manifest, overwrite):
            _fill_in(path, stored, _rows(path, stored, labels), values, boxes)
    return values, boxes


def write_scores(
    path: Path,
    manifest: Mapping[str, Any],
    keys: np.ndarray,
    values: np.ndarray,
    boxes: np.ndarray,
) -> None:
    """Write a reliability file at once.

    Args:
        path (Path): The file.
        manifest (Mapping): Of :func:`describe_scores`.
        keys (np.ndarray): uint64 (N, ).
        values (np.ndarray): Reliability, float32 (N, ); NaN where not scored yet.
        boxes (np.ndarray): Predicted, xyxy, float32 (N, 4).
    """
    # Without keys no score counts, so a writer that is killed in between leaves
    # none that could be taken for another label's.
    keys_path = _keys_path(path)
    keys_path.unlink(missing_ok=True)
    _outcome_path(path).unlink(missing_ok=True)
    with replacing(_manifest_path(path)) as partial:
        partial.write_text(json.dumps(manifest, indent=2) + '\n', 'utf-8')
    _save(path, values)
    _save(_boxes_path(path), boxes)
    _save(keys_path, keys)


class ReliabilityFile:
    """Reliability scores of the labels of one file under one measurer, to write.

    Every score is on disk as soon as it is written, NaN before, so that the same
    command resumes an interrupted scoring. ``<measurer>__<source>.keys.npy`` has the
    keys of the labels: where labels have changed since, the scores of the unchanged
    ones stay, and the others are NaN again. ``<measurer>__<source>.boxes.npy`` has the
    predicted boxes, xyxy in pixels of the original image.

    Args:
        folder (str or Path): Output folder.
        measurer (dict): ``name``, and what else tells measurers apart:
            ``sha256``, ``config``, ``model_sha256`` (of the model's config),
            ``options``, ``candidates``.
        labels (LabelFile): The labels to score.
        transforms (list, optional): Of the test pipeline. Defaults to None.
        overwrite (bool): Whether scores of another measurer or other transforms are
            replaced. Defaults to False.

    Raises:
        ValueError: The folder has a file of this name for another measurer or other
            transforms.
    """

    def __init__(
        self,
        folder: str | Path,
        measurer: Mapping[str, Any],
        labels: LabelFile,
        transforms: list | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path = reliability_path(folder, measurer['name'], labels.source)
        self.boxes_path = _boxes_path(self.path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._labels = labels
        self._manifest = describe_scores(measurer, labels, transforms)
        values, boxes = _unscored(labels.count), _unscored(labels.count, 4)
        if not self.path.exists() or not self._resume(values, boxes, overwrite):
            write_scores(self.path, self._manifest, labels.keys, values, boxes)
        self.values = _open_array(self.path, 'r+', (labels.count,))
        self.boxes = _open_array(self.boxes_path, 'r+', (labels.count, 4))
        self._index = KeyIndex(labels.keys)

    def _resume(self, values: np.ndarray, boxes: np.ndarray, overwrite: bool) -> bool:
        """Whether the files can stay as they are; else fill in what they know."""
        stored = _read_manifest(self.path)
        if not _is_of_same(self.path, stored, self._manifest, overwrite):
            return False
        rows, count = _rows(self.path, stored, self._labels), stored['labels']['count']
        if stored.get('keys') == self._manifest['keys'] and _is_all(rows, count):
            if not self.boxes_path.exists():
                _save(self.boxes_path, boxes)
            return True
        _fill_in(self.path, stored, rows, values, boxes)
        return False

    def is_scored(self, keys: np.ndarray) -> np.ndarray:
        """Whether labels are scored, bool of the shape of their keys."""
        return ~np.isnan(self.values[self._rows_of(keys)])

    def write(
        self,
        keys: np.ndarray,
        reliability: np.ndarray,
        boxes: np.ndarray | None = None,
    ) -> None:
        """Store the scores of some labels.

        Args:
            keys (np.ndarray): uint64 (n, ), of :attr:`LabelFile.keys`.
            reliability (np.ndarray): In [0, 1], of shape (n, ).
            boxes (np.ndarray, optional): Predicted, xyxy, of shape (n, 4). Defaults
                to None: not known.
        """
        rows = self._rows_of(keys)
        # Boxes first: a label counts as scored when its reliability is there.
        if boxes is not None:
            self.boxes[rows] = boxes
        self.values[rows] = reliability

    def take_over(self, path: Path) -> None:
        """Store what another file knows of labels of this one.

        Args:
            path (Path): A reliability file of the same measurer.
        """
        count = _read_manifest(path)['labels']['count']
        keys = _load_keys(_keys_path(path))
        if len(keys) != count:  # its writer was killed before there was a score
            return
        values = _open_array(path, 'r', (count,))
        boxes = _open_array(_boxes_path(path), 'r', (count, 4))
        # An image may have changed since.
        known = (self._index.rows(keys) >= 0) & ~np.isnan(values)
        self.write(keys[known], values[known], boxes[known])

    def write_outcomes(self, keys: np.ndarray, outcomes: np.ndarray) -> None:
        """Store what a correction has made of some labels, and of no other one.

        Args:
            keys (np.ndarray): uint64 (n, ), of :attr:`LabelFile.keys`.
            outcomes (np.ndarray): int8 (n, ).
        """
        values = np.full(self._labels.count, -1, np.int8)
        values[self._rows_of(keys)] = outcomes
        _save(_outcome_path(self.path), values)

    def _rows_of(self, keys: np.ndarray) -> np.ndarray:
        rows = self._index.rows(keys)
        if (rows < 0).any():
            raise ValueError(
                f'{self.path}: {int((rows < 0).sum()):,} of {len(keys):,} keys are of '
                f'no label of {self._labels.file}.'
            )
        return rows

    def flush(self) -> None:
        """Put everything on disk."""
        self.boxes.flush()  # type: ignore[attr-defined]
        self.values.flush()  # type: ignore[attr-defined]


def _manifest_path(path: Path) -> Path:
    return path.with_suffix('.json')


def _boxes_path(path: Path) -> Path:
    return path.with_suffix('.boxes.npy')


def _keys_path(path: Path) -> Path:
    return path.with_suffix('.keys.npy')


def _outcome_path(path: Path) -> Path:
    return path.with_suffix('.outcome.npy')


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = _manifest_path(path)
    try:
        content = json.loads(manifest.read_text(encoding='utf-8'))
        LabelFile(**content['labels'], content=np.empty(0, np.uint64))
        return content
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'{manifest}: missing; it says which labels {path.name} belongs to. Score '
            'again with tools/score_reliability.py.'
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'{manifest} is no manifest of a reliability file ({error!r}): expected '
            'the JSON object that tools/score_reliability.py writes. Score again.'
        ) from error


def _is_of_same(
    path: Path, stored: Mapping[str, Any], manifest: Mapping[str, Any], overwrite: bool
) -> bool:
    """Whether a file is of the same measurer and transforms, as it must be to stay."""
    for what, before, now in _differences(stored, manifest):
        if overwrite:
            return False
        raise ValueError(
            f'{path} was made for {what} {before!r}, now it is {now!r}. Use the file '
            'that belongs to it, another folder, or --overwrite.'
        )
    return True


def _fill_in(
    path: Path,
    stored: Mapping[str, Any],
    rows: np.ndarray,
    values: np.ndarray,
    boxes: np.ndarray,
) -> None:
    """Put the scores and boxes of some rows of a file, -1 for none, into arrays."""
    known, count = rows >= 0, stored['labels']['count']
    values[known] = _open_array(path, 'r', (count,))[rows[known]]
    if _boxes_path(path).exists():
        boxes[known] = _open_array(_boxes_path(path), 'r', (count, 4))[rows[known]]


def _differences(
    stored: Mapping[str, Any], manifest: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """What must be equal for a scoring to be resumed and is not: before and now."""
    for key in ('sha256', 'config', 'model_sha256', 'options', 'candidates'):
        before, now = (m['measurer'].get(key) for m in (stored, manifest))
        # Manifests of version 0.1 do not have it.
        if before != now and not (key == 'model_sha256' and before is None):
            yield f'a measurer of {key}', before, now
    before, now = stored['transforms'], manifest['transforms']
    if now not in (before, _as_run_in_0_1(before)):
        yield 'transforms', before, now


def _as_run_in_0_1(transforms: Any) -> Any:
    """Transforms in a manifest of version 0.1, as that version ran them.

    Its data set built ``LoadImageFromFile`` as ``LoadGroundingImage``, which our
    configs name behind it since.
    """
    if not isinstance(transforms, list):
        return transforms
    kinds = [s.get('type') if isinstance(s, dict) else None for s in transforms]
    if 'LoadImageFromFile' not in kinds or 'LoadGroundingImage' in kinds:
        return transforms
    place = kinds.index('LoadImageFromFile') + 1
    return [*transforms[:place], {'type': 'LoadGroundingImage'}, *transforms[place:]]


def _rows(path: Path, manifest: Mapping[str, Any], labels: LabelFile) -> np.ndarray:
    """Rows of a file that score the labels, int64 (count, ), -1 where none does."""
    kind = manifest.get('keys')  # None in files of version 0.1
    if kind is None or (kind == 'labels and images' and not labels.add_image_bytes):
        # Names are all that can be compared.
        _check_names(path, manifest['labels'], labels)
        return np.arange(labels.count)
    keys = labels.content if kind == 'labels' else labels.keys
    stored = _load_keys(_keys_path(path))
    if np.array_equal(stored, keys):  # the usual case, without a sort
        return np.arange(labels.count)
    return KeyIndex(stored).rows(keys)


def _is_all(rows: np.ndarray, count: int) -> bool:
    """Whether these are all rows of a file, in order."""
    return np.array_equal(rows, np.arange(count))


def _check_names(path: Path, stored: Mapping[str, Any], labels: LabelFile) -> None:
    before, now = stored['sample_ids_sha256'], labels.sample_ids_sha256
    if (stored['count'], before) != (labels.count, now):
        raise ValueError(
            f'{path} scores {stored["count"]:,} labels of {stored["file"]} (sample_ids '
            f'{before[:12]}), not the {labels.count:,} labels of {labels.file} '
            f'(sample_ids {now[:12]}): the label file has changed or is another one. '
            'Score it anew.'
        )


def _load_keys(path: Path) -> np.ndarray:
    """The keys of a file; none where a writer was killed before it wrote them."""
    if not path.is_file():
        return np.empty(0, np.uint64)
    try:
        keys = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        keys = error
    if getattr(keys, 'dtype', None) != np.uint64:
        raise ValueError(
            f'{path} ({path.stat().st_size:,} bytes) has no keys of labels: {keys}. '
            'Remove it and score again.'
        )
    return keys


def _joined(
    path: Path,
    manifest: Mapping[str, Any],
    values: np.ndarray,
    labels: LabelFile | None,
) -> np.ndarray:
    """The rows of a file that belong to some labels, in their order."""
    if labels is None:
        return values
    rows = _rows(path, manifest, labels)
    missing = np.flatnonzero(rows < 0)
    if len(missing):
        raise ValueError(
            f'{path} does not score {len(missing):,} of the {labels.count:,} labels of '
            f'{labels.file}, e.g. number {missing[:5].tolist()} (from 0): their '
            'sample_id, image, expression or box has changed since, or they are new. '
            'Score them with the tools/score_reliability.py command that made it.'
        )
    # A copy of just these, or the mapped file as it is.
    return values if _is_all(rows, len(values)) else values[rows]


def _open_array(
    path: Path,
    mode: Literal['r', 'r+'],
    shape: tuple[int, ...],
    dtype: type = np.float32,
) -> np.ndarray:
    try:
        # Read-only first: 'r+' would fill up a truncated file with zeros.
        values = np.load(path, mmap_mode='r', allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        if not path.is_file():
            raise FileNotFoundError(f'{path}: no such reliability file.') from error
        raise ValueError(
            f'{path} ({path.stat().st_size:,} bytes) cannot be read as a NumPy array: '
            f'{error}. Remove it and score again.'
        ) from error
    kind = (getattr(values, 'dtype', None), getattr(values, 'shape', None))
    if kind != (dtype, shape):
        raise ValueError(
            f'{path} holds {kind[0]} of shape {kind[1]}; its manifest says '
            f'{shape[0]:,} labels: expected {np.dtype(dtype)} of shape {shape}. Remove '
            'it and score again.'
        )
    return values if mode == 'r' else np.load(path, mmap_mode='r+', allow_pickle=False)


def _unscored(*shape: int) -> np.ndarray:
    return np.full(shape, np.nan, np.float32)


def _save(path: Path, array: np.ndarray) -> None:
    with replacing(path) as partial:
        np.save(partial, array)
