"""The command line options of whatever scores a file of predictions."""

import argparse
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..data.label_table import LabelTable
from ..data.readers import read_annotations
from ..data.table_builder import TARGETS
from .evaluation import Evaluation, evaluate_box_sets, evaluate_predictions
from .generalized import MATCHERS, OVERLAPS, MatchingRule
from .prediction_units import BOX_FORMATS, COORDINATES
from .predictions_file import FIELDS, read_predictions

__all__ = ['add_scoring_options', 'score_file']


def add_scoring_options(
    parser: argparse.ArgumentParser, required: bool, sets: bool = False
) -> None:
    """Add what says the labels and how the predicted boxes are meant.

    Args:
        parser (ArgumentParser): Gets ``gt``, ``split_file``, ``split``, ``format``,
            ``coords``, ``box_format``, ``fields``, ``images`` (unless it has it) and
            ``only_matched``, ``targets``.
        required (bool): Whether ``--gt`` must be given.
        sets (bool): Whether expressions may have any number of targets; adds the
            options of :obj:`MatchingRule`. Defaults to False: only those with one
            target are scored.
    """
    group = parser.add_argument_group('labels')
    group.add_argument(
        '--gt',
        type=Path,
        required=required,
        metavar='FILE',
        help='annotation file with the labels, in any layout of docs/data.md'
        + ('' if required else ' (default: none, for results)'),
    )
    group.add_argument(
        '--split-file',
        type=Path,
        metavar='FILE',
        help="REFER's refs file, such as refs(unc).p (default: none)",
    )
    group.add_argument(
        '--split',
        nargs='+',
        help='splits of the labels, such as: --split testA testB (default: all)',
    )
    group.add_argument('--format', help='format of --gt (default: told by its name)')
    group = parser.add_argument_group('predictions')
    group.add_argument(
        '--coords',
        default='pixel',
        help=f'unit of the predicted boxes: {", ".join(COORDINATES)}, or '
        'resized:WIDTHxHEIGHT (default: pixel, of the original image)',
    )
    group.add_argument(
        '--box-format',
        choices=BOX_FORMATS,
        default='xyxy',
        help='format of the predicted boxes (default: %(default)s)',
    )
    group.add_argument(
        '--fields',
        nargs='+',
        metavar='FIELD=NAME',
        help=f'what the file calls {", ".join(FIELDS)}, such as: --fields box=answer '
        '(default: told by the usual names)',
    )
    group.add_argument(
        '--only-matched',
        action='store_true',
        help='leave out labels without a prediction (default: they count as misses)',
    )
    # A command that shows images has the option already.
    with suppress(argparse.ArgumentError):
        group.add_argument(
            '--images',
            type=Path,
            metavar='DIR',
            help='folder of the images, from which sizes are read that --gt does not '
            'have (default: none are read)',
        )

    parser.set_defaults(targets='one')
    if sets:
        _add_set_options(parser)


def _add_set_options(parser: argparse.ArgumentParser) -> None:
    default = MatchingRule()
    group = parser.add_argument_group('labels with no target or several')
    group.add_argument(
        '--targets',
        choices=TARGETS,
        default=None,
        help='score sets of boxes (any), or only labels with one target, by one box '
        '(one) (default: any if a label has no target or several, else one)',
    )
    group.add_argument(
        '--score-thr',
        type=float,
        default=default.score_thr,
        help='of sets: boxes of at least this score count (default: %(default)s)',
    )
    group.add_argument(
        '--overlap',
        choices=OVERLAPS,
        default=default.overlap,
        help='of sets: what boxes and targets are compared by (default: %(default)s)',
    )
    group.add_argument(
        '--overlap-thr',
        type=float,
        default=default.overlap_thr,
        help='of sets: least overlap of a box with its target (default: %(default)s)',
    )
    group.add_argument(
        '--matcher',
        choices=tuple(MATCHERS),
        default=default.matcher,
        help='of sets: optimal finds the most targets, greedy takes the largest '
        'overlap first, as the code of gRefCOCO (default: %(default)s)',
    )


def score_file(path: Path, args: argparse.Namespace) -> Evaluation:
    """Score a file of predictions by the options of :func:`add_scoring_options`.

    Args:
        path (Path): Of the predictions.
        args (Namespace): The options.

    Returns:
        Evaluation: Scores, results and warnings.

    Raises:
        ValueError: A file is damaged, or nothing fits.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file of predictions.')
    fields: dict[str, Any] = {}
    for item in args.fields or ():
        key, equals, name = item.partition('=')
        if not equals:
            raise ValueError(f'--fields {item}: expected FIELD=NAME, as box=answer.')
        fields[key] = name
    split = tuple(args.split) if args.split else None
    table = _labels(
        args.gt,
        args.split_file,
        split,
        args.format,
        'one' if args.targets == 'one' else 'any',
    )
    how = (args.coords, args.box_format, args.images, args.only_matched)
    counts = table.target_counts()
    if args.targets == 'one' or (args.targets is None and (counts == 1).all()):
        single = replace(table, offsets=None)
        evaluation = evaluate_predictions(single, read_predictions(path, fields), *how)
        evaluation.warnings[:0] = table.notes
        return evaluation
    rule = MatchingRule(args.score_thr, args.overlap, args.overlap_thr, args.matcher)
    predictions = read_predictions(path, fields, sets=True)
    evaluation = evaluate_box_sets(table, predictions, rule, *how)
    evaluation.warnings[:0] = [
        *table.notes,
        f'{(counts == 0).sum():,} of {len(table):,} labels have no target, '
        f'{(counts > 1).sum():,} several: {rule}. --targets one scores only labels '
        'with one target, by one box each.',
    ]
    return evaluation


@lru_cache(maxsize=1)  # two runs are compared on the same labels
def _labels(
    path: Path,
    split_file: Path | None,
    splits: tuple[str, ...] | None,
    ann_format: str | None,
    targets: str,
) -> LabelTable:
    return read_annotations(
        path, split_file, splits, ann_format, check_boxes=False, targets=targets
    )
