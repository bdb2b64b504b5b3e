"""Show where a test run is right and wrong, or compare two runs, on one HTML page.

    python tools/analysis/report.py RESULTS.jsonl --out report.html
    python tools/analysis/report.py BEFORE.jsonl --compare AFTER.jsonl --out report.html

RESULTS.jsonl is what `tools/test.py` writes with
`--cfg-options test_evaluator.out_file=RESULTS.jsonl`; or, with --gt, a file of
predicted boxes of any model, as in `tools/evaluate_predictions.py`.
"""

import argparse
import logging
from pathlib import Path
from typing import Any

from projects.clip_vg_core.metrics.results_file import common_results, read_results
from projects.clip_vg_core.metrics.scoring_options import (
    add_scoring_options,
    score_file,
)
from projects.clip_vg_core.utils.command_line import run_command
from projects.clip_vg_core.visualization.error_report import write_error_report


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'results', type=Path, help='results of a test run, or predictions with --gt'
    )
    parser.add_argument(
        '--compare',
        type=Path,
        metavar='OTHER',
        help='results of a second run on the same data; what it hits and RESULTS '
        'misses is gained (default: none)',
    )
    parser.add_argument(
        '--names',
        nargs='+',
        metavar='NAME',
        help='names of the runs on the page (default: told by their paths)',
    )
    parser.add_argument(
        '--allow-missing',
        action='store_true',
        help='compare the samples that both runs have (default: an error where one '
        'run lacks a sample)',
    )
    parser.add_argument(
        '--images',
        type=Path,
        metavar='DIR',
        help='folder of the images, if they were moved (default: as the results say)',
    )
    parser.add_argument(
        '--examples',
        type=int,
        default=12,
        help='number of examples of a kind of error (default: %(default)s)',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='seed of the choice among equal results (default: %(default)s)',
    )
    parser.add_argument(
        '--out', type=Path, required=True, metavar='FILE', help='HTML page to write'
    )
    add_scoring_options(parser, required=False)
    return parser.parse_args()


def run_names(paths: list[Path], given: list[str] | None) -> list[str]:
    """One name for each run: as given, or where their paths part."""
    if given:
        if len(given) != len(paths) or len(set(given)) != len(given):
            raise ValueError(
                f'--names {" ".join(given)}: expected {len(paths)} different names.'
            )
        return given
    if len(paths) == 1:
        return [str(paths[0])]
    for parts in zip(*(path.resolve().parts for path in paths), strict=False):
        if len(set(parts)) > 1:
            return list(parts)
    return ['first', 'second']


def _results(path: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The results of a run, or those of a file of predictions."""
    if args.gt is None:
        return read_results(path)
    evaluation = score_file(path, args)
    for warning in evaluation.warnings:
        logging.warning('%s', warning)
    return evaluation.results


def main() -> None:
    """Read, compare, write."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    if args.images is not None and not args.images.is_dir():
        raise FileNotFoundError(f'--images {args.images}: no such folder.')
    if args.examples < 0:
        raise ValueError(f'--examples {args.examples}: expected 0 or more.')
    paths = [args.results, *([args.compare] if args.compare else [])]
    names = run_names(paths, args.names)
    runs = [_results(path, args) for path in paths]
    if len(runs) > 1:
        before = [len(run) for run in runs]
        runs = list(common_results(runs[0], runs[1], args.allow_missing))
        if set(before) != {len(runs[0])}:
            logging.info(
                '%d samples of %d and %d are in both runs, and compared',
                *(len(runs[0]), *before),
            )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_error_report(
        args.out,
        dict(zip(names, runs, strict=True)),
        args.images,
        args.examples,
        args.seed,
    )
    logging.info('%s', args.out)


if __name__ == '__main__':
    run_command(main)
