"""What shards cost: seconds, memory and bytes of one, two and four local workers.

    python benchmarks/shards.py

Generates a million labels (template) from made-up detections, gives a million texts
their boxes (assign, by words), and scores a million labels, by one process and by
workers that make a shard each; the scorer is no model, so that what is measured is all
that is not one. One worker is killed on the way and started again. All bytes are
compared with those of one process.
"""

import argparse
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from projects.clip_vg_core.curriculum.reliability_file import reliability_path
from projects.clip_vg_core.utils.atomic import file_sha256
from projects.clip_vg_core.utils.shards import Shards, parse_shard

TOOL = Path(__file__).parents[1] / 'tools' / 'generate_pseudo_labels.py'
PER_IMAGE = 7
DETECTIONS = 10
CLASSES = ('person', 'car', 'dog', 'chair', 'cup', 'tie', 'bus', 'cat', 'bowl', 'book')
TEXTS = ('the left one', 'a person', 'big car on the right', 'dog next to the chair')
SPAWN = multiprocessing.get_context('spawn')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--labels',
        type=int,
        default=1_000_000,
        help='labels to score and texts to assign; about as many are generated '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--workers',
        type=int,
        nargs='+',
        default=[2, 4],
        help='numbers of shards (default: 2 4)',
    )
    parser.add_argument(
        '--jobs',
        nargs='+',
        choices=('template', 'assign', 'score'),
        default=['template', 'assign', 'score'],
        help='what is done (default: all three)',
    )
    parser.add_argument(
        '--kill',
        action=argparse.BooleanOptionalAction,
        default=True,
        help='once more with the most workers, one of which is killed (default: yes)',
    )
    parser.add_argument('--score', type=Path, help=argparse.SUPPRESS)
    parser.add_argument('--out-dir', type=Path, help=argparse.SUPPRESS)
    parser.add_argument('--shard', default='1/1', help=argparse.SUPPRESS)
    return parser.parse_args()


def score(ann_file: Path, out_dir: Path, shard: tuple[int, int]) -> None:
    """Score labels by a formula in the place of a model."""
    from mmdet.registry import DATASETS
    from torch import nn

    import projects.clip_vg  # noqa: F401  # registers the data set
    from projects.clip_vg.engine.scoring import choose_sources, score_sources

    config = dict(type='RefExpDataset', ann_file=str(ann_file), pipeline=[])
    dataset = DATASETS.build(config)

    def scorer(_: Any, dataset: Any, batch: Any, __: Any) -> tuple[np.ndarray, ...]:
        labels = np.array([label for sample in batch for label in sample])
        values = (labels % 1009 / 1009).astype(np.float32)
        return labels, values, dataset.table.boxes[labels]

    score_sources(
        *(nn.Identity(), dataset, choose_sources(dataset, None), out_dir),
        *(dict(name='formula', sha256='0'), []),
        scorer=scorer,
        shard=shard,
    )


def write_detections(folder: Path, images: int) -> None:
    """Made-up instances and results: ten boxes of three classes an image."""
    with (folder / 'instances.json').open('w', encoding='utf-8') as file:
        names = [dict(id=number, name=name) for number, name in enumerate(CLASSES)]
        file.write(f'{{"categories": {json.dumps(names)}, "images": [')
        file.write(
            ', '.join(
                f'{{"id": {i}, "file_name": "{i}.jpg", "width": 640, "height": 480}}'
                for i in range(images)
            )
        )
        file.write(']}')
    rng = np.random.default_rng(0)
    count = images * DETECTIONS
    columns = [
        *(rng.uniform(0, high, count).round(2).tolist() for high in (480, 320)),
        *(rng.uniform(30, 300, count).round(2).tolist() for _ in range(2)),
        rng.uniform(0.3, 1, count).round(4).tolist(),
        rng.integers(3, size=count).tolist(),
    ]
    with (folder / 'detections.json').open('w', encoding='utf-8') as file:
        for place, (x, y, w, h, sure, kind) in enumerate(zip(*columns, strict=True)):
            image = place // DETECTIONS
            file.write(
                f'{", " if place else "["}{{"image_id": {image}, '
                f'"category_id": {(image + 3 * kind) % len(CLASSES)}, '
                f'"bbox": [{x}, {y}, {w}, {h}], "score": {sure}}}'
            )
        file.write(']')


def write_inputs(job: str, folder: Path, images: int) -> None:
    """Labels to score, or detections on images and texts."""
    if job == 'score':
        from scale import write_labels  # imports PyTorch

        write_labels(folder / 'labels.jsonl', images * PER_IMAGE)
        return
    write_detections(folder, images)
    with (folder / 'texts.jsonl').open('w', encoding='utf-8') as file:
        for number in range(images):
            texts = [TEXTS[(number + i) % len(TEXTS)] for i in range(PER_IMAGE)]
            file.write(json.dumps(dict(image=f'{number}.jpg', text=texts)) + '\n')


def command(job: str, folder: Path, out_dir: Path) -> list[str]:
    """The command of a job, without its shard."""
    if job == 'score':
        own = [__file__, '--score', str(folder / 'labels.jsonl')]
        return [sys.executable, *own, '--out-dir', str(out_dir)]
    own = [str(TOOL), job, '--instances', str(folder / 'instances.json')]
    own += ['--detections', str(folder / 'detections.json')]
    if job == 'assign':
        own += ['--texts', str(folder / 'texts.jsonl')]
    return [sys.executable, *own, '--out', str(out_dir / f'{job}.jsonl')]


class Workers:
    """Processes of a job that run side by side; what each of them took.

    Args:
        commands (list[list[str]]): One of each.
    """

    def __init__(self, commands: list[list[str]]) -> None:
        self.commands = commands
        self.cpu: list[float] = []
        self.mib = 0.0

    def run(self, kill_after: float | None = None) -> float:
        """Seconds until all have ended; the first one is killed once if asked for."""
        started = time.monotonic()
        running = {start(words): words for words in self.commands}
        if kill_after is not None:
            time.sleep(kill_after)
            first = next(iter(running))
            os.kill(first, signal.SIGKILL)
            os.wait4(first, 0)
            running[start(running.pop(first))] = self.commands[0]
        while running:
            number, status, usage = os.wait3(0)
            words = running.pop(number)
            if status:
                raise RuntimeError(f'{words} ended with {status}.')
            self.cpu.append(usage.ru_utime + usage.ru_stime)
            self.mib = max(self.mib, usage.ru_maxrss / 1024)
        return time.monotonic() - started


def start(words: list[str]) -> int:
    """Number of a process that has begun."""
    null = subprocess.DEVNULL
    return subprocess.Popen(words, stdout=null, stderr=null).pid


def watched(shards: Shards, stop: threading.Event, largest: list[int]) -> None:
    """Note the most bytes that a folder of shards holds."""
    while not stop.wait(0.2):
        held = 0
        for path in shards.folder.rglob('*'):
            try:
                held += path.stat().st_size
            except OSError:
                continue
        largest[0] = max(largest[0], held)


def outputs(folder: Path) -> dict[str, tuple[int, str]]:
    """Bytes and sha256 of all that a job wrote, but for pages and locks."""
    # Not their content: the peak memory of a command counts what its parent has.
    return {
        path.name: (path.stat().st_size, file_sha256(path))
        for path in folder.iterdir()
        if path.is_file() and path.suffix != '.html' and path.name[0] != '.'
    }


def rows(
    job: str, folder: Path, workers: list[int], kill: bool
) -> Iterator[tuple[Any, ...]]:
    """A row of the table for each way of doing a job."""
    one = None
    seconds = 0.0
    ways = [(number, False) for number in (1, *workers)]
    for total, has_kill in [*ways, *[(workers[-1], True)] * kill]:
        out_dir = folder / f'{job}_{total}_{has_kill}'
        out_dir.mkdir()
        words = command(job, folder, out_dir)
        shards = [[*words, '--shard', f'{i + 1}/{total}'] for i in range(total)]
        group = Workers(shards if total > 1 else [words])
        output = (
            reliability_path(out_dir, 'formula', 'template')
            if job == 'score'
            else out_dir / f'{job}.jsonl'
        )
        stop, largest = threading.Event(), [0]
        watch = threading.Thread(target=watched, args=(Shards(output), stop, largest))
        watch.start()
        # After the inputs are read, before the shard is whole.
        took = group.run(seconds / 2 if has_kill else None)
        stop.set()
        watch.join()
        seconds = took
        made = outputs(out_dir)
        one = one or made
        held = sum(size for size, _ in made.values())
        yield (
            *(job, f'{total}, one killed' if has_kill else total, took),
            *(sum(group.cpu), max(group.cpu) - min(group.cpu), group.mib),
            *(held, largest[0], 'yes' if made == one else 'NO'),
        )


def main() -> None:
    """Measure, print."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    if args.score is not None:
        score(args.score, args.out_dir, parse_shard(args.shard))
        return
    logging.info(
        '| job | workers | seconds | CPU seconds of all | of putting together | '
        'peak MiB of a worker | bytes written | bytes of shards | same bytes |\n'
        '|---|---|---|---|---|---|---|---|---|'
    )
    images = -(-args.labels // PER_IMAGE)
    for job in args.jobs:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            # Not here: the peak memory of a command counts what its parent has.
            process = SPAWN.Process(target=write_inputs, args=(job, folder, images))
            process.start()
            process.join()
            for row in rows(job, folder, args.workers, args.kill):
                logging.info(
                    '| %s | %s | %.0f | %.0f | %.1f | %.0f | %d | %d | %s |', *row
                )


if __name__ == '__main__':
    main()
