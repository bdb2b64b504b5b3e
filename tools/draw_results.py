"""Draw results of a test run: expressions with predicted and true boxes, 0..n of them.

    python tools/draw_results.py results.jsonl --out results.png

The results are chosen at random, so misses are as frequent as they are.
"""

import argparse
import logging
from pathlib import Path

import numpy as np

from projects.clip_vg_core.metrics.generalized import MatchingRule
from projects.clip_vg_core.metrics.results_file import read_results
from projects.clip_vg_core.metrics.set_results import has_sets, read_set_results
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
        help='JSON Lines that GroundingMetric or GeneralizedGroundingMetric wrote '
        '(test_evaluator.out_file)',
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
    parser.add_argument(
        '--score-thr',
        type=float,
        default=MatchingRule.score_thr,
        help='of GeneralizedGroundingMetric: least score of the boxes that are drawn '
        '(default: %(default)s)',
    )
    return parse_command(parser, 'tools/draw_results.py')


def read(path: Path, score_thr: float) -> tuple[list[dict], str]:
    """The results of a file, and a line about all of them."""
    if has_sets(path):
        results = read_set_results(path, MatchingRule(score_thr=score_thr))
        right = np.mean([result['f1'] == 1 for result in results])
        what = f'F1 = 1 at score {score_thr:g}'
    else:
        results = read_results(path)
        right = np.mean([result['iou'] >= 0.5 for result in results])
        what = 'accuracy at IoU 0.5'
    return results, f'{what}: {right:.3f} on {len(results):,} expressions'


def main() -> None:
    """Draw a random choice of results, so misses are as frequent as they are."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    results, title = read(args.results, args.score_thr)
    # At random: the first of a file are of a few images only.
    rng = np.random.default_rng(args.seed)
    count = min(args.examples, len(results))
    chosen = [results[i] for i in rng.choice(len(results), count, replace=False)]
    figure = draw_grid(chosen, title)
    with replacing(args.out) as partial:
        figure.savefig(partial, dpi=110)
    logging.info('%s', title)
    logging.info('%d of them, chosen at random, are drawn in %s', count, args.out)


if __name__ == '__main__':
    run_command(main)
