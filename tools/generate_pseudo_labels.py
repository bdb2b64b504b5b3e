"""Make labelled training data from images that have none.

    python tools/generate_pseudo_labels.py template --detections FILE --out FILE

Sources: template ("left red car"), relation ("man riding horse", from scene graphs),
caption (whole captions) and geometry ("cup on table", from the boxes alone); assign
gives boxes to texts that you have. Writes ODVG JSON Lines, a manifest and a report.
Rerun the same command to resume. Several processes or machines make a shard each
(--shard), and the last one puts them together; `merge` does so with those of machines
that share no disk.
"""

import argparse
import logging
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from projects.clip_vg_core.data.readers import parse_fields
from projects.clip_vg_core.pseudo_labels.caption import PARSER
from projects.clip_vg_core.pseudo_labels.generation import (
    KINDS,
    Generation,
    MakerSettings,
    Models,
    merge_shards,
)
from projects.clip_vg_core.pseudo_labels.inputs import InputFiles
from projects.clip_vg_core.pseudo_labels.sharded import find_shard, generate_sharded
from projects.clip_vg_core.pseudo_labels.statistics import summary
from projects.clip_vg_core.pseudo_labels.template import PRESETS
from projects.clip_vg_core.pseudo_labels.vocabulary import OFFICIAL_GROUPS
from projects.clip_vg_core.utils.command_line import run_command
from projects.clip_vg_core.utils.shards import parse_shard

HELP = dict(
    template='"[attribute] class [cloth] [where]", from detections',
    relation='"subject predicate object", from scene graphs',
    caption='whole captions, with the box of their subject',
    geometry='"left of", "on", "inside" and the like, from detections',
    assign='texts of a file, each with the detection that it means',
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest='kind', required=True)
    for kind in KINDS:
        command = commands.add_parser(kind, help=HELP[kind])
        _add_inputs(command, kind)
        _add_options(command, kind)
        _add_output(command, kind)
    joined = commands.add_parser('merge', help='make one file of all shards of a run')
    joined.add_argument(
        'shards', nargs='+', type=Path, help='label files of the shards'
    )
    joined.add_argument(
        '--out', required=True, type=Path, metavar='FILE', help='JSON Lines to write'
    )
    joined.add_argument(
        '--images',
        type=Path,
        metavar='DIR',
        help='folder of the images, for examples in the report (default: no examples)',
    )
    joined.add_argument(
        '--overwrite',
        action='store_true',
        help='replace an existing file (default: an error)',
    )
    return parser.parse_args()


def _add_inputs(command: argparse.ArgumentParser, kind: str) -> None:
    group = command.add_argument_group('inputs')
    group.add_argument(
        '--instances',
        type=Path,
        help='COCO file with the images and categories (default: as in --detections, '
        'else all images in --images)',
    )
    group.add_argument(
        '--images',
        type=Path,
        metavar='DIR',
        help='folder of the images (default: none, where no model needs them)',
    )
    group.add_argument(
        '--upright',
        action=argparse.BooleanOptionalAction,
        help='turn images by their EXIF entry; the labels are then for data sets with '
        '`upright=True` (default: for a folder of images; not where a COCO file lists '
        'them)',
    )
    group.add_argument(
        '--ignore-unknown-images',
        action='store_true',
        help='leave out entries of images that are not listed (default: an error)',
    )
    if kind == 'relation':
        group.add_argument(
            '--triplets',
            type=Path,
            required=True,
            help='file of scene graphs, as in docs/pseudo_labels.md',
        )
        return
    group.add_argument(
        '--detections',
        type=Path,
        help='COCO results or annotations (.json), DumpDetResults (.pkl), or the '
        'folder of DetInferencer (default: those of --detector)',
    )
    group.add_argument(
        '--classes',
        type=Path,
        help="file with the names of the detector's classes, one a line, or JSON "
        '(default: as --instances or --detections say)',
    )
    group.add_argument(
        '--detector',
        nargs='+',
        metavar=('CONFIG', 'CHECKPOINT'),
        help='run this MMDetection model, or one of its model zoo by name, on --images '
        '(default: none is run). A work dir stands for its best checkpoint, else its '
        'last',
    )
    group.add_argument(
        '--min-score',
        type=float,
        help='score in [0, 1] below which detections are left out (default: 0; 0.3 '
        'with --detector)',
    )
    if kind == 'caption':
        group.add_argument(
            '--captions',
            type=Path,
            help='file of COCO caption results (default: those of --captioner)',
        )
        group.add_argument(
            '--captioner',
            nargs=2,
            metavar=('MODEL', 'WEIGHTS'),
            help="caption --images by open_clip's CoCa (default: none is run)",
        )
        group.add_argument(
            '--parser',
            default=PARSER,
            help='spaCy model that parses captions (default: %(default)s)',
        )
        return
    if kind == 'assign':
        _add_texts(group)
        return
    group.add_argument(
        '--attributes',
        default='detections',
        help="where attributes come from: 'detections'; 'none'; 'clip', zero-shot by "
        '--clip; or a COCO file of another detector (default: %(default)s)',
    )
    group.add_argument(
        '--clip',
        nargs=2,
        metavar=('MODEL', 'WEIGHTS'),
        help="open_clip's CLIP for --attributes clip (default: none)",
    )


def _add_texts(group: Any) -> None:
    """Inputs of texts that are there already."""
    group.add_argument(
        '--texts',
        type=Path,
        required=True,
        metavar='FILE',
        help='COCO captions, rows of an image and a text, or a layout of docs/data.md',
    )
    group.add_argument(
        '--split-file',
        type=Path,
        metavar='FILE',
        help="REFER's refs, where --texts are its instances (default: none)",
    )
    group.add_argument(
        '--fields',
        nargs='+',
        metavar='FIELD=COLUMN',
        help='columns of --texts, if they are rows, as image=file text=words (default: '
        'by the usual names)',
    )
    group.add_argument(
        '--ignore-boxes',
        action='store_true',
        help='find a box for texts that have one, too (default: they keep it)',
    )
    group.add_argument(
        '--clip',
        nargs=2,
        metavar=('MODEL', 'WEIGHTS'),
        help='match crops with what texts name by this CLIP of open_clip (default: '
        'names of classes, places, sizes and relations alone)',
    )


def _helps(options: type) -> dict[str, str]:
    """Descriptions of the arguments in the docstring of a class."""
    text = re.sub(r'\s+', ' ', (options.__doc__ or '').split('Args:')[1])
    parts = re.split(r'(\w+) \((?:int|float|bool|str)(?:, optional)?\): ', text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _add_options(command: argparse.ArgumentParser, kind: str) -> None:
    """An option for each constant of a source; presets first."""
    group = command.add_argument_group('constants of the source')
    if kind == 'template':
        group.add_argument(
            '--preset',
            choices=PRESETS,
            help="constants for a data set: RefCOCO's are Pseudo-Q's, the others ours "
            '(default: none)',
        )
    helps = _helps(KINDS[kind])
    for field in fields(KINDS[kind]):
        flag = f'--{field.name.replace("_", "-")}'
        text = helps[field.name].replace('%', '%%').strip()
        if isinstance(field.default, bool):
            action = argparse.BooleanOptionalAction
            group.add_argument(flag, action=action, help=text, default=None)
        else:
            kind_of = int if isinstance(field.default, int) else float
            group.add_argument(flag, type=kind_of, help=text)


def _add_output(command: argparse.ArgumentParser, kind: str) -> None:
    group = command.add_argument_group('output and work')
    group.add_argument(
        '--out', type=Path, required=True, metavar='FILE', help='JSON Lines to write'
    )
    group.add_argument(
        '--overwrite',
        action='store_true',
        help='begin anew, and replace an existing file (default: an error)',
    )
    group.add_argument(
        '--source', default=kind, help=f'name of the source (default: {kind})'
    )
    group.add_argument(
        '--split',
        default='train',
        help='split of the labels (default: %(default)s)',
    )
    group.add_argument(
        '--shard',
        default='1/1',
        help='make a part of the images in OUT.shards, such as 2/8, or auto: as '
        'torchrun, srun or an array job numbers this process; the last one puts all '
        'together (default: all images)',
    )
    group.add_argument(
        '--workers',
        type=int,
        default=1,
        help='number of processes (default: %(default)s)',
    )
    group.add_argument(
        '--batch-size',
        type=int,
        default=8,
        help='images in a batch of the models that are run (default: %(default)s)',
    )
    group.add_argument(
        '--device',
        help='device of the models that are run (default: a GPU, if there is one)',
    )
    for name, what in (
        ('groups', "classes that are people, and that are clothes, or 'official'"),
        ('synonyms', 'words that captions have for a class'),
        ('words', 'names for nothing, and the attributes of --attributes clip'),
    ):
        group.add_argument(
            f'--{name}',
            type=Path,
            help=f'JSON of {what} (default: projects/clip_vg_core/pseudo_labels/data)',
        )


def _detector(parts: Sequence[str] | None) -> list[str] | None:
    """Config (or name in the model zoo) and checkpoint; of a work dir, its best."""
    if parts is None:
        return None
    from projects.clip_vg.checkpoints.work_dir import find_weights

    # What is no folder is a config, a name of the model zoo or an address.
    return [str(find_weights(part)) if Path(part).is_dir() else part for part in parts]


def _models(job: Generation) -> Models | None:
    """What runs the models of a job, if it has any: PyTorch takes seconds to import."""
    if not (job.detector or job.captioner or job.maker.clip):
        return None
    from projects.clip_vg.labelling import LabelModels

    return LabelModels(job)


def _job(args: argparse.Namespace) -> Generation:
    """The generation that the command line describes."""
    given = {
        field.name: getattr(args, field.name)
        for field in fields(KINDS[args.kind])
        if getattr(args, field.name) is not None
    }
    if getattr(args, 'preset', None):
        given = {**PRESETS[args.preset], **given}
    get = vars(args).get
    attributes, clip = get('attributes', 'none'), None
    if attributes == 'clip':
        if not (args.clip and args.images):
            raise ValueError('--attributes clip needs --clip and --images.')
        clip = dict(model=args.clip[0], weights=args.clip[1], folder=str(args.images))
        clip['device'] = args.device or 'cpu'
    elif args.kind == 'assign' and args.clip:
        if not args.images:
            raise ValueError('--clip reads images: give their folder by --images.')
        clip = dict(model=args.clip[0], weights=args.clip[1], folder=str(args.images))
        clip['device'] = args.device or 'cpu'
    elif args.kind == 'caption' and not (args.captions or args.captioner):
        raise ValueError('Give --captions FILE, or --captioner MODEL WEIGHTS.')
    if args.kind != 'relation' and not (args.detections or args.detector):
        raise ValueError('Give --detections FILE, or --detector CONFIG CHECKPOINT.')
    vocabulary: dict[str, Any] = {
        name: str(get(name))
        for name in ('groups', 'synonyms', 'words')
        if get(name) is not None
    }
    if vocabulary.get('groups') == 'official':
        vocabulary['groups'] = str(OFFICIAL_GROUPS)
    inputs = InputFiles(
        detections=get('detections'),
        instances=args.instances,
        images=args.images,
        classes=get('classes'),
        attributes=None
        if attributes in ('detections', 'clip', 'none')
        else Path(attributes),
        captions=get('captions'),
        triplets=get('triplets'),
        texts=get('texts'),
        texts_split_file=get('split_file'),
        text_fields=parse_fields(get('fields')),
        ignore_boxes=bool(get('ignore_boxes')),
        min_score=get('min_score') or 0.0,
        ignore_unknown_images=args.ignore_unknown_images,
        upright=args.upright,
    )
    return Generation(
        out=args.out,
        inputs=inputs,
        maker=MakerSettings(
            args.kind,
            KINDS[args.kind](**given),
            args.source,
            args.split,
            vocabulary,
            get('parser', PARSER),
            clip,
            use_attributes=attributes != 'none',
        ),
        detector=_detector(get('detector')),
        captioner=get('captioner'),
        shard=parse_shard(args.shard),
        workers=args.workers,
        batch_size=args.batch_size,
        device=args.device,
        overwrite=args.overwrite,
        min_score=0.3 if get('min_score') is None else args.min_score,
    )


def main() -> None:
    """Generate, or merge."""
    # Matplotlib takes half a second to import, which workers do without.
    from projects.clip_vg_core.visualization import pseudo_label_report

    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    draw = pseudo_label_report.write_label_report
    if args.kind == 'merge':
        manifest = merge_shards(
            list(map(find_shard, args.shards)),
            *(args.out, args.images, args.overwrite, draw),
        )
    else:
        job = _job(args)
        made = generate_sharded(job, _models(job), draw)
        if made is None:
            return
        manifest = made
    logging.info('%s', summary(manifest))
    logging.info('%s\n%s.html', args.out, args.out)


if __name__ == '__main__':
    run_command(main)
