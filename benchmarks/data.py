"""What comes before the model: reading the labels, and loading the images.

    python benchmarks/data.py --ann-file FILE --split-file FILE --images DIR

Seconds and memory of reading all labels, in a process of its own. Then samples a
second through the test transforms: the published way decodes and resizes the image
again for each expression, ours once for all its expressions.
"""

import argparse
import itertools
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import alternate, describe, peak_mib
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from projects.clip_vg.datasets import RefExpDataset
from projects.clip_vg.synthetic.data_set import make_synthetic
from projects.clip_vg_core.data.grouping import ImageGroups
from projects.clip_vg_core.data.readers import read_annotations
from projects.clip_vg_core.utils.command_line import parse_command

PIPELINE = Path(__file__).parents[1] / 'configs/_base_/datasets/refexp_224.py'


def add_label_options(parser: argparse.ArgumentParser) -> None:
    """Which labels and images a program measures on."""
    for option, what in (
        ('--ann-file', 'annotation file (default: synthetic images are drawn)'),
        ('--split-file', "REFER's refs file (default: none)"),
        ('--images', 'folder of the images (default: of the synthetic ones)'),
    ):
        parser.add_argument(option, type=Path, help=what)


def fill_in_synthetic(args: argparse.Namespace, folder: str, count: int) -> None:
    """Draw images where no labels are given."""
    if args.ann_file is None:
        root = make_synthetic(Path(folder, 'data'), dict(train=count), 0)
        args.ann_file = root / 'shapes' / 'instances.json'
        args.split_file = root / 'shapes' / 'refs(synthetic).p'
        args.images = root / 'images'


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_label_options(parser)
    parser.add_argument(
        '--expressions',
        type=int,
        nargs='+',
        default=[1, 4, 7, 16],
        help='numbers of expressions of an image (default: 1 4 7 16)',
    )
    parser.add_argument(
        '--num-images',
        type=int,
        default=40,
        help='most images to load (default: %(default)s)',
    )
    parser.add_argument(
        '--rounds',
        type=int,
        default=3,
        help='timed rounds of each way (default: %(default)s)',
    )
    parser.add_argument(
        '--only-read',
        action='store_true',
        help='read the labels and stop (default: load the images, too)',
    )
    return parse_command(parser, 'benchmarks/data.py')


def read(args: argparse.Namespace) -> None:
    """Read the labels and log time and memory."""
    before, started = peak_mib(), time.perf_counter()
    table = read_annotations(args.ann_file, args.split_file)
    seconds = time.perf_counter() - started
    grown = (peak_mib() - before) * 2**20 / len(table)
    logging.info(
        '%s labels read in %.1f s, %.0f bytes each, reading included',
        *(f'{len(table):,}', seconds, grown),
    )


def open_dataset(args: argparse.Namespace) -> RefExpDataset:
    """The labels with the test transforms of the configs."""
    init_default_scope('mmdet')
    return DATASETS.build(
        dict(
            type='RefExpDataset',
            ann_file=str(args.ann_file),
            split_file=str(args.split_file) if args.split_file else None,
            data_prefix=dict(img=str(args.images)),
            test_mode=True,
            pipeline=Config.fromfile(PIPELINE).test_pipeline,
        )
    )


def labels_of_images(
    dataset: RefExpDataset, images: Path, most: int
) -> list[tuple[int, ...]]:
    """The labels of each of the images that are there."""
    groups = ImageGroups(dataset.table.image_index)
    found = []
    for rows in groups.plan(len(groups), None):
        if Path(dataset.get_data_info(rows[0])['img_path']).is_file():
            found.append(rows)
        if len(found) == most:
            break
    if not found:
        raise FileNotFoundError(f'No image of the labels is in {images}.')
    return found


def main() -> None:
    """Measure, print."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    if args.only_read:
        read(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        fill_in_synthetic(args, folder, args.num_images)
        logging.info('%s', describe())
        options = ['--ann-file', str(args.ann_file), '--only-read']
        if args.split_file is not None:
            options += ['--split-file', str(args.split_file)]
        subprocess.run([sys.executable, __file__, *options], check=True)
        dataset = open_dataset(args)
        by_image = labels_of_images(dataset, args.images, args.num_images)
        for expressions in args.expressions:
            groups = [
                tuple(itertools.islice(itertools.cycle(rows), expressions))
                for rows in by_image
            ]

            def published(groups: list[tuple[int, ...]] = groups) -> None:
                for rows in groups:
                    for row in rows:
                        dataset[row]

            def ours(groups: list[tuple[int, ...]] = groups) -> None:
                for rows in groups:
                    dataset[rows]

            seconds = alternate(dict(published=published, ours=ours), args.rounds)
            for name, taken in seconds.items():
                logging.info(
                    '%2d expressions, %-9s: %7.1f a second, %4.1f x',
                    *(expressions, name, len(by_image) * expressions / taken),
                    seconds['published'] / taken,
                )


if __name__ == '__main__':
    main()
