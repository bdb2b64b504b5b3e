"""Ground expressions in images.

    python demo/ground.py IMAGE EXPRESSION... --checkpoint FILE --out-dir DIR
    python demo/ground.py IMAGE EXPRESSION... --zero-shot [CONFIG] --out-dir DIR
    python demo/ground.py DIR --expressions-file FILE --checkpoint FILE --out-dir DIR

Prints the boxes, and writes the image with them and a JSON. An expression of which no
box reaches the score threshold is "not in this image". FILE of the last form is CSV
with a head, or JSON Lines: image (in the folder) and expression; interrupted, rerun the
same command to resume.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from projects.clip_vg_core.data.label_keys import images_fingerprint
from projects.clip_vg_core.data.questions import read_questions
from projects.clip_vg_core.pseudo_labels.predictions import list_images
from projects.clip_vg_core.runtime.deployment_file import NAME
from projects.clip_vg_core.runtime.graphs import PRECISIONS
from projects.clip_vg_core.utils.atomic import file_sha256, replacing
from projects.clip_vg_core.utils.command_line import parse_command, run_command
from projects.clip_vg_core.utils.file_names import file_name
from projects.clip_vg_core.utils.folder_lock import lock_folder
from projects.clip_vg_core.utils.image_files import load_image
from projects.clip_vg_core.utils.quick_imports import without_packages
from projects.clip_vg_core.utils.resumable import resumable_map
from projects.clip_vg_core.visualization.boxes import (
    NO_TARGET,
    draw_predictions,
    rows_of_expressions,
)

if TYPE_CHECKING:
    from projects.clip_vg.apis import GroundingInferencer
    from projects.clip_vg_core.runtime.exported_inferencer import ExportedInferencer

ZERO_SHOT = Path(__file__).parent.parent / 'configs' / 'zero_shot_refcoco.py'


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('image', type=Path, help='image file, or folder of images')
    parser.add_argument(
        'expressions', nargs='*', help='expressions to ground, such as "left man"'
    )
    parser.add_argument(
        '--checkpoint',
        type=Path,
        help='checkpoint file, work dir (its best checkpoint, else its last), or '
        'exported folder (default: --zero-shot)',
    )
    parser.add_argument(
        '--zero-shot',
        type=Path,
        nargs='?',
        const=ZERO_SHOT,
        metavar='CONFIG',
        help='no checkpoint: a detector, CLIP and geometry, by a config (default: '
        f'--checkpoint; CONFIG: {ZERO_SHOT.name}, which fetches weights)',
    )
    parser.add_argument(
        '--precision',
        choices=PRECISIONS,
        help='precision of an exported detector (default: f32)',
    )
    parser.add_argument(
        '--config',
        type=Path,
        help='config file (default: the one in the checkpoint)',
    )
    parser.add_argument(
        '--out-dir',
        type=Path,
        default=Path('work_dirs/ground'),
        metavar='DIR',
        help='folder for images and JSON (default: %(default)s)',
    )
    parser.add_argument(
        '--expressions-file',
        type=Path,
        metavar='FILE',
        help='CSV or JSON Lines with an image and an expression in each line (default: '
        'the expressions given)',
    )
    parser.add_argument(
        '--device', help='device of the model (default: a GPU, if there is one)'
    )
    parser.add_argument(
        '--batch-size',
        type=int,
        default=8,
        help='images in a batch (default: %(default)s)',
    )
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='with --expressions-file: replace predictions of another checkpoint, '
        'other expressions or images (default: an error)',
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        metavar='SCORE',
        help='least score of a box that is given (default: that of the checkpoint)',
    )
    parser.add_argument(
        '--any-size',
        action='store_true',
        help='also read images of over 100 million pixels, and strips (default: an '
        'error)',
    )
    args = parse_command(parser, 'demo/ground.py')
    if bool(args.expressions) == bool(args.expressions_file):
        parser.error('give expressions, or a file of them by --expressions-file')
    if bool(args.checkpoint) == bool(args.zero_shot):
        parser.error('give a model by --checkpoint, or --zero-shot')
    if args.zero_shot and (args.config or args.precision):
        parser.error('--config and --precision are of a checkpoint')
    return args


def show(predictions: Sequence[dict]) -> None:
    """Print a table of predictions."""
    line = '%-32s %-27s %5s %s'
    logging.info(line, 'image', 'box (x1, y1, x2, y2)', 'score', 'expression')
    for prediction in predictions:
        name = Path(prediction['image']).name[-32:]
        texts = prediction['texts']
        # Lines of a file that was written before there were labels have none.
        by_expression = rows_of_expressions(prediction.get('labels'), len(texts))
        for text, rows in zip(texts, by_expression, strict=True):
            if not rows:
                logging.info(line, name, NO_TARGET, '', text)
            for row in rows:
                edges = ' '.join(f'{edge:6.1f}' for edge in prediction['bboxes'][row])
                score = prediction['scores'][row]
                shown = '-' if score is None else f'{score:.2f}'
                logging.info(line, name, edges, shown, text)


def drawing_names(predictions: Sequence[dict], folder: Path) -> list[str]:
    """A file name for each image: its stem, or its path where stems repeat."""
    paths = [Path(prediction['image']) for prediction in predictions]
    names = [f'{path.stem}.png' for path in paths]
    if len({name.casefold() for name in names}) == len(names):
        return names
    return [f'{file_name(os.path.relpath(path, folder))}.png' for path in paths]


def draw(
    predictions: Sequence[dict], folder: Path, out_dir: Path, any_size: bool
) -> None:
    """Write each image with its predicted boxes."""
    names = drawing_names(predictions, folder)
    for prediction, name in zip(predictions, names, strict=True):
        image = load_image(prediction['image'], any_size)
        drawn = draw_predictions(
            image,
            prediction['bboxes'],
            prediction['texts'],
            prediction.get('labels'),
            prediction.get('scores'),
        )
        Image.fromarray(drawn).save(out_dir / name)


def is_exported(args: argparse.Namespace) -> bool:
    """Whether the model is an exported folder, which needs no PyTorch."""
    return args.checkpoint is not None and (args.checkpoint / NAME).is_file()


def model_sha256(args: argparse.Namespace) -> str | None:
    """Hash that identifies the checkpoint, if there is one."""
    if is_exported(args):  # as `checkpoint_sha256`, which imports PyTorch
        return file_sha256(args.checkpoint / NAME)
    from projects.clip_vg.checkpoints.work_dir import checkpoint_sha256, find_checkpoint

    return args.checkpoint and checkpoint_sha256(find_checkpoint(args.checkpoint))


def predict_file(
    infer: GroundingInferencer | ExportedInferencer, args: argparse.Namespace
) -> Sequence[dict]:
    """Predictions for a file of expressions, those of an earlier run included."""
    expressions = read_questions(args.expressions_file, args.image)

    def predict(names: Sequence[str]) -> list[dict]:
        files = [args.image / name for name in names]
        return infer(files, [expressions[name] for name in names])['predictions']

    lines = args.out_dir / f'{args.expressions_file.stem}.jsonl'
    config = args.config or args.zero_shot
    origin = dict(
        checkpoint=model_sha256(args),
        config=file_sha256(config) if config else None,
        precision=args.precision,
        # Only where it is given, as files of interrupted runs have none.
        **({} if args.score_thr is None else {'score_thr': args.score_thr}),
        # Older versions wrote scores of 1, which must not stand beside missing ones.
        **({} if infer.scored else {'scored': False}),
        # The name that files of interrupted runs have.
        questions=hashlib.sha256(json.dumps(expressions).encode()).hexdigest(),
        images=images_fingerprint(args.image, list(expressions)),
    )
    return list(
        resumable_map(
            *(lines, list(expressions), predict, args.batch_size, 'predicting'),
            origin=origin,
            overwrite=args.overwrite,
        )
    )


def predict_expressions(
    infer: GroundingInferencer | ExportedInferencer, args: argparse.Namespace
) -> Sequence[dict]:
    """Predictions for the expressions of the command line."""
    texts: Any = args.expressions
    if args.image.is_dir():
        texts = [args.expressions] * len(list_images(args.image))
    predictions = infer(args.image, texts)['predictions']
    with replacing(args.out_dir / 'answers.json') as partial:
        partial.write_text(json.dumps(predictions, indent=1))
    return predictions


def ground(
    infer: GroundingInferencer | ExportedInferencer, args: argparse.Namespace
) -> None:
    """Predict, and show and write what is predicted."""
    predict = predict_file if args.expressions_file else predict_expressions
    predictions = predict(infer, args)
    show(predictions)
    draw(predictions, args.image, args.out_dir, args.any_size)


def ground_exported(args: argparse.Namespace) -> None:
    """Run inference by an exported folder."""
    from projects.clip_vg_core.runtime.exported_inferencer import ExportedInferencer

    with lock_folder(args.out_dir):
        infer = ExportedInferencer(
            args.checkpoint,
            batch_size=args.batch_size,
            any_size=args.any_size,
            score_thr=args.score_thr,
            **({'precision': args.precision} if args.precision else {}),
        )
        ground(infer, args)
    logging.info('%s', args.out_dir)


def main() -> None:
    """Run inference, and write its results."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    if is_exported(args) and not args.config:
        return ground_exported(args)
    if not args.image.exists():  # before the model, which takes longer
        raise FileNotFoundError(f'{args.image}: no such image.')
    # MMDetection and transformers import these where they are installed: a second, for
    # training, tracking and generation of text.
    with without_packages('seaborn', 'sklearn'):
        from projects.clip_vg.apis import GroundingInferencer
    gc.freeze()  # nor look through what was imported whenever garbage is collected

    with lock_folder(args.out_dir):
        infer = GroundingInferencer(
            args.checkpoint or args.zero_shot,
            config=args.config,
            device=args.device,
            batch_size=args.batch_size,
            any_size=args.any_size,
            score_thr=args.score_thr,
            **({'precision': args.precision} if args.precision else {}),
        )
        ground(infer, args)
    logging.info('%s', args.out_dir)


if __name__ == '__main__':
    run_command(main)
