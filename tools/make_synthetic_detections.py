r"""Simulate a detector, a scene-graph model and a captioner on synthetic images.

    python tools/make_synthetic_detections.py data/synthetic \
        --out-dir data/synthetic/models

Their output is the true objects with errors at given rates, so that the pseudo-labels
made of them can be compared with the truth.
"""

import argparse
import logging
from dataclasses import fields
from pathlib import Path

from projects.clip_vg_core.pseudo_labels.error_rates import ErrorRates
from projects.clip_vg_core.utils.command_line import parse_command, run_command

WRONG = dict(
    missed='objects without a detection',
    doubled='objects with a second, similar box',
    misclassed='objects with a wrong class',
    shifted='boxes that overlap their object by less than half',
    recolored='objects with a wrong colour',
    relation='wrong predicates',
    caption='captions with a wrong colour or side',
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'data_root', type=Path, help='folder that tools/make_synthetic.py made'
    )
    parser.add_argument(
        '--out-dir',
        type=Path,
        required=True,
        metavar='DIR',
        help='folder for the files of the three models',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='seed of the errors (default: %(default)s)',
    )
    rates = parser.add_argument_group('error rates, as shares in [0, 1]')
    for field in fields(ErrorRates):
        rates.add_argument(
            f'--{field.name}',
            type=float,
            default=field.default,
            help=f'{WRONG[field.name]} (default: %(default)s)',
        )
    return parse_command(parser, 'tools/make_synthetic_detections.py')


def main() -> None:
    """Write the three files."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    from projects.clip_vg.synthetic.detections import simulate_predictions

    rates = ErrorRates(**{f.name: getattr(args, f.name) for f in fields(ErrorRates)})
    out = simulate_predictions(
        args.data_root / 'shapes' / 'instances.json', args.out_dir, rates, args.seed
    )
    for path in sorted(out.glob('*.json')):
        logging.info('%s', path)


if __name__ == '__main__':
    run_command(main)
