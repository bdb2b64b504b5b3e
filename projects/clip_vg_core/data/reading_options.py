"""The command line options of whatever reads annotation files."""

import argparse

from .box_formats import BOX_FORMATS, BOX_UNITS
from .readers import LAYOUTS

__all__ = ['add_reading_options']


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """Add what says how the boxes and expressions of a file are meant.

    Args:
        parser (ArgumentParser): Gets ``format``, ``box_format``, ``box_unit``,
            ``fields`` and ``instruction``, as ``read_annotations`` takes them.
    """
    parser.add_argument(
        '--format',
        choices=sorted(LAYOUTS),
        metavar='LAYOUT',
        help='layout of the files, one of docs/data.md (default: by their content)',
    )
    parser.add_argument(
        '--box-format',
        choices=BOX_FORMATS,
        help='format of the boxes (default: as their layout has them)',
    )
    parser.add_argument(
        '--box-unit',
        choices=BOX_UNITS,
        help='unit of the boxes (default: as their layout has them)',
    )
    parser.add_argument(
        '--fields',
        nargs='+',
        metavar='FIELD=COLUMN',
        help='columns of rows: image=file text=caption box=bbox, or box=x1,y1,x2,y2 '
        '(default: told by their usual names)',
    )
    parser.add_argument(
        '--instruction',
        help='form of the questions of a chat file, with {expression} (default: one of '
        'the known forms)',
    )
