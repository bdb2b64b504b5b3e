"""The command line options of whatever scores a file of predictions."""

import argparse
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..data.label_table import LabelTable
from ..data.readers import read_annotations
from .evaluation import BOX_FORMATS, COORDINATES, Evaluation, evaluate_predictions
from .predictions_file import FIELDS, read_predictions

__all__ = ['add_scoring_options', 'score_file']


def add_scoring_options(parser: argparse.ArgumentParser, required: bool) -> None:
    """Add what says the labels and how the predicted boxes are meant.

    Args:
        parser (ArgumentParser): Gets ``gt``, ``split_file``, ``split``, ``format``,
            ``coords``, ``box_format``, ``fields``, ``images`` (unless it has it) and
            ``only_matched``.
        required (bool): Whether ``--gt`` must be given.
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
    return evaluate_predictions(
        _labels(args.gt, args.split_file, split, args.format),
        read_predictions(path, fields),
        args.coords,
        args.box_format,
        args.images,
        args.only_matched,
    )


@lru_cache(maxsize=1)  # two runs are compared on the same labels
def _labels(
    path: Path,
    split_file: Path | None,
    splits: tuple[str, ...] | None,
    ann_format: str | None,
) -> LabelTable:
    return read_annotations(path, split_file, splits, ann_format, check_boxes=False)
