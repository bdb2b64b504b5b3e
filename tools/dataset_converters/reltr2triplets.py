r"""Convert predictions of RelTR, a scene-graph model, to triplets.

    python tools/dataset_converters/reltr2triplets.py PREDICTIONS.pth \
        --instances FILE --classes FILE --predicates FILE --out FILE

PREDICTIONS.pth is what torch.save wrote of {file name: prediction}, each RelTR's dict
of sub_logits, obj_logits, rel_logits (the last class of each is "nothing"), sub_boxes
and obj_boxes (cx, cy, w, h in [0, 1]) for one image.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from projects.clip_vg_core.data.readers.common import entry_of, required
from projects.clip_vg_core.pseudo_labels.entries import CocoFile, read_names
from projects.clip_vg_core.utils.atomic import replacing
from projects.clip_vg_core.utils.command_line import run_command
from projects.clip_vg_core.utils.safe_torch import load_torch

if TYPE_CHECKING:
    from torch import Tensor


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'predictions', type=Path, help='PREDICTIONS.pth of RelTR, see above'
    )
    parser.add_argument(
        '--instances', type=Path, required=True, help='COCO file that lists the images'
    )
    parser.add_argument(
        '--classes',
        type=Path,
        required=True,
        help='file with the names of the classes, one a line, or JSON',
    )
    parser.add_argument(
        '--predicates',
        type=Path,
        required=True,
        help='file with the names of the predicates, one a line, or JSON',
    )
    parser.add_argument(
        '--out', type=Path, required=True, metavar='FILE', help='JSON to write'
    )
    parser.add_argument(
        '--min-score',
        type=float,
        default=0.2,
        help='score in [0, 1] that subject, object and predicate must each exceed '
        '(default: %(default)s, as in the official code)',
    )
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='replace an existing file (default: an error)',
    )
    return parser.parse_args()


def _named(
    logits: Tensor, names: Sequence[str], where: str
) -> tuple[list[float], list[str]]:
    """The likeliest name of each query and its probability."""
    logits = logits.float().reshape(-1, logits.shape[-1])
    if logits.shape[-1] != len(names) + 1:
        raise ValueError(
            f'{where}: {logits.shape[-1]} logits, but {len(names)} names and one more '
            'for "nothing": give the lists that the model was trained with, with their '
            'first entries ("N/A", "__background__").'
        )
    scores, indices = logits.softmax(-1)[:, :-1].max(-1)
    return scores.tolist(), [names[index] for index in indices.tolist()]


def triplets_of(
    prediction: Mapping[str, Tensor],
    size: tuple[int, int],
    classes: Sequence[str],
    predicates: Sequence[str],
    min_score: float,
    where: str,
) -> Iterator[dict[str, Any]]:
    """The triplets of one image, boxes xywh in pixels; see the top of the file."""
    import torch
    from torchvision.ops import box_convert

    whwh = torch.tensor([*size, *size])
    ends = []
    for end in ('sub', 'obj'):
        scores, names = _named(
            required(dict(prediction), f'{end}_logits', where), classes, where
        )
        boxes = required(dict(prediction), f'{end}_boxes', where).float().reshape(-1, 4)
        pixels = (box_convert(boxes, 'cxcywh', 'xywh') * whwh).tolist()
        ends.append(
            [
                dict(name=name, bbox=[round(edge, 2) for edge in box], score=score)
                for name, box, score in zip(names, pixels, scores, strict=True)
            ]
        )
    scores, names = _named(
        required(dict(prediction), 'rel_logits', where), predicates, where
    )
    for subject, other, predicate, score in zip(*ends, names, scores, strict=True):
        if min(subject['score'], other['score'], score) > min_score:
            yield dict(subject=subject, predicate=predicate, object=other, score=score)


def main() -> None:
    """Convert."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    if args.out.exists() and not args.overwrite:
        raise FileExistsError(f'{args.out} exists; remove it, or say --overwrite.')
    path = args.predictions
    predictions = entry_of(load_torch(path), dict, str(path), 'a dict')
    classes, predicates = read_names(args.classes), read_names(args.predicates)
    images = {
        name: (number, width, height)
        for number, name, width, height in CocoFile(args.instances).images()
    }
    entries = []
    for name, prediction in predictions.items():
        where = f'{path}, {name}'
        number, width, height = required(images, name, f'{args.instances}, for {where}')
        if width is None or height is None:
            raise ValueError(f'{args.instances}: {name} has no width and height.')
        entries += [
            dict(image_id=number, **triplet)
            for triplet in triplets_of(
                prediction, (width, height), classes, predicates, args.min_score, where
            )
        ]
    with replacing(args.out) as partial:
        partial.write_text(json.dumps(entries))
    logging.info(
        '%s: %d triplets of %d images', args.out, len(entries), len(predictions)
    )


if __name__ == '__main__':
    run_command(main)
