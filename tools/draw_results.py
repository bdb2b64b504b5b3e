"""Draw results of a test run: expressions with predicted and true boxes.

    python tools/draw_results.py results.jsonl --out results.png

The results are chosen at random, so misses are as frequent as they are.
"""

import argparse
import logging
from pathlib import Path

import numpy as np

from projects.clip_vg_core.metrics.results_file import read_results
from projects.clip_vg_core.utils.atomic import replacing
from projects.clip_vg_core.utils.command_line import parse_command, run_command
from projects.clip_vg_core.visualization.result_grid import draw_grid


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'results',
        type=Path,
        help='JSON Lines that GroundingMetric wrote (test_evaluator.out_file)',
    )
    parser.add_argument(
        '--out', type=Path, required=True, metavar='FILE', help='image to write'
    )
    parser.add_argument(
        '--examples',
        type=int,
        default=12,
        help='number of results to draw (default: %(default)s)',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='seed of their random choice (default: %(default)s)',
    )
    return parse_command(parser, 'tools/draw_results.py')


def main() -> None:
    """Draw a random choice of results, so misses are as frequent as they are."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    results = read_results(args.results)
    accuracy = np.mean([result['iou'] >= 0.5 for result in results])
    # At random: the first of a file are of a few images only.
    rng = np.random.default_rng(args.seed)
    count = min(args.examples, len(results))
    chosen = [results[i] for i in rng.choice(len(results), count, replace=False)]
    title = f'accuracy at IoU 0.5: {accuracy:.3f} on {len(results):,} expressions'
    figure = draw_grid(chosen, title)
    with replacing(args.out) as partial:
        figure.savefig(partial, dpi=110)
    logging.info('%s', title)
    logging.info('%d of them, chosen at random, are drawn in %s', count, args.out)


if __name__ == '__main__':
    run_command(main)
