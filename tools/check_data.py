"""Say what annotation files are, what is wrong with them, and how to train on them.

    python tools/check_data.py FILE... --images DIR --config mine.py
    python tools/check_data.py FILE... --images DIR --page check.html

FILE is an annotation file of any layout of docs/data.md; of REFER's data sets
`instances.json`, `refs(unc).p` or their folder. The exit code is 1 if something spoils
training (with --strict, if anything was found).
"""

import argparse
import json
import logging
import os
import shlex
import sys
from io import TextIOWrapper
from pathlib import Path

from projects.clip_vg_core.data.image_roots import ImageRoots
from projects.clip_vg_core.data.inspection import (
    Inspection,
    find_leaks,
    find_parts,
    inspect_file,
)
from projects.clip_vg_core.data.inspection_text import (
    format_inspection,
    format_problems,
)
from projects.clip_vg_core.data.label_checks import Problem
from projects.clip_vg_core.data.published_sets import PUBLISHED
from projects.clip_vg_core.data.readers import parse_fields
from projects.clip_vg_core.data.reading_options import add_reading_options
from projects.clip_vg_core.data.training_config import training_config
from projects.clip_vg_core.pseudo_labels.statistics import describe_manifest
from projects.clip_vg_core.utils.atomic import replacing
from projects.clip_vg_core.utils.command_line import run_command


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'files', nargs='+', type=Path, metavar='FILE', help='annotation files to check'
    )
    parser.add_argument(
        '--split-file',
        type=Path,
        help="REFER's refs, or VOC's list of a split (default: what lies beside FILE)",
    )
    parser.add_argument(
        '--images',
        nargs='+',
        metavar='DIR',
        help='folders of the images, to look for missing, turned and resized ones '
        '(default: images are not read)',
    )
    add_reading_options(parser)
    parser.add_argument(
        '--page',
        type=Path,
        metavar='FILE.html',
        help='also write a page, with labels drawn on images if --images is given '
        '(default: do not)',
    )
    parser.add_argument(
        '--json',
        type=Path,
        metavar='FILE.json',
        help='also write all of it as JSON (default: do not)',
    )
    parser.add_argument(
        '--base',
        default='',
        metavar='CONFIG',
        help='config that the printed one inherits (default: the official schedule for '
        'published data sets and many labels, else clip_vg_own_labels.py)',
    )
    parser.add_argument(
        '--config',
        type=Path,
        metavar='FILE.py',
        help='write the config that trains on the labels (default: it is printed)',
    )
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='replace the file of --config (default: an error)',
    )
    parser.add_argument(
        '--strict',
        action='store_true',
        help='exit with 1 if anything was found (default: if it spoils training)',
    )
    return parser.parse_args()


def inspect(args: argparse.Namespace, roots: ImageRoots | None) -> list[Inspection]:
    """Look at all files, one after another, and print what is found."""
    inspections = []
    for path in args.files:
        for ann_file, split_file in find_parts(path, args.split_file):
            found = inspect_file(
                ann_file,
                split_file,
                roots,
                ann_format=args.format,
                box_format=args.box_format,
                box_unit=args.box_unit,
                fields=parse_fields(args.fields),
                instruction=args.instruction,
            )
            _add_manifest(found)
            logging.info('%s\n', format_inspection(found))
            logging.info('%s\n', format_problems(found.problems))
            inspections.append(found)
    return inspections


def _add_manifest(found: Inspection) -> None:
    """How pseudo-labels were made, as recorded beside them."""
    if found.table is None:
        return
    try:
        found.manifest = describe_manifest(
            Path(found.file), found.table.sample_ids.sha256()
        )
    except ValueError as error:
        found.problems.append(Problem('manifest', str(error), 0))
        return
    if found.manifest and not found.manifest['same']:
        text = (
            f'The manifest beside {found.file} is of other labels '
            f'({found.manifest["labels"]:,}): the file was cut or changed since.'
        )
        found.problems.append(Problem('manifest', text, len(found.table)))


def _path_of_configs(config: Path) -> str:
    """Our folder of configs, from where a new config will be."""
    configs = Path(__file__).absolute().parents[1] / 'configs'
    folder = config.absolute().parent
    if configs.parent not in (folder, *folder.parents):
        return configs.as_posix()
    return Path(os.path.relpath(configs, folder)).as_posix()


def _write_config(path: Path, config: str, is_pseudo: bool) -> None:
    """Write a config, and say how it is used."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(config, encoding='utf-8')
    command = f'tools/train.py {shlex.quote(str(path))}'
    if 'train_dataloader' not in config:
        command = f'tools/test.py {shlex.quote(str(path))} CHECKPOINT'
    elif is_pseudo:  # to be selected; nothing else validates
        command = (
            f'tools/self_paced.py {shlex.quote(str(path))} --strategy valley '
            '--criterion label-free'
        )
    logging.info('%s\nTo use it: python %s', config, command)


def _tell_configs(
    args: argparse.Namespace,
    inspections: list[Inspection],
    config: str | None,
    spoilt: bool,
) -> None:
    """Print or write what trains on the files."""
    for found in inspections:
        if found.published:
            configs = {known.name: known.config for known in PUBLISHED}
            logging.info(
                '%s has a config, for files in the folders of docs/data.md: configs/%s',
                *(found.published.name, configs[found.published.name]),
            )
    if args.config and config and not spoilt:
        is_pseudo = all(found.manifest for found in inspections)
        _write_config(args.config, config, is_pseudo)
    elif args.config:
        logging.info('%s is not written before the errors are mended.', args.config)
    elif config:
        when = 'once the errors are mended, ' * spoilt
        where = '' if args.images else ' (IMAGES/ is the folder of the images)'
        logging.info(
            'To train on it, %ssave it in the folder configs%s:\n\n%s',
            when,
            where,
            config,
        )


def main() -> None:
    """Look, print, and write."""
    if isinstance(sys.stdout, TextIOWrapper):  # names may be of no encoding at all
        sys.stdout.reconfigure(errors='backslashreplace')
    logging.basicConfig(level=logging.INFO, format='%(message)s', stream=sys.stdout)
    args = parse_args()
    if args.config and args.config.exists() and not args.overwrite:
        raise FileExistsError(f'{args.config} exists; --overwrite replaces it.')
    roots = ImageRoots(args.images) if args.images else None
    inspections = inspect(args, roots)
    leaks = find_leaks(inspections) if len(inspections) > 1 else []
    if leaks:
        logging.info('between the files\n%s\n', format_problems(leaks))
    configs = _path_of_configs(args.config) if args.config else '.'
    config = training_config(inspections, args.images or (), args.base, configs)
    problems = [*leaks, *(p for found in inspections for p in found.problems)]
    spoilt = any(problem.spoils_training for problem in problems)
    _tell_configs(args, inspections, config, spoilt)
    if args.json:
        content = dict(
            files=[found.described() for found in inspections],
            leaks=[vars(leak) for leak in leaks],
            config=config,
        )
        with replacing(args.json) as partial:
            partial.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
        logging.info('%s', args.json)
    if args.page:
        # Matplotlib, which it imports, takes a second.
        from projects.clip_vg_core.visualization.data_report import write_data_report

        logging.info(
            '%s', write_data_report(args.page, inspections, leaks, config, roots)
        )
    if spoilt or (args.strict and problems):
        raise SystemExit(1)


if __name__ == '__main__':
    run_command(main)
