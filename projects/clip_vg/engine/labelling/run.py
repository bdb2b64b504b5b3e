"""Making the labels of all images: in several processes, continued after a stop."""

import json
import multiprocessing
import os
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from projects.clip_vg_core.pseudo_labels.store import SceneStore
from projects.clip_vg_core.utils.atomic import replacing
from projects.clip_vg_core.utils.folder_lock import lock_folder

from ...self_paced.launch import end_with_parent
from .maker import LabelMaker, MakerSettings

__all__ = ['LabelRun']

CHUNK = 256  # images that a process gets at a time


class LabelRun:
    """The making of one file of labels.

    All that is not finished lies in ``.<out>.unfinished`` beside the output; the same
    call continues it, to the same bytes.

    Args:
        out (str or Path): JSON Lines to write.
        settings (Mapping): What decides the result, as JSON: options, fingerprints of
            the inputs.
        overwrite (bool): Whether what is there may be replaced. Defaults to False.

    Raises:
        FileExistsError: The output is there, and may not be replaced.
        RuntimeError: Another process makes it.
        ValueError: An unfinished run had other settings.
    """

    def __init__(
        self, out: str | Path, settings: Mapping[str, Any], overwrite: bool = False
    ) -> None:
        self.out = Path(out)
        if not self.out.name or self.out.is_dir():
            raise ValueError(f'--out {out}: expected the name of a file to write.')
        self.work_dir = self.out.with_name(f'.{self.out.name}.unfinished')
        self.overwrite = overwrite
        self.settings = json.loads(json.dumps(settings))
        there = [path for path in self._beside() if os.path.lexists(path)]
        # An unfinished run may have written them already.
        if there and not overwrite and (there[0] == self.out or not self._begun()):
            raise FileExistsError(
                f'{there[0]} exists. Remove it, give another --out, or say --overwrite.'
            )

    def _beside(self) -> list[Path]:
        """What a run writes, the labels first."""
        others = ('manifest.json', 'html', 'report', 'detections.json', 'captions.json')
        return [self.out, *(Path(f'{self.out}.{end}') for end in others)]

    def _begun(self) -> bool:
        """Whether there is work that was not quick: labels, answers of models."""
        return any(
            next(self.work_dir.glob(pattern), None)
            for pattern in ('progress.json', 'detected_*.jsonl', 'captions.jsonl')
        )

    @contextmanager
    def begun(self) -> Iterator['LabelRun']:
        """Take the work dir for this process; begin it, or check what is in it."""
        with lock_folder(self.work_dir):
            self._check_settings()
            yield self

    def _check_settings(self) -> None:
        path = self.work_dir / 'settings.json'
        if path.exists():
            found = json.loads(path.read_text())
            changed = list(_changes(found, self.settings))
            # Where nothing was made yet, there is nothing to lose.
            if changed and self._begun() and not self.overwrite:
                raise ValueError(
                    f'An unfinished run of {self.out} had other settings: '
                    f'{"; ".join(changed)}. Use those again to go on, or say '
                    '--overwrite to begin anew.'
                )
            if not changed:
                return
            for entry in self.work_dir.iterdir():
                if entry.name != '.lock':
                    entry.unlink()
        with replacing(path) as partial:
            partial.write_text(json.dumps(self.settings))

    def store(self, fill: Callable[[SceneStore], None]) -> Path:
        """The inputs, sorted; read once.

        Args:
            fill (Callable): Puts them in.

        Returns:
            Path: The file of a :class:`SceneStore`.
        """
        path = self.work_dir / 'inputs.sqlite'
        if not path.exists():
            with replacing(path) as partial:
                store = SceneStore(partial, write=True)
                fill(store)
                store.finish()
                store.close()
        return path

    def make(
        self, store_path: Path, ranks: range, maker: MakerSettings, workers: int
    ) -> Counter:
        """Make the labels that are still missing.

        Args:
            store_path (Path): The inputs.
            ranks (range): Which images, in the order of their ids.
            maker (MakerSettings): How.
            workers (int): Processes; 1 works in this one.

        Returns:
            Counter: Counted over all images, those of earlier runs included.
        """
        progress = self.work_dir / 'progress.json'
        labels = self.labels
        done: dict[str, Any] = dict(rank=ranks.start, bytes=0, counts={})
        if progress.exists():
            found = json.loads(progress.read_text())
            # Killed after the labels were put in their place, they are not here.
            if labels.exists() and labels.stat().st_size >= found['bytes']:
                done = found
        counts = Counter(done['counts'])
        with (
            labels.open('r+b' if labels.exists() else 'w+b') as file,
            tqdm(
                total=len(ranks),
                initial=done['rank'] - ranks.start,
                desc=maker.source,
                unit='image',
            ) as bar,
        ):
            file.truncate(done['bytes'])
            file.seek(done['bytes'])
            rest = range(done['rank'], ranks.stop)
            for part, lines, more in _in_order(store_path, rest, maker, workers):
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
                counts.update(more)
                state = dict(rank=part.stop, bytes=file.tell(), counts=counts)
                with replacing(progress) as partial:
                    partial.write_text(json.dumps(state))
                bar.update(len(part))
        return counts

    @property
    def labels(self) -> Path:
        """The labels while they are not finished."""
        return self.work_dir / 'labels.jsonl'

    def finish(self) -> None:
        """Put the labels in their place, and remove the work dir."""
        os.replace(self.labels, self.out)
        shutil.rmtree(self.work_dir)


def _changes(old: Any, new: Any, name: str = '') -> Iterator[str]:
    """What differs between two settings, in words."""
    if isinstance(old, dict) and isinstance(new, dict):
        if 'sha256' in old and 'sha256' in new:
            if old['sha256'] != new['sha256']:
                yield f'{name} {new["name"]} has changed'
            return
        for key in sorted({*old, *new}):
            yield from _changes(old.get(key), new.get(key), f'{name} {key}'.strip())
    elif old != new:
        yield f'{name} was {old!r}, is {new!r}'


_MAKER: LabelMaker
_STORE: SceneStore


def _start_worker(store_path: Path, settings: MakerSettings) -> None:
    global _MAKER, _STORE
    end_with_parent()
    os.environ['OMP_NUM_THREADS'] = '1'
    import torch

    torch.set_num_threads(1)  # there is a process for each core
    _MAKER, _STORE = LabelMaker(settings), SceneStore(store_path)


def _work(ranks: range) -> tuple[bytes, Counter]:
    return _MAKER(_STORE, ranks)


def _in_order(
    store_path: Path, ranks: range, settings: MakerSettings, workers: int
) -> Iterator[tuple[range, bytes, Counter]]:
    """The labels of chunks of images, in order whatever process makes them."""
    chunks = (ranks[start : start + CHUNK] for start in range(0, len(ranks), CHUNK))
    if workers <= 1:
        maker, store = LabelMaker(settings), SceneStore(store_path)
        for chunk in chunks:
            yield chunk, *maker(store, chunk)
        return
    LabelMaker(settings)  # what is wrong with it is said here, not in a worker
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(
        workers, context, _start_worker, (store_path, settings)
    ) as pool:
        waiting: deque[tuple[range, Future]] = deque()
        try:
            for chunk in chunks:
                waiting.append((chunk, pool.submit(_work, chunk)))
                if len(waiting) > 4 * workers:  # finished ones do not pile up
                    first, future = waiting.popleft()
                    yield first, *future.result()
            for first, future in waiting:
                yield first, *future.result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                'A worker was killed, perhaps for want of memory. The same command '
                'goes on where it was; fewer --workers need less.'
            ) from error
