"""Pseudo-labels of photographs, by source, compared with the boxes that people drew.

    python benchmarks/photograph_labels.py --instances instances.json \
        --detections results.json --images train2014

A detector's boxes, then the true boxes in their place. For each source: labels, the
share whose box is a true one (for texts that people wrote, also their own), and the
share of labels of a side that the true boxes confirm. Prints a table in Markdown.
"""

import argparse
import logging
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from projects.clip_vg_core.data.readers import read_annotations
from projects.clip_vg_core.pseudo_labels.detection import Box, Detection, iou
from projects.clip_vg_core.pseudo_labels.generation import (
    KINDS,
    Generation,
    MakerSettings,
    generate,
)
from projects.clip_vg_core.pseudo_labels.inputs import InputFiles, read_scenes
from projects.clip_vg_core.pseudo_labels.naming import named_classes
from projects.clip_vg_core.pseudo_labels.vocabulary import Vocabulary
from projects.clip_vg_core.visualization.pseudo_label_report import write_label_report
from projects.clip_vg_core.zero_shot.expression import parse_expression

SIDES = ('left', 'right', 'middle')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for flag, required, what in (
        ('--instances', True, 'COCO file with the true boxes and classes'),
        ('--detections', True, 'predictions of a detector, of COCO, for these images'),
        ('--images', True, 'folder of the images'),
        ('--captions', False, 'COCO captions, for the caption source (default: none)'),
        ('--split-file', False, "REFER's refs, for the assign source (default: none)"),
    ):
        parser.add_argument(
            flag, type=Path, required=required, metavar='PATH', help=what
        )
    parser.add_argument(
        '--parser',
        default='en_core_web_sm',
        help='spaCy model that parses captions (default: %(default)s)',
    )
    parser.add_argument(
        '--min-score',
        type=float,
        default=0.3,
        help='score below which detections are left out (default: %(default)s)',
    )
    parser.add_argument(
        '--out-dir',
        type=Path,
        help='folder for labels and their pages, to look at (default: none)',
    )
    return parser.parse_args(argv)


def is_one_of(box: Box, boxes: Sequence[Box]) -> bool:
    """Whether a box has an IoU of 0.5 or more with one of some."""
    return any(iou(box, other) >= 0.5 for other in boxes)


def confirms(
    text: str, box: Box, truth: Sequence[Detection], vocabulary: Vocabulary
) -> bool | None:
    """Whether true boxes confirm the left, right or middle that a text says.

    Args:
        text (str): Of a label.
        box (tuple[float, float, float, float]): Its box, xyxy in pixels.
        truth (Sequence[Detection]): The true objects of the image.
        vocabulary (Vocabulary): Synonyms of classes.

    Returns:
        bool: Whether the true object in the box is the only one of its class, or on
        that side of the mean of their centres, or, for the middle, neither the first
        nor the last; for "left of X" whether it is left of an X. None for other texts.
    """
    parsed = parse_expression(text)
    said = [place for place in parsed.places if place in SIDES]
    is_relation = parsed.relation in ('left of', 'right of')
    if not said and not is_relation:
        return None
    item = max(truth, key=lambda one: iou(one.box, box), default=None)
    if item is None or iou(item.box, box) < 0.5:
        return False
    at = item.center[0]
    if is_relation:
        assert parsed.anchor is not None and parsed.relation is not None
        names = {one.name for one in truth}
        meant = named_classes(parsed.anchor.head, names, vocabulary)
        sign = -1 if parsed.relation == 'left of' else 1
        return any(
            sign * (at - other.center[0]) > 0
            for other in truth
            if other.name in meant and other is not item
        )
    centers = [one.center[0] for one in truth if one.name == item.name]
    beside = at - statistics.mean(centers)
    return len(centers) == 1 or all(
        min(centers) < at < max(centers)
        if side == 'middle'
        else (beside < 0) == (side == 'left')
        for side in said
    )


def make(
    args: argparse.Namespace, detections: Path, kind: str, out: Path
) -> list[dict[str, Any]]:
    """The labels of a source."""
    inputs = InputFiles(
        detections=detections,
        instances=args.instances,
        images=args.images,
        captions=args.captions if kind == 'caption' else None,
        texts=args.instances if kind == 'assign' else None,
        texts_split_file=args.split_file if kind == 'assign' else None,
        ignore_boxes=True,
        min_score=args.min_score,
    )
    options = KINDS[kind]()
    generate(
        Generation(
            out,
            inputs,
            MakerSettings(kind, options, kind, parser=args.parser),
            overwrite=True,
        ),
        write_report=write_label_report if args.out_dir else None,
    )
    return list(read_annotations(out))


def main() -> None:
    """Make, compare, print."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    scenes, _ = read_scenes(InputFiles(args.instances))
    truth = {scene.file_name: scene.detections for scene in scenes}
    boxes = {name: [item.box for item in items] for name, items in truth.items()}
    vocabulary = Vocabulary.load()
    own: dict[tuple[str, str], list[Box]] = {}
    if args.split_file is not None:
        for text in read_annotations(args.instances, args.split_file):
            key = text['image'], ' '.join(text['text'].split())
            own.setdefault(key, []).append(text['bbox'])
    kinds = ['template', 'geometry']
    kinds += ['caption'] * (args.captions is not None)
    kinds += ['assign'] * (args.split_file is not None)
    logging.info(
        "| boxes, source | labels | a true box | the text's own | of a side | "
        'confirmed |\n|---|---|---|---|---|---|'
    )
    with tempfile.TemporaryDirectory() as folder:
        out = args.out_dir or Path(folder)
        for name, file in (
            ('detections', args.detections),
            ('true boxes', args.instances),
        ):
            for kind in kinds:
                path = out / name.replace(' ', '_') / f'{kind}.jsonl'
                path.parent.mkdir(parents=True, exist_ok=True)
                labels = make(args, file, kind, path)
                verdicts = [
                    confirms(x['text'], x['bbox'], truth[x['image']], vocabulary)
                    for x in labels
                ]
                cells = [
                    [is_one_of(x['bbox'], boxes[x['image']]) for x in labels],
                    [is_one_of(x['bbox'], own[x['image'], x['text']]) for x in labels]
                    if kind == 'assign'
                    else [],
                    [verdict for verdict in verdicts if verdict is not None],
                ]
                shares = [f'{statistics.mean(c):.2f}' if c else '' for c in cells]
                logging.info(
                    '| %s, %s | %d | %s | %s | %d | %s |',
                    *(name, kind, len(labels), *shares[:2], len(cells[2]), shares[2]),
                )


if __name__ == '__main__':
    main()
