"""Reliability beside the labels: a memory-mapped array and what it belongs to."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..utils.atomic import replacing
from ..utils.file_names import file_name

__all__ = [
    'LabelFile',
    'ReliabilityFile',
    'file_sha256',
    'read_boxes',
    'read_reliability',
    'reliability_path',
    'source_of',
]


@dataclass(frozen=True)
class LabelFile:
    """What a reliability file belongs to.

    Args:
        file (str): Name of the label file.
        source (str): Name of the source.
        split (str, optional): The split that was read; None: all of the file.
        count (int): Labels read, in the file's order, wrong boxes included.
        sample_ids_sha256 (str): Of their ``sample_id``, each followed by a newline.
        content (np.ndarray, optional): uint64 (count, ), a key of each label's name,
            image name, expression and box. Defaults to None: not known.
        add_image_bytes (Callable, optional): Makes of these keys those that depend on
            the bytes of the images as well. Defaults to None: the images are not known.
    """

    file: str
    source: str
    split: str | None
    count: int
    sample_ids_sha256: str
    content: np.ndarray | None = field(default=None, compare=False, repr=False)
    add_image_bytes: Callable[[np.ndarray], np.ndarray] | None = field(
        default=None, compare=False, repr=False
    )

    def described(self) -> dict[str, Any]:
        """What a manifest says of it."""
        keys = ('file', 'source', 'split', 'count', 'sample_ids_sha256')
        return {key: getattr(self, key) for key in keys}

    @cached_property
    def keys(self) -> np.ndarray | None:
        """One uint64 for each label: another where it or its image has changed."""
        if self.content is None or self.add_image_bytes is None:
            return self.content
        return self.add_image_bytes(self.content)

    @property
    def fingerprint(self) -> str:
        """Of all that the labels say, and of their images where these are known."""
        if self.keys is None:
            return self.sample_ids_sha256
        return hashlib.sha256(self.keys.tobytes()).hexdigest()


def file_sha256(path: str | Path) -> str:
    """The sha256 of a file's content."""
    digest = hashlib.sha256()
    with Path(path).open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def reliability_path(folder: str | Path, measurer: str, source: str) -> Path:
    """Where a measurer's word on a source is."""
    return Path(folder) / f'{file_name(measurer)}__{file_name(source)}.npy'


def _manifest_path(path: Path) -> Path:
    return path.with_suffix('.json')


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = _manifest_path(path)
    try:
        found = json.loads(manifest.read_text(encoding='utf-8'))
        LabelFile(**found['labels'])
        return found
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


def _as_read(value: Any) -> Any:
    """As it comes back from a manifest."""
    return json.loads(json.dumps(value, default=str))


def _check(path: Path, what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise ValueError(
            f'{path} was made for {what} {found!r}, now asked for with {expected!r}. '
            'Use the file that belongs to it, another folder, or --overwrite.'
        )


def _check_names(path: Path, manifest: Mapping[str, Any], labels: LabelFile) -> None:
    """All that can be compared where the keys are not known."""
    found = LabelFile(**manifest['labels'])
    if (found.count, found.sample_ids_sha256) != (
        labels.count,
        labels.sample_ids_sha256,
    ):
        raise ValueError(
            f'{path} scores {found.count:,} labels of {found.file} (sample_ids '
            f'{found.sample_ids_sha256[:12]}), not the {labels.count:,} labels of '
            f'{labels.file} (sample_ids {labels.sample_ids_sha256[:12]}): the label '
            'file has changed or is another one. Score it anew.'
        )


def _keys_path(path: Path) -> Path:
    return path.with_suffix('.keys.npy')


def _load_keys(path: Path) -> np.ndarray:
    """The keys of a file; none where there is none."""
    if not path.is_file():
        return np.zeros(0, np.uint64)
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


def _rows(
    path: Path, manifest: Mapping[str, Any], labels: LabelFile
) -> np.ndarray | None:
    """Where a file has the labels: int64, -1 where it has not; None: all in order."""
    images = manifest.get('keys')  # of what: 'labels', or 'labels and images'
    keys = labels.content if images == 'labels' else labels.keys
    unknown = images == 'labels and images' and labels.add_image_bytes is None
    if images is None or keys is None or unknown:
        _check_names(path, manifest, labels)
        return None
    # A writer was killed before it wrote the keys: nothing is believed.
    known = _load_keys(_keys_path(path))
    if np.array_equal(known, keys):
        return None
    order = np.argsort(known, kind='stable')
    places = np.searchsorted(known, keys, sorter=order)
    rows = np.full(len(keys), -1, np.int64)
    inside = places < len(known)
    candidates = order[places[inside]]
    same = known[candidates] == keys[inside]
    rows[np.flatnonzero(inside)[same]] = candidates[same]
    return rows


def _refuse_missing(path: Path, rows: np.ndarray, labels: LabelFile) -> None:
    missing = np.flatnonzero(rows < 0)
    if len(missing):
        raise ValueError(
            f'{path} does not score {len(missing):,} of the {labels.count:,} labels of '
            f'{labels.file}, e.g. at its places {missing[:5].tolist()} (from 0): their '
            'name, image, expression or box has changed since, or they are new. Score '
            'them with the tools/score_reliability.py command that made it.'
        )


def _load(path: Path, mode: Literal['r', 'r+'], shape: tuple[int, ...]) -> np.ndarray:
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
    found = (getattr(values, 'dtype', None), getattr(values, 'shape', None))
    if found != (np.float32, shape):
        raise ValueError(
            f'{path} holds {found[0]} of shape {found[1]}; its manifest says '
            f'{shape[0]:,} labels: expected float32 of shape {shape}. Remove it and '
            'score again.'
        )
    return values if mode == 'r' else np.load(path, mmap_mode='r+', allow_pickle=False)


def read_reliability(path: str | Path, labels: LabelFile | None = None) -> np.ndarray:
    """Open a reliability file.

    Args:
        path (str or Path): ``<measurer>__<source>.npy``, its manifest beside it.
        labels (LabelFile, optional): Whose reliability is asked for. Labels are found
            by their keys, so the file may score others too, in any order. Defaults to
            None: not checked, all of the file in its order.

    Returns:
        np.ndarray: float32, one value for each label in its order, in [0, 1] or NaN
        (not scored); memory-mapped read-only where the file has just these.

    Raises:
        FileNotFoundError: The file or its manifest is missing.
        ValueError: They are damaged, or do not score all of the labels as they are.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f'{path}: no such reliability file. Make it with '
            'tools/score_reliability.py CONFIG CHECKPOINT --out DIR.'
        )
    manifest = _read_manifest(path)
    values = _load(path, 'r', (manifest['labels']['count'],))
    if ((values < 0) | (values > 1)).any():
        wrong = int(np.flatnonzero((values < 0) | (values > 1))[0])
        raise ValueError(
            f'{path}, label {wrong}: reliability {values[wrong]}; expected [0, 1] or '
            'NaN.'
        )
    return _of_labels(path, manifest, values, labels)


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
    boxes = _load(path.with_suffix('.boxes.npy'), 'r', (manifest['labels']['count'], 4))
    return _of_labels(path, manifest, boxes, labels)


def _of_labels(
    path: Path,
    manifest: Mapping[str, Any],
    values: np.ndarray,
    labels: LabelFile | None,
) -> np.ndarray:
    """The rows of a file that belong to some labels, in their order."""
    rows = None if labels is None else _rows(path, manifest, labels)
    if rows is None or labels is None:
        return values
    _refuse_missing(path, rows, labels)
    return values[rows]


def source_of(path: str | Path) -> str:
    """The source whose labels a reliability file scores.

    Raises:
        FileNotFoundError: Its manifest is missing.
        ValueError: Its manifest is damaged.
    """
    return _read_manifest(Path(path))['labels']['source']


def _compared(
    found: Mapping[str, Any], manifest: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """What must be equal to go on, before and now."""
    for key in ('sha256', 'config', 'model_sha256', 'options', 'candidates'):
        before, now = (m['measurer'].get(key) for m in (found, manifest))
        # Earlier versions did not write it.
        if key != 'model_sha256' or before is not None:
            yield f'a measurer of {key}', before, now
    before, now = found['transforms'], manifest['transforms']
    yield 'transforms', before if before == now else _as_run(before), now


def _as_run(transforms: Any) -> Any:
    """What a manifest of version 0.1 says of transforms, as they were run.

    The data set built ``LoadImageFromFile`` as ``LoadGroundingImage``, which our
    configs name behind it since.
    """
    if not isinstance(transforms, list):
        return transforms
    kinds = [s.get('type') if isinstance(s, dict) else None for s in transforms]
    if 'LoadImageFromFile' not in kinds or 'LoadGroundingImage' in kinds:
        return transforms
    place = kinds.index('LoadImageFromFile') + 1
    return [*transforms[:place], {'type': 'LoadGroundingImage'}, *transforms[place:]]


class ReliabilityFile:
    """Reliability of the labels of one file under one measurer, being written.

    What is written is on disk at once, NaN where nothing is yet, so that an
    interrupted scoring goes on where it was. In ``<measurer>__<source>.keys.npy`` is a
    key of each label: where labels have changed since, what was scored of the unchanged
    ones is kept, and the others are NaN again. In ``<measurer>__<source>.boxes.npy``
    are the predicted boxes, xyxy in pixels of the original image.

    Args:
        folder (str or Path): Where to.
        measurer (dict): ``name``, and what else tells measurers apart:
            ``sha256``, ``config``, ``model_sha256`` (of the model's config),
            ``options``, ``candidates``.
        labels (LabelFile): What is scored.
        transforms (list, optional): Of the test pipeline. Defaults to None.
        overwrite (bool): Whether a file of another measurer or other transforms is
            begun anew. Defaults to False.

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
        self.boxes_path = self.path.with_suffix('.boxes.npy')
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kind = 'labels and images' if labels.add_image_bytes else 'labels'
        manifest = dict(
            measurer=_as_read(measurer),
            labels=labels.described(),
            transforms=_as_read(transforms),
            keys=kind if labels.keys is not None else None,
        )
        there = self.path.exists()
        if there and (not overwrite or self._fits(_read_manifest(self.path), manifest)):
            self._go_on(manifest, labels)
        else:
            self._begin(manifest, labels)
        self.values = _load(self.path, 'r+', (labels.count,))
        self.boxes = _load(self.boxes_path, 'r+', (labels.count, 4))

    @staticmethod
    def _fits(found: Mapping[str, Any], manifest: Mapping[str, Any]) -> bool:
        """Whether a file is of the same measurer and transforms."""
        return all(before == now for _, before, now in _compared(found, manifest))

    def _go_on(self, manifest: dict[str, Any], labels: LabelFile) -> None:
        """Take over what is known of these labels."""
        found = _read_manifest(self.path)
        for what, before, now in _compared(found, manifest):
            _check(self.path, what, before, now)
        rows = _rows(self.path, found, labels)
        if rows is None and found.get('keys') == manifest['keys']:
            if not self.boxes_path.exists():
                _create(self.boxes_path, (labels.count, 4))
            return
        if rows is None:  # of an earlier version: names are all that can be compared
            rows = np.arange(labels.count)
        count = found['labels']['count']
        values = np.array(_load(self.path, 'r', (count,)))
        boxes = np.full((count, 4), np.nan, np.float32)
        if self.boxes_path.exists():
            boxes = np.array(_load(self.boxes_path, 'r', (count, 4)))
        kept = np.flatnonzero(rows >= 0)
        self._begin(manifest, labels, (kept, values[rows[kept]], boxes[rows[kept]]))

    def _begin(
        self,
        manifest: dict[str, Any],
        labels: LabelFile,
        known: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
    ) -> None:
        """Write all files, the keys last: without them nothing is believed."""
        keys = _keys_path(self.path)
        keys.unlink(missing_ok=True)
        with replacing(_manifest_path(self.path)) as partial:
            partial.write_text(json.dumps(manifest, indent=2) + '\n', 'utf-8')
        places, values, boxes = known or (None, None, None)
        _create(self.path, (labels.count,), places, values)
        _create(self.boxes_path, (labels.count, 4), places, boxes)
        if labels.keys is not None:
            with replacing(keys) as partial:
                np.save(partial, labels.keys)

    def write(
        self,
        rows: np.ndarray,
        reliability: np.ndarray,
        boxes: np.ndarray | None = None,
    ) -> None:
        """Keep some labels' values.

        Args:
            rows (np.ndarray): Their places in the label file.
            reliability (np.ndarray): In [0, 1], of the same shape.
            boxes (np.ndarray, optional): Predicted, xyxy, of shape (n, 4). Defaults
                to None: not known.
        """
        # Boxes first: a label counts as scored when its reliability is there.
        if boxes is not None:
            self.boxes[rows] = boxes
        self.values[rows] = reliability

    def flush(self) -> None:
        """Put everything on disk."""
        self.boxes.flush()  # type: ignore[attr-defined]
        self.values.flush()  # type: ignore[attr-defined]


def _create(
    path: Path,
    shape: tuple[int, ...],
    places: np.ndarray | None = None,
    values: np.ndarray | None = None,
) -> None:
    """Write an array of NaN, but for the values at some places."""
    with replacing(path) as partial:
        array = np.lib.format.open_memmap(partial, 'w+', np.float32, shape)
        array[:] = np.nan
        if places is not None:
            array[places] = values
        array.flush()
