r"""Convert reliability from and to the files of the official CLIP-VG code.

    python tools/dataset_converters/released_reliability.py import \
        unc_train_iou_result.pth --out-dir DIR --name MEASURER
    ... export LABELS DIR/MEASURER__SOURCE.npy --out unc_train_iou_result.pth
    ... select LABELS DIR/MEASURER__SOURCE.npy --out unc_train_refine_0_5.pth

LABELS is the label file that was scored, in any format that RefExpDataset reads. The
name of the output file decides its form: boxes of "referit" and "flickr" are xyxy,
others xywh; labels of "flickr" have three fields.
"""

import argparse
import logging
from pathlib import Path

import numpy as np

from projects.clip_vg_core.curriculum.official_files import (
    read_iou_result,
    write_iou_result,
    write_selection,
)
from projects.clip_vg_core.curriculum.reliability_file import (
    ReliabilityFile,
    read_boxes,
    read_reliability,
)
from projects.clip_vg_core.curriculum.selection import select_reliable
from projects.clip_vg_core.data.box_formats import BOX_FORMATS
from projects.clip_vg_core.data.label_files import LabelFile, describe_files
from projects.clip_vg_core.data.label_table import LabelTable
from projects.clip_vg_core.data.readers import read_annotations
from projects.clip_vg_core.utils.atomic import file_sha256
from projects.clip_vg_core.utils.command_line import parse_command, run_command


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest='command', required=True)
    importing = commands.add_parser('import', help='convert *_iou_result.pth to .npy')
    importing.add_argument('iou_result', help='*_iou_result.pth to read')
    importing.add_argument(
        '--out-dir', required=True, metavar='DIR', help='folder for reliability files'
    )
    importing.add_argument('--name', required=True, help="the measurer's name")
    importing.add_argument('--source', help='source of the labels (default: pseudo)')
    for name, what in (('export', '*_iou_result.pth'), ('select', '*_refine_*.pth')):
        command = commands.add_parser(name, help=f'convert .npy to {what}')
        command.add_argument('labels', help='annotation file that was scored')
        command.add_argument('reliability', help='its MEASURER__SOURCE.npy')
        command.add_argument(
            '--out', metavar='FILE', help=f'{what} to write (required)'
        )
        command.add_argument(
            '--split', nargs='+', help='splits that were scored (default: all)'
        )
        command.add_argument(
            '--overwrite',
            action='store_true',
            help='replace an existing file (default: an error)',
        )
        if name == 'select':
            command.add_argument(
                '--threshold',
                type=float,
                default=0.5,
                help='reliability in [0, 1] above which labels are selected '
                '(default: %(default)s)',
            )
        else:
            command.add_argument(
                '--images',
                metavar='DIR',
                help='folder of the images, from which sizes are read that LABELS do '
                'not have (default: none are read)',
            )
            command.add_argument(
                '--input-size',
                type=int,
                default=224,
                help="side of the model's input (default: %(default)s)",
            )
    for command in commands.choices.values():
        command.add_argument(
            '--box-format',
            choices=BOX_FORMATS,
            help='format of the boxes in the input (default: by name and entries)',
        )
    return parse_command(parser, 'tools/dataset_converters/released_reliability.py')


def describe(
    path: str,
    splits: list[str] | None,
    box_format: str | None,
    source: str | None = None,
) -> tuple[LabelTable, LabelFile]:
    """The labels of a file, and their identity for reliability files."""
    table = read_annotations(path, splits=splits, source=source, box_format=box_format)
    return table, describe_files([table], [Path(path).stem], splits)[0]


def import_result(args: argparse.Namespace) -> Path:
    """Write the reliability of an ``*_iou_result.pth`` as a reliability file."""
    values = read_iou_result(args.iou_result)
    table, labels = describe(args.iou_result, None, args.box_format, args.source)
    # Entries that the reader left out have no label: a sample_id is <file>_<entry>.
    entries = [int(name.rpartition('_')[2]) for name in table.sample_ids]
    store = ReliabilityFile(
        args.out_dir, dict(name=args.name, sha256=file_sha256(args.iou_result)), labels
    )
    store.write(labels.keys, values[entries])
    store.flush()
    return store.path


def main() -> None:
    """Convert one file."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    if args.command == 'import':
        logging.info('%s', import_result(args))
        return
    table, labels = describe(args.labels, args.split, args.box_format)
    values = np.asarray(read_reliability(args.reliability, labels))
    if args.command == 'export':
        write_iou_result(
            table,
            values,
            np.asarray(read_boxes(args.reliability, labels)),
            args.out,
            args.overwrite,
            args.input_size,
            args.images,
        )
        logging.info('%s: %d labels', args.out, len(table))
        return
    selected = select_reliable(values, args.threshold)
    write_selection(table.take(selected), args.out, args.overwrite)
    logging.info('%s: %d of %d labels', args.out, len(selected), len(table))


if __name__ == '__main__':
    run_command(main)
