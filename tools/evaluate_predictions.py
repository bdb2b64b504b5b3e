"""Score predicted boxes of any model against labels, as tools/test.py scores ours.

    python tools/evaluate_predictions.py PREDICTIONS --gt FILE --split val

PREDICTIONS is JSON Lines, JSON or CSV with a row for each expression: a sample_id, or
an image and an expression; and a box, or a model's text with the box in it. Which
unit the boxes are in must be said (--coords); it is never guessed. docs/evaluation.md.
"""

import argparse
import logging
from pathlib import Path

from projects.clip_vg_core.metrics.evaluation import format_table
from projects.clip_vg_core.metrics.results_file import write_results
from projects.clip_vg_core.metrics.scoring_options import (
    add_scoring_options,
    score_file,
)
from projects.clip_vg_core.utils.command_line import run_command


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('predictions', type=Path, help='file of predicted boxes')
    add_scoring_options(parser, required=True, sets=True)
    parser.add_argument(
        '--out',
        type=Path,
        metavar='RESULTS.jsonl',
        help='also write a line for each expression, which '
        'tools/analysis/report.py makes a page of (default: do not)',
    )
    return parser.parse_args()


def main() -> None:
    """Read, match, score."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    evaluation = score_file(args.predictions, args)
    for warning in evaluation.warnings:
        logging.warning('%s', warning)
    logging.info('%s', format_table(evaluation))
    if args.out is not None:
        write_results(args.out, evaluation.results)
        logging.info('%s', args.out)


if __name__ == '__main__':
    run_command(main)
