"""Convert any of the annotation formats to ODVG JSON Lines.

    python tools/dataset_converters/refexp2odvg.py labels.json --out labels.jsonl

MMDetection's own ``ODVGDataset`` (Grounding DINO) reads the result, and so does
``RefExpDataset``. There is no need to convert for this project: ``RefExpDataset``
reads all of them.
"""

import argparse
import logging
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from projects.clip_vg_core.data.box_checks import MANY_INVALID, check_fit
from projects.clip_vg_core.data.image_checks import describe_missing
from projects.clip_vg_core.data.image_roots import ImageRoots
from projects.clip_vg_core.data.label_files import of_images
from projects.clip_vg_core.data.label_table import LabelTable, invalid_boxes
from projects.clip_vg_core.data.readers import (
    extract_images,
    parse_fields,
    read_annotations,
    write_odvg,
)
from projects.clip_vg_core.data.reading_options import add_reading_options
from projects.clip_vg_core.data.table_builder import TARGETS
from projects.clip_vg_core.utils.atomic import replacing
from projects.clip_vg_core.utils.command_line import parse_command, run_command
from projects.clip_vg_core.utils.image_files import open_image, size_of


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'ann_file', help='annotation file to read (of REFER: instances.json)'
    )
    parser.add_argument('--out', metavar='FILE', help='JSON Lines to write (required)')
    parser.add_argument(
        '--split-file',
        metavar='FILE',
        help="REFER's refs(<split_by>).p, or VOC's list of a split (default: none)",
    )
    parser.add_argument(
        '--split', nargs='+', help='splits that are converted (default: all)'
    )
    add_reading_options(parser)
    parser.add_argument(
        '--targets',
        choices=TARGETS,
        default='one',
        help='any: expressions with no target or several are converted, too (default: '
        '%(default)s)',
    )
    parser.add_argument(
        '--source', help='source of the labels (default: as the file says)'
    )
    parser.add_argument(
        '--images',
        nargs='+',
        metavar='DIR',
        help='folders of the images, from which sizes are read that ann_file does not '
        'have (default: none are read)',
    )
    parser.add_argument(
        '--max-images',
        type=int,
        metavar='N',
        help='labels of N images of each split alone, to try things (default: all)',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='decides which images --max-images takes (default: %(default)s)',
    )
    parser.add_argument(
        '--images-out',
        metavar='DIR',
        help='folder to link or copy the images of the labels to (default: none)',
    )
    parser.add_argument(
        '--extract-images',
        metavar='DIR',
        help='folder for the images inside a parquet file (default: they are not '
        'written)',
    )
    parser.add_argument(
        '--upright',
        action='store_true',
        help='take the labels as drawn on images turned by their EXIF entry (default: '
        'on images as stored)',
    )
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='replace an existing file (default: an error)',
    )
    return parse_command(parser, 'tools/dataset_converters/refexp2odvg.py')


def with_sizes(table: LabelTable, roots: ImageRoots, upright: bool) -> LabelTable:
    """The table with the sizes it lacks, read from the heads of the images."""
    sizes = table.sizes.copy()
    unknown = np.unique(table.image_index[(sizes[table.image_index] < 0).any(1)])
    names = [table.images[index] for index in unknown]
    missing, renamed = roots.locate(names)
    if missing:
        raise FileNotFoundError(
            describe_missing(roots.folders[0], missing, len(unknown), str(roots))
        )
    if renamed:
        logging.warning('%s', roots.describe_renamed(renamed))
    for index, name in zip(unknown, names, strict=True):
        with open_image(roots.path(name)) as image:
            sizes[index] = size_of(image, upright)[::-1]
    return replace(table, sizes=sizes)


def copy_images(table: LabelTable, roots: ImageRoots, folder: Path) -> int:
    """Link the images of labels into a folder, or copy them to another file system.

    Args:
        table (LabelTable): The labels.
        roots (ImageRoots): Where the images are.
        folder (Path): Output folder; images that are there already stay.

    Returns:
        int: How many images the labels have.

    Raises:
        FileNotFoundError: An image is missing; nothing is written.
    """
    names = [table.images[index] for index in np.unique(table.image_index)]
    missing, _ = roots.locate(names)
    if missing:
        raise FileNotFoundError(
            describe_missing(roots.folders[0], missing, len(names), str(roots))
        )
    for name in names:
        target = folder / name
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        source = Path(roots.path(name)).resolve()
        try:
            target.hardlink_to(source)
        except OSError:  # another file system, or one without links
            with replacing(target) as partial:
                shutil.copyfile(source, partial)
    return len(names)


def main() -> None:
    """Convert."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    if args.images_out and not (args.images or args.extract_images):
        raise ValueError('--images-out needs --images, the folder to take them from.')
    folders = list(args.images or [])
    if args.extract_images:
        folder = Path(args.extract_images)
        count = extract_images(Path(args.ann_file), folder)
        logging.info('%s: %d images written', folder, count)
        folders.insert(0, str(folder))
    roots = ImageRoots(folders) if folders else None
    table = read_annotations(
        args.ann_file,
        args.split_file,
        args.split,
        args.format,
        args.source,
        box_format=args.box_format,
        box_unit=args.box_unit,
        fields=parse_fields(args.fields),
        instruction=args.instruction,
        targets=args.targets,
        read_sizes=None if roots is None else roots.size_reader(args.upright),
    )
    for note in table.notes:
        logging.warning('%s', note)
    if args.max_images is not None:  # before the images of all others are opened
        table = table.take(of_images(table, args.max_images, args.seed))
    if roots is not None:
        table = with_sizes(table, roots, args.upright)
        check_fit(table, args.ann_file)
    keep = np.ones(len(table), bool)
    for reason, indices in invalid_boxes(table):
        keep[indices] = False
        if len(indices):
            logging.warning('%d labels left out: box %s', len(indices), reason)
    if (~keep).sum() > MANY_INVALID * len(table):
        logging.warning('Is it xywh in the place of xyxy? Say --box-format then.')
    table = table.take(np.flatnonzero(keep))
    if args.images_out and roots is not None:
        count = copy_images(table, roots, Path(args.images_out))
        logging.info('%s: %d images', args.images_out, count)
    write_odvg(table, args.out, args.overwrite)
    splits = Counter(table.split_names[code] for code in table.splits.tolist())
    logging.info('%s: %d labels %s', args.out, len(table), dict(splits))


if __name__ == '__main__':
    run_command(main)
