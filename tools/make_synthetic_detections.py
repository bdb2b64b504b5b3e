"""Play a detector, a scene-graph model and a captioner on synthetic pictures.

    python tools/make_synthetic_detections.py data/synthetic --out data/synthetic/models

Their answers are the true objects with errors at given rates, so that the pseudo-labels
made of them can be compared with the truth.
"""

import argparse
import logging
from dataclasses import fields
from pathlib import Path

from projects.clip_vg.datasets.synthetic_detections import ErrorRates, play_models


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('data', type=Path, help='what make_synthetic.py made')
    parser.add_argument('--out', type=Path, required=True, help='folder')
    parser.add_argument('--seed', type=int, default=0)
    for field in fields(ErrorRates):
        parser.add_argument(
            f'--{field.name}',
            type=float,
            default=field.default,
            help=f'rate in [0, 1], default {field.default}',
        )
    return parser.parse_args()


def main() -> None:
    """Write the three files."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    rates = ErrorRates(**{f.name: getattr(args, f.name) for f in fields(ErrorRates)})
    out = play_models(
        args.data / 'shapes' / 'instances.json', args.out, rates, args.seed
    )
    for path in sorted(out.glob('*.json')):
        logging.info('%s', path)


if __name__ == '__main__':
    main()
