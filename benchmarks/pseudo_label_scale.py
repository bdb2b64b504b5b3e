"""Throughput and memory of the template source, at a thousand and 100,000 images.

    python benchmarks/pseudo_label_scale.py

Runs the command on made-up COCO results, with one process, in a process that is
measured. Memory grows with the detections of a shard, by about 1 KB each.
"""

import argparse
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from projects.clip_vg_core.utils.command_line import parse_command

TOOL = Path(__file__).parents[1] / 'tools' / 'generate_pseudo_labels.py'


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--num-images',
        type=int,
        nargs='+',
        default=[1_000, 100_000],
        help='numbers of images (default: 1000 100000)',
    )
    parser.add_argument(
        '--detections',
        type=int,
        default=10,
        help='detections of an image (default: %(default)s)',
    )
    parser.add_argument(
        '--workers',
        type=int,
        default=1,
        help='number of processes (default: %(default)s)',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='seed of the detections (default: %(default)s)',
    )
    return parse_command(parser, 'benchmarks/pseudo_label_scale.py')


def make_results(folder: Path, images: int, most: int, seed: int) -> None:
    """Write made-up instances and results, image by image, in shuffled order."""
    from mmdet.evaluation import get_classes

    rng = np.random.default_rng(seed)
    classes = get_classes('coco')
    numbers = rng.permutation(images)
    with (folder / 'instances.json').open('w') as file:
        categories = [dict(id=i, name=name) for i, name in enumerate(classes)]
        file.write(f'{{"categories": {json.dumps(categories)}, "images": [')
        for place, number in enumerate(numbers.tolist()):
            entry = dict(id=number, file_name=f'{number}.jpg', width=640, height=480)
            file.write((', ' if place else '') + json.dumps(entry))
        file.write(']}')
    with (folder / 'detections.json').open('w') as file:
        file.write('[')
        for place, number in enumerate(numbers[::-1].tolist()):
            corners = rng.uniform(0, 1, (most, 2)) * (480, 320)
            sides = rng.uniform(30, 300, (most, 2))
            # A few classes an image, so that there is something to tell apart.
            labels = rng.choice(rng.choice(len(classes), 3), most)
            for index in range(most):
                entry = dict(
                    image_id=number,
                    category_id=int(labels[index]),
                    bbox=[round(float(v), 2) for v in (*corners[index], *sides[index])],
                    score=round(float(rng.uniform(0.3, 1)), 4),
                )
                file.write((', ' if place or index else '') + json.dumps(entry))
        file.write(']')


def measure(command: list[str]) -> tuple[float, float]:
    """Seconds and peak memory (MiB) of a command."""
    started = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f'{command} ended with {status}.')
    return time.monotonic() - started, usage.ru_maxrss / 1024


def main() -> None:
    """Measure, print."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    idle, _ = measure([sys.executable, str(TOOL), '--help'])
    logging.info('start-up of the command: %.1f s\n', idle)
    logging.info('| images | detections | seconds | images/s | peak memory (MiB) |')
    logging.info('|---|---|---|---|---|')
    for images in args.num_images:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            # Not here: the peak memory of a command counts what its parent has.
            process = multiprocessing.get_context('spawn').Process(
                target=make_results, args=(folder, images, args.detections, args.seed)
            )
            process.start()
            process.join()
            command = [sys.executable, str(TOOL), 'template']
            for key in ('instances', 'detections'):
                command += [f'--{key}', str(folder / f'{key}.json')]
            command += ['--workers', str(args.workers)]
            seconds, memory = measure([*command, '--out', str(folder / 'out.jsonl')])
        logging.info(
            '| %s | %s | %.1f | %.0f | %.0f |',
            *(f'{images:,}', f'{images * args.detections:,}', seconds),
            *(images / (seconds - idle), memory),
        )


if __name__ == '__main__':
    main()
