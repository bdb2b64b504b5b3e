"""Convert any of the annotation formats to ODVG JSON Lines.

MMDetection's own ``ODVGDataset`` (Grounding DINO) reads the result, and so does
``RefExpDataset``. There is no need to convert for this project: ``RefExpDataset``
reads all of them.
"""

import argparse
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from projects.clip_vg.command_line import run_command
from projects.clip_vg.datasets.label_table import LabelTable, invalid_boxes
from projects.clip_vg.datasets.readers import FORMATS, read_annotations, write_odvg
from projects.clip_vg.image_files import open_image


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('ann_file', help='annotation file (REFER: instances.json)')
    parser.add_argument('out', help='JSON Lines to write')
    parser.add_argument('--split-file', help="REFER's refs(<split_by>).p")
    parser.add_argument('--split', nargs='+', help='splits to keep (default: all)')
    parser.add_argument(
        '--format', choices=sorted(FORMATS), help='of ann_file (default: by its name)'
    )
    parser.add_argument(
        '--source', help='who made the labels (default: as the file says)'
    )
    parser.add_argument(
        '--images',
        help='folder of the pictures, where the file does not tell their size',
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='replace what is there'
    )
    return parser.parse_args()


def with_sizes(table: LabelTable, folder: Path) -> LabelTable:
    """The table with the sizes it lacks, read from the heads of the pictures."""
    sizes = table.sizes.copy()
    for index in np.unique(table.image_index[(sizes[table.image_index] < 0).any(1)]):
        path = folder / table.images[index]
        if not path.is_file():
            raise FileNotFoundError(f'{path}: no such picture; its size is needed.')
        with open_image(path) as picture:
            sizes[index] = picture.height, picture.width
    return replace(table, sizes=sizes)


def main() -> None:
    """Convert."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    table = read_annotations(
        args.ann_file, args.split_file, args.split, args.format, args.source
    )
    if args.images:
        table = with_sizes(table, Path(args.images))
    keep = np.ones(len(table), bool)
    for reason, indices in invalid_boxes(table):
        keep[indices] = False
        if len(indices):
            logging.warning('%d labels left out: box %s', len(indices), reason)
    table = table.take(np.flatnonzero(keep))
    write_odvg(table, args.out, args.overwrite)
    splits = Counter(table.split_names[code] for code in table.splits.tolist())
    logging.info('%s: %d labels %s', args.out, len(table), dict(splits))


if __name__ == '__main__':
    run_command(main)
