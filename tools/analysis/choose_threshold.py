"""Choose the score below which nothing is shown, for a wanted share of wrong boxes.

    python tools/analysis/choose_threshold.py VAL.jsonl --risk 0.1
    python tools/analysis/choose_threshold.py VAL.jsonl --risk 0.1 \
        --checkpoint CHECKPOINT --out abstaining.pth

VAL.jsonl has the results of a test on validation data: of GroundingMetric, or, where
expressions have no target or several, of GeneralizedGroundingMetric with score_thr=0.
The new checkpoint has the threshold as `model.test_cfg.score_thr` in its config:
inferencer, web page and exported models show no box below it.
"""

import argparse
import logging
from pathlib import Path

from projects.clip_vg_core.metrics.breakdown import wilson
from projects.clip_vg_core.metrics.score_threshold import (
    OperatingPoint,
    ScoredBoxes,
    choose_threshold,
    fewest_predictions,
    read_scored_boxes,
)
from projects.clip_vg_core.utils.command_line import run_command


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('results', type=Path, help='results on validation data')
    parser.add_argument(
        '--risk',
        type=float,
        required=True,
        help='largest share of wrong boxes (IoU below 0.5) among those that are shown',
    )
    parser.add_argument(
        '--confidence',
        type=float,
        default=0.95,
        help='probability with which the risk is no larger; 0: the share in the '
        'results itself counts, however few there are (default: %(default)s)',
    )
    parser.add_argument(
        '--checkpoint',
        help='checkpoint file or work dir (its best checkpoint, else its last) that '
        'gets the threshold (default: it is printed only)',
    )
    parser.add_argument(
        '--out',
        type=Path,
        metavar='FILE',
        help='checkpoint to write, with weights and config (default: none; needed with '
        '--checkpoint)',
    )
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='replace an existing file (default: an error)',
    )
    return parser.parse_args()


def describe(found: ScoredBoxes, point: OperatingPoint, confidence: float) -> str:
    """An operating point in a few lines."""
    answered = found.is_answered(point.score_thr)
    low, high = wilson(round(point.risk * point.shown), point.shown)
    lines = [
        f'score threshold {point.score_thr:.4f}',
        f'coverage {answered.mean():.3f}: {int(answered.sum()):,} of '
        f'{len(answered):,} expressions get a box, {point.shown:,} boxes in all',
        f'risk {point.risk:.4f}, 95 % interval {low:.4f} to {high:.4f}'
        + (
            f'; at most {point.bound:.4f} with probability {confidence:g}'
            if confidence
            else ''
        ),
    ]
    if not found.has_target.all():
        absent = ~found.has_target
        lines.append(f'N-acc {1 - answered[absent].mean():.3f} ({absent.sum():,})')
        if found.has_target.any():
            there = answered[found.has_target]
            lines.append(f'T-acc {there.mean():.3f} ({len(there):,})')
    return '\n'.join(lines)


def choose(args: argparse.Namespace, found: ScoredBoxes) -> OperatingPoint:
    """The operating point, or an error that says what would do."""
    if not len(found.scores):
        raise ValueError(f'{args.results} has no predicted box.')
    point, best = choose_threshold(
        found.scores, found.hits, args.risk, args.confidence, found.lowest
    )
    if point is None:
        text = (
            f'{args.results}: no threshold has a risk of {args.risk:g} or less'
            + (f' with probability {args.confidence:g}' if args.confidence else '')
            + f'. The nearest is {best.score_thr:.4f}, with {best.risk:.4f} for '
            f'{best.shown:,} boxes'
        )
        if args.confidence:
            fewest = fewest_predictions(args.risk, args.confidence)
            text += (
                f', at most {best.bound:.4f}. That needs {fewest:,} boxes or more, all '
                'of them right: give more validation data, or a higher --risk'
            )
        raise ValueError(f'{text}.')
    if found.lowest and point.score_thr <= found.lowest:
        raise ValueError(
            f'{args.results} has no boxes of scores below {found.lowest:.4f}, where a '
            'lower threshold may do: test again with '
            '--cfg-options test_evaluator.score_thr=0.'
        )
    return point


def main() -> None:
    """Choose, print, store."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    if (args.checkpoint is None) != (args.out is None):
        raise ValueError('--checkpoint and --out go together: a new file is written.')
    if args.out is not None and args.out.exists() and not args.overwrite:
        raise FileExistsError(f'{args.out} exists; give --overwrite to replace it.')
    found = read_scored_boxes(args.results)
    point = choose(args, found)
    logging.info('%s', describe(found, point, args.confidence))
    if args.checkpoint is None:
        return
    # PyTorch takes seconds to import, which a look at the numbers does without.
    from projects.clip_vg.checkpoints.score_threshold import write_score_thr

    write_score_thr(args.checkpoint, args.out, point.score_thr)
    logging.info('%s: model.test_cfg.score_thr=%.4f', args.out, point.score_thr)


if __name__ == '__main__':
    run_command(main)
