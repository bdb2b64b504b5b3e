"""Parts of one output that several processes or machines make, and put together."""

import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from .atomic import replacing
from .folder_lock import lock_folder
from .resumable import describe_changes

__all__ = ['Shard', 'Shards', 'parse_shard', 'shard_range']

_LOGGER = logging.getLogger(__name__)
# Number of a part, from 1, and of all parts.
Shard = tuple[int, int]


def parse_shard(text: str) -> Shard:
    """Read the option ``--shard``.

    Args:
        text (str): 'NUMBER/TOTAL'; or 'auto', as torchrun, srun, MPI or an array job of
            SLURM have numbered this process.

    Returns:
        tuple[int, int]: Number, from 1, and total.

    Raises:
        ValueError: It is neither, or nothing has numbered this process.
    """
    if text == 'auto':
        return _own_shard(os.environ)
    match = re.fullmatch(r'(\d+)/(\d+)', text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(
            f'--shard {text}: expected NUMBER/TOTAL, as 1/8 to 8/8, or auto. An array '
            'job of SLURM counts from 1 with --array=1-8.'
        )
    return int(match[1]), int(match[2])


def _own_shard(variables: Mapping[str, str]) -> Shard:
    """The place of this process among those that were started together."""
    rank, total = 0, 1
    known = False
    for of_rank, of_total in (
        ('RANK', 'WORLD_SIZE'),
        ('SLURM_PROCID', 'SLURM_STEP_NUM_TASKS'),
        ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE'),
    ):
        if of_rank in variables and of_total in variables:
            rank, total, known = int(variables[of_rank]), int(variables[of_total]), True
            break
    if 'SLURM_ARRAY_TASK_ID' in variables:
        # Each task of an array may be one process, or several.
        task, first, count = (
            int(variables[f'SLURM_ARRAY_TASK_{name}'])
            for name in ('ID', 'MIN', 'COUNT')
        )
        if not 0 <= task - first < count:
            raise ValueError(
                f'--shard auto: task {task} of an array of {count} from {first}; '
                'expected one without gaps, as --array=1-8.'
            )
        rank, total, known = (task - first) * total + rank, count * total, True
    if not known:
        raise ValueError(
            '--shard auto: found neither RANK and WORLD_SIZE (torchrun) nor '
            'SLURM_PROCID, SLURM_ARRAY_TASK_ID or OMPI_COMM_WORLD_RANK; give '
            'NUMBER/TOTAL.'
        )
    return rank + 1, total


def shard_range(count: int, shard: Shard, batch_size: int = 1) -> range:
    """Which of so many things, in a fixed order, a shard has.

    Args:
        count (int): Of all things.
        shard (tuple[int, int]): Number of the shard, from 1, and of all shards.
        batch_size (int): Things that stay together, as what a model predicts for one
            depends on the others of its batch by rounding. Defaults to 1.

    Returns:
        range: The shards cover all, without overlap, in order.
    """
    number, total = shard
    batches = -(-count // batch_size)
    first, last = batches * (number - 1) // total, batches * number // total
    return range(min(first * batch_size, count), min(last * batch_size, count))


@dataclass(frozen=True)
class Shards:
    """The folder ``<output>.shards``, in which processes make the parts of an output.

    Each part is a folder that one process locks while it works there. Whoever finishes
    the last part puts all together. The folder says what the parts are made of, so that
    those of other data or options are refused.

    Args:
        output (Path): What the parts become together.
    """

    output: Path

    @property
    def folder(self) -> Path:
        """Of all parts; removed when they are put together."""
        return self.output.with_name(f'{self.output.name}.shards')

    def has_begun(self) -> bool:
        """Whether there are parts that are not put together yet."""
        return self.folder.exists()

    @property
    def _settings_path(self) -> Path:
        return self.folder / 'settings.json'

    def settings(self) -> dict[str, Any] | None:
        """What the parts are made of; None before the first and after the last."""
        try:
            return json.loads(self._settings_path.read_text(encoding='utf-8'))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ValueError(
                f'{self._settings_path} is not valid JSON: {error}. Remove '
                f'{self.folder}; its parts are made again.'
            ) from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Wait until no other process begins parts or puts them together."""
        self.output.parent.mkdir(parents=True, exist_ok=True)
        # Beside the folder, which may be gone when this process gets the lock.
        with FileLock(self.folder.with_name(f'.{self.folder.name}.lock')):
            yield

    def begin(
        self, settings: Mapping[str, Any], total: int, overwrite: bool = False
    ) -> None:
        """Begin the parts, or see that those that are there are of the same kind.

        Args:
            settings (Mapping): What decides the output, as JSON.
            total (int): Number of all parts.
            overwrite (bool): Whether parts of other settings are removed. Defaults to
                False.

        Raises:
            RuntimeError: Such a part is being made by another process.
            ValueError: The folder has parts of other settings.
        """
        with self.lock():
            if self._fit(settings, total, overwrite):
                return
            self.remove()
            self.folder.mkdir()
            with replacing(self._settings_path) as partial:
                text = json.dumps(dict(settings, shards=total), indent=1)
                partial.write_text(text + '\n', encoding='utf-8')

    def resume(self, settings: Mapping[str, Any], overwrite: bool = False) -> bool:
        """Whether there are parts of these settings that one process can go on with.

        Args:
            settings (Mapping): See :meth:`begin`.
            overwrite (bool): Whether parts of other settings are removed. Defaults to
                False.

        Raises:
            RuntimeError: A part to remove is being made by another process.
            ValueError: They are of other settings.
        """
        with self.lock():
            if self._fit(settings, None, overwrite):
                return True
            self.remove()
            return False

    def _fit(
        self, settings: Mapping[str, Any], total: int | None, overwrite: bool
    ) -> bool:
        """Whether there are parts of these settings, and of so many, if it matters."""
        stored = self.settings()
        if stored is None:
            return False
        total = stored.get('shards') if total is None else total
        # As it is read back: JSON has no tuples.
        now = json.loads(json.dumps(dict(settings, shards=total)))
        changes = describe_changes(stored, now)
        if changes and not overwrite:
            raise ValueError(
                f'{self.folder} has shards of something else: {changes}. Use what they '
                'were made from, name another output, or say --overwrite.'
            )
        return not changes

    def total(self) -> int:
        """Number of all parts, which have begun."""
        return int((self.settings() or {})['shards'])

    def part(self, number: int) -> Path:
        """Folder of a part."""
        return self.folder / f'{number}'

    def parts(self) -> list[Path]:
        """Folders of the parts that have begun."""
        return sorted(path for path in self.folder.glob('[0-9]*') if path.is_dir())

    def is_finished(self, number: int) -> bool:
        """Whether a part is whole."""
        return (self.part(number) / 'finished').exists()

    def finish(self, number: int) -> None:
        """Say that a part is whole and on disk."""
        (self.part(number) / 'finished').touch()

    def missing(self) -> list[int]:
        """Numbers of the parts that are not whole."""
        numbers = range(1, self.total() + 1)
        return [number for number in numbers if not self.is_finished(number)]

    def are_finished(self) -> bool:
        """Whether all parts are whole; else the log says which are not."""
        missing = self.missing()
        if missing:
            _LOGGER.info(
                '%s: %d of %d shards are finished, missing: %s. Whoever finishes the '
                'last one puts them together; the same command without --shard makes '
                'those that are missing.',
                *(self.folder, self.total() - len(missing), self.total()),
                _ranges(missing),
            )
        return not missing

    def remove(self) -> None:
        """Remove all parts, in :meth:`lock`.

        Raises:
            RuntimeError: One of them is being made by another process.
        """
        for part in self.parts():
            with lock_folder(part, every_process=True):
                shutil.rmtree(part)
        if self.folder.exists():
            shutil.rmtree(self.folder)


def _ranges(numbers: Iterable[int]) -> str:
    """Numbers in ascending order with their ranges: '1, 3-8'."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ', '.join(f'{a}' if a == b else f'{a}-{b}' for a, b in ranges)
