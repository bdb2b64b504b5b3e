"""Make the built-in toy data set: images of shapes with referring expressions.

    python tools/make_synthetic.py --out-dir data/synthetic

The folder has images, and annotations in REFER's layout with three splits.
"""

import argparse
import json
import logging
from collections import Counter
from pathlib import Path

from projects.clip_vg_core.data.table_builder import TARGETS
from projects.clip_vg_core.utils.command_line import parse_command, run_command


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--out-dir',
        default='data/synthetic',
        metavar='DIR',
        help='folder for the data set (default: %(default)s)',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='seed of the images (default: %(default)s)',
    )
    for split, number in (('train', 3000), ('val', 100), ('test', 300)):
        parser.add_argument(
            f'--{split}',
            type=int,
            default=number,
            help=f'number of images of the {split} split (default: %(default)s)',
        )
    parser.add_argument(
        '--large',
        action='store_true',
        help='draw larger objects, which are learnt sooner (default: of all sizes)',
    )
    parser.add_argument(
        '--scale',
        type=int,
        default=1,
        help='draw images this many times larger (default: %(default)s: 160 pixels '
        'along the long side)',
    )
    parser.add_argument(
        '--targets',
        choices=TARGETS,
        default='one',
        help='any: write shapes/grefs(synthetic).json as well, which has expressions '
        'of several objects and of none besides (default: %(default)s)',
    )
    return parse_command(parser, 'tools/make_synthetic.py')


def main() -> None:
    """Make the data set and log its size."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    from projects.clip_vg.synthetic.data_set import make_synthetic
    from projects.clip_vg.synthetic.scenes import LARGE_SIDES, SIDES

    root = make_synthetic(
        args.out_dir,
        dict(train=args.train, val=args.val, test=args.test),
        seed=args.seed,
        sides=LARGE_SIDES if args.large else SIDES,
        scale=args.scale,
        targets=args.targets,
    )
    instances = json.loads((Path(root) / 'shapes' / 'instances.json').read_text())
    shapes = Counter(a['category_id'] for a in instances['annotations'])
    logging.info(
        '%s: %d images, %d objects, seed %d',
        root,
        len(instances['images']),
        sum(shapes.values()),
        args.seed,
    )


if __name__ == '__main__':
    run_command(main)
