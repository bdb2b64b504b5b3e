"""Reliability beside the labels: a memory-mapped array and what it belongs to."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..atomic import replacing
from ..file_names import file_name

__all__ = [
    'LabelFile',
    'ReliabilityFile',
    'file_sha256',
    'read_reliability',
    'reliability_path',
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
    """

    file: str
    source: str
    split: str | None
    count: int
    sample_ids_sha256: str


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
            'Use the file that belongs to it, or another folder.'
        )


def _check_labels(path: Path, manifest: Mapping[str, Any], labels: LabelFile) -> None:
    found = LabelFile(**manifest['labels'])
    described = f'{labels.count:,} labels of {labels.file}'
    if (found.count, found.sample_ids_sha256) != (
        labels.count,
        labels.sample_ids_sha256,
    ):
        raise ValueError(
            f'{path} scores {found.count:,} labels of {found.file} (sample_ids '
            f'{found.sample_ids_sha256[:12]}), not the {described} (sample_ids '
            f'{labels.sample_ids_sha256[:12]}): the label file has changed or is '
            'another one. Score it anew.'
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
        labels (LabelFile, optional): What it must belong to. Defaults to None: not
            checked.

    Returns:
        np.ndarray: float32, one value for each label of the file in its order, in
        [0, 1] or NaN (not scored), memory-mapped read-only.

    Raises:
        FileNotFoundError: The file or its manifest is missing.
        ValueError: They are damaged, or belong to other labels; it names both.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f'{path}: no such reliability file. Make it with '
            'tools/score_reliability.py CONFIG CHECKPOINT --out DIR.'
        )
    manifest = _read_manifest(path)
    if labels is not None:
        _check_labels(path, manifest, labels)
    values = _load(path, 'r', (manifest['labels']['count'],))
    if ((values < 0) | (values > 1)).any():
        wrong = int(np.flatnonzero((values < 0) | (values > 1))[0])
        raise ValueError(
            f'{path}, label {wrong}: reliability {values[wrong]}; expected [0, 1] or '
            'NaN.'
        )
    return values


class ReliabilityFile:
    """Reliability of the labels of one file under one measurer, being written.

    What is written is on disk at once, NaN where nothing is yet, so that an
    interrupted scoring goes on where it was. The predicted boxes are kept beside it
    in ``<measurer>__<source>.boxes.npy``, xyxy in pixels of the original image.

    Args:
        folder (str or Path): Where to.
        measurer (dict): ``name``, and what else tells measurers apart:
            ``sha256``, ``config``, ``options``, ``candidates``.
        labels (LabelFile): What is scored.
        transforms (list, optional): Of the test pipeline. Defaults to None.

    Raises:
        ValueError: The folder has a file of this name for another measurer, other
            labels or other transforms.
    """

    def __init__(
        self,
        folder: str | Path,
        measurer: Mapping[str, Any],
        labels: LabelFile,
        transforms: list | None = None,
    ) -> None:
        self.path = reliability_path(folder, measurer['name'], labels.source)
        self.boxes_path = self.path.with_suffix('.boxes.npy')
        self.path.parent.mkdir(parents=True, exist_ok=True)
        manifest = dict(
            measurer=_as_read(measurer),
            labels=asdict(labels),
            transforms=_as_read(transforms),
        )
        if self.path.exists():
            found = _read_manifest(self.path)
            _check_labels(self.path, found, labels)
            for key in ('sha256', 'config', 'options', 'candidates'):
                _check(
                    self.path,
                    f'a measurer of {key}',
                    found['measurer'].get(key),
                    manifest['measurer'].get(key),
                )
            _check(self.path, 'transforms', found['transforms'], manifest['transforms'])
        else:
            with replacing(_manifest_path(self.path)) as partial:
                partial.write_text(json.dumps(manifest, indent=2) + '\n', 'utf-8')
            _create(self.path, (labels.count,))
            self.boxes_path.unlink(missing_ok=True)
        if not self.boxes_path.exists():
            _create(self.boxes_path, (labels.count, 4))
        self.values = _load(self.path, 'r+', (labels.count,))
        self.boxes = _load(self.boxes_path, 'r+', (labels.count, 4))

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


def _create(path: Path, shape: tuple[int, ...]) -> None:
    with replacing(path) as partial:
        array = np.lib.format.open_memmap(partial, 'w+', np.float32, shape)
        array[:] = np.nan
        array.flush()
