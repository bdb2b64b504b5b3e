"""A list of JSON lines that grows with a long job and is continued after a stop."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .origin import bind

__all__ = ['each_once']


def _done(path: Path) -> int:
    """How many whole lines there are; what follows the last is cut off."""
    if not path.exists():
        return 0
    count = end = 0
    with path.open('rb') as file:
        for line in file:
            if not line.endswith(b'\n'):
                break
            count, end = count + 1, end + len(line)
    os.truncate(path, end)
    return count


def each_once(
    path: Path,
    items: Sequence[str],
    answer: Callable[[Sequence[str]], Iterable[Any]],
    batch_size: int,
    what: str,
    hidden: bool = False,
    origin: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Iterator[Any]:
    """Ask about each item once, keep the answers, and go on where a run was killed.

    Args:
        path (Path): The lines.
        items (Sequence[str]): In a fixed order.
        answer (Callable): Gives one JSON-able answer for each item of a batch.
        batch_size (int): Items of a batch.
        what (str): Name of the progress bar.
        hidden (bool): Whether to show no bar. Defaults to False.
        origin (Mapping, optional): What decides the predictions, see
            :func:`.origin.bind`. Defaults to None: nothing that could change.
        overwrite (bool): Whether predictions of another origin are made anew. Defaults
            to False.

    Yields:
        Any: The answers, in the order of the items, those of earlier runs included.

    Raises:
        ValueError: There are predictions of another origin.
    """
    bind(path, origin or {}, overwrite)
    start = _done(path)
    with (
        tqdm(total=len(items), initial=start, desc=what, disable=hidden) as bar,
        path.open('a', encoding='utf-8') as file,
    ):
        for first in range(start, len(items), batch_size):
            batch = items[first : first + batch_size]
            for one in answer(batch):
                file.write(json.dumps(one) + '\n')
            file.flush()
            bar.update(len(batch))
    with path.open(encoding='utf-8') as file:
        for line in file:
            yield json.loads(line)
