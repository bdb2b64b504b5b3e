"""Results of a long job as JSON lines, continued after a stop."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .atomic import replacing

__all__ = [
    'append_line',
    'bind',
    'describe_changes',
    'origin_path',
    'read_journal',
    'resumable_map',
]


def origin_path(path: Path) -> Path:
    """File beside ``path`` that holds what ``path`` was made from."""
    return path.with_name(f'{path.name}.origin.json')


def bind(path: Path, origin: Mapping[str, Any], overwrite: bool = False) -> None:
    """Continue with a file only if it was made from the same inputs.

    Args:
        path (Path): The file, which need not exist.
        origin (Mapping[str, Any]): What decides its content, as JSON: hashes rather
            than names.
        overwrite (bool): Whether a file of another origin is removed, to be made
            anew. Defaults to False.

    Raises:
        ValueError: It was made from other inputs, or has no record of them.
    """
    beside = origin_path(path)
    # As it will be read again: tuples become lists, keys texts.
    origin = json.loads(json.dumps(origin))
    # An empty file holds nothing that could be of another origin.
    if path.exists() and path.stat().st_size:
        known = _read_origin(beside)
        changes = describe_changes(known, origin)
        if not changes:
            return
        if not overwrite:
            raise ValueError(
                f'{path} was made from something else: {changes}. Use what it was made '
                'from, name another output, or say --overwrite to make it anew.'
            )
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(beside) as partial:
        partial.write_text(json.dumps(origin, indent=1) + '\n', encoding='utf-8')


def _read_origin(path: Path) -> dict[str, Any]:
    """What is recorded there; nothing if the file is missing or damaged."""
    try:
        origin = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}
    return origin if isinstance(origin, dict) else {}


def describe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs: 'start was 0.5, is 0.4; labels.one was a3..., is 7f...', or ''."""
    # A key that an earlier version did not write is as one of None.
    before, now = _flat(before), _flat(now)
    return '; '.join(
        f'{key} was {_short(before.get(key))}, is {_short(now.get(key))}'
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    )


def _flat(values: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """The values of nested mappings by their path."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(_flat(value, f'{prefix}{key}.'))
        else:
            flat[f'{prefix}{key}'] = value
    return flat


def _short(value: Any) -> str:
    text = 'unknown' if value is None else str(value)
    # Hashes are told apart by their beginnings.
    return text if len(text) <= 40 else f'{text[:16]}...'


def _count_whole_lines(path: Path, total: int = 0, batch_size: int = 1) -> int:
    """Number of lines in whole batches; what a kill left after them is cut off.

    The last of ``total`` lines ends a batch as well.
    """
    if not path.exists():
        return 0
    count = end = whole = whole_end = 0
    with path.open('rb') as file:
        for line in file:
            if not line.endswith(b'\n'):
                break
            count, end = count + 1, end + len(line)
            if count % batch_size == 0 or count == total:
                whole, whole_end = count, end
    os.truncate(path, whole_end)
    return whole


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Append a JSON line, which is on disk when this returns."""
    with path.open('a', encoding='utf-8') as file:
        file.write(json.dumps(line) + '\n')
        file.flush()
        # A step that is noted must be over also after a power failure.
        os.fsync(file.fileno())


def read_journal(path: Path, settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Finished steps of a job; begins its journal if there is none.

    The first line of the journal has the settings, each other one a finished step.

    Args:
        path (Path): The JSON lines, in a folder that the caller has locked.
        settings (Mapping): What decides the results, as JSON.

    Returns:
        dict[str, dict]: Line of each step by its name, ``step``.

    Raises:
        ValueError: It was begun with other settings, or is damaged.
    """
    settings = json.loads(json.dumps(settings))
    if not _count_whole_lines(path):
        append_line(path, dict(settings=settings))
    lines = []
    for number, text in enumerate(path.read_text('utf-8').splitlines(), 1):
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError as error:
            raise ValueError(
                f'{path}, line {number} is not valid JSON: {error}. Remove this line '
                'and those after it; their steps are repeated.'
            ) from error
    if changes := describe_changes(lines[0].get('settings', {}), settings):
        raise ValueError(
            f'{path} was begun with other settings: {changes}. Use another --work-dir, '
            'the settings it was begun with, or --overwrite.'
        )
    return {line['step']: line for line in lines[1:]}


def resumable_map(
    path: Path,
    items: Sequence[str],
    predict: Callable[[Sequence[str]], Iterable[Any]],
    batch_size: int,
    what: str,
    hidden: bool = False,
    origin: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Iterator[Any]:
    """Predict each item once, save the predictions, and continue after a kill.

    Args:
        path (Path): The JSON lines.
        items (Sequence[str]): In a fixed order.
        predict (Callable): Gives one JSON-able prediction for each item of a batch.
        batch_size (int): Items of a batch.
        what (str): Name of the progress bar.
        hidden (bool): Whether to show no bar. Defaults to False.
        origin (Mapping, optional): What decides the predictions, see :func:`bind`.
            Defaults to None: nothing that could change.
        overwrite (bool): Whether predictions of another origin are made anew. Defaults
            to False.

    Yields:
        Any: The predictions, in the order of the items, those of earlier runs included.

    Raises:
        ValueError: There are predictions of another origin.
    """
    bind(path, origin or {}, overwrite)
    # The same batches as without a stop: predictions depend on them by rounding.
    start = _count_whole_lines(path, len(items), batch_size)
    with (
        tqdm(total=len(items), initial=start, desc=what, disable=hidden) as bar,
        path.open('a', encoding='utf-8') as file,
    ):
        for first in range(start, len(items), batch_size):
            batch = items[first : first + batch_size]
            for prediction in predict(batch):
                file.write(json.dumps(prediction) + '\n')
            # A kill loses the predictions of one batch at most.
            file.flush()
            bar.update(len(batch))
    # From the file alone, so that a resumed run yields what an uninterrupted one does.
    with path.open(encoding='utf-8') as file:
        for line in file:
            yield json.loads(line)
