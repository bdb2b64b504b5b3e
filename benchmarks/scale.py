"""Ten million labels: memory, seconds, and that both grow in proportion.

    python benchmarks/scale.py

Writes ODVG files of so many made-up labels, reads each in a process of its own, plans
an epoch, reads labels in random order, and has two workers of a data loader do so too:
what they hold of their own, beside what they share, should not grow with the labels.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import describe, peak_mib, private_mib
from torch.utils.data import DataLoader, Dataset, get_worker_info

from projects.clip_vg_core.data.grouping import ImageGroups
from projects.clip_vg_core.data.label_table import LabelTable
from projects.clip_vg_core.data.readers import read_annotations

PER_IMAGE = 7
READ_BY_WORKERS = 20_000


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--labels',
        type=int,
        nargs='+',
        default=[100_000, 1_000_000, 10_000_000],
        help='numbers of labels (default: 100000 1000000 10000000)',
    )
    parser.add_argument(
        '--read',
        type=Path,
        help='annotation file to measure alone (default: files of made-up labels)',
    )
    return parser.parse_args()


def write_labels(path: Path, count: int) -> None:
    """A file of made-up labels, seven an image."""
    with path.open('w', encoding='utf-8') as file:
        for number in range(count):
            text = f'the {number % 97} man on the left'
            region = dict(
                bbox=[1.5, 2.0, 100.0 + number % 50, 90.0],
                phrase=text,
                tokens_positive=[[0, len(text)]],
            )
            line = dict(
                filename=f'train2014/{number // PER_IMAGE:09d}.jpg',
                height=480,
                width=640,
                grounding=dict(caption=text, regions=[region]),
                sample_id=f'template_{number // PER_IMAGE}_{number % PER_IMAGE}',
                split='train',
                source='template',
            )
            file.write(json.dumps(line) + '\n')


class Reads(Dataset):
    """Labels in random order; an item is what the reading worker holds of its own.

    Args:
        table (LabelTable): The labels.
    """

    def __init__(self, table: LabelTable) -> None:
        self.table = table
        self.order = np.random.default_rng(1).integers(len(table), size=READ_BY_WORKERS)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> tuple[int, float]:
        self.table[int(self.order[index])]
        last = index >= len(self) - 2  # two workers take turns
        return get_worker_info().id, private_mib() if last else 0.0


def workers_mib(table: LabelTable) -> float:
    """Most that one of two forked workers holds of its own, in MiB."""
    loader = DataLoader(
        Reads(table),
        batch_size=None,
        num_workers=2,
        multiprocessing_context='fork',
    )
    held: dict[int, float] = {}
    for worker, mib in loader:
        held[worker] = max(mib, held.get(worker, 0.0))
    return max(held.values())


def measure(path: Path) -> dict[str, float]:
    """Memory and seconds of one file; memory is what this process grew by."""
    before = peak_mib()
    started = time.perf_counter()
    table = read_annotations(path)
    read = time.perf_counter() - started
    after = peak_mib()
    started = time.perf_counter()
    groups = ImageGroups(table.image_index, max_size=4)
    built = time.perf_counter() - started
    started = time.perf_counter()
    groups.plan(len(groups), np.random.default_rng(0))
    plan = time.perf_counter() - started
    order = np.random.default_rng(0).integers(len(table), size=20_000).tolist()
    started = time.perf_counter()
    for index in order:
        table[index]
    access = (time.perf_counter() - started) / len(order)
    return dict(
        labels=len(table),
        bytes=(after - before) * 2**20 / len(table),
        read=read,
        groups=built,
        plan=plan,
        access=access * 1e6,
        worker=workers_mib(table),
    )


def main() -> None:
    """Measure, print."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    if args.read:
        logging.info('%s', json.dumps(measure(args.read)))
        return
    logging.info('%s\n', describe())
    logging.info(
        '| labels | bytes a label, reading included | read (s) | a million (s) | '
        'grouping, once (s) | plan of an epoch (s) | random access (us) | of its own a '
        'worker holds (MiB) |\n'
        '|---|---|---|---|---|---|---|---|'
    )
    for count in args.labels:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / 'labels.jsonl'
            write_labels(path, count)
            command = [sys.executable, __file__, '--read', str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stderr.strip().splitlines()[-1])
        logging.info(
            '| %s | %.0f | %.1f | %.1f | %.2f | %.2f | %.0f | %.0f |',
            *(f'{count:,}', found['bytes'], found['read']),
            found['read'] / count * 1e6,
            *(found['groups'], found['plan'], found['access'], found['worker']),
        )


if __name__ == '__main__':
    main()
