"""Ground expressions in images.

    python demo/ground.py IMAGE EXPRESSION... --checkpoint FILE --out-dir DIR
    python demo/ground.py IMAGE EXPRESSION... --zero-shot [CONFIG] --out-dir DIR

Prints the boxes, and writes the image with them and a JSON. Of a folder, a file of
questions (CSV with a head, or JSON Lines: image, expression) is worked through;
interrupted, rerun the same command to resume.
"""

import argparse
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from projects.clip_vg.apis import GroundingInferencer
from projects.clip_vg.checkpoints.work_dir import checkpoint_sha256, find_checkpoint
from projects.clip_vg_core.data.label_keys import images_fingerprint
from projects.clip_vg_core.data.questions import read_questions
from projects.clip_vg_core.pseudo_labels.predictions import list_images
from projects.clip_vg_core.runtime.graphs import PRECISIONS
from projects.clip_vg_core.utils.atomic import file_sha256, replacing
from projects.clip_vg_core.utils.command_line import run_command
from projects.clip_vg_core.utils.file_names import file_name
from projects.clip_vg_core.utils.folder_lock import lock_folder
from projects.clip_vg_core.utils.image_files import load_image
from projects.clip_vg_core.utils.resumable import resumable_map
from projects.clip_vg_core.visualization.boxes import draw_predictions

ZERO_SHOT = Path(__file__).parent.parent / 'configs' / 'zero_shot_refcoco.py'


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('image', type=Path, help='an image, or a folder of images')
    parser.add_argument('expressions', nargs='*', help='such as "left man"')
    parser.add_argument(
        '--checkpoint',
        type=Path,
        help='checkpoint, a work dir (its best one, else its last), or an exported '
        'folder',
    )
    parser.add_argument(
        '--zero-shot',
        type=Path,
        nargs='?',
        const=ZERO_SHOT,
        metavar='CONFIG',
        help='no checkpoint: a detector, CLIP and geometry (default config: '
        f'{ZERO_SHOT.name}, which fetches weights)',
    )
    parser.add_argument(
        '--precision', choices=PRECISIONS, help='of an exported detector: default f32'
    )
    parser.add_argument(
        '--config', type=Path, help='default: the one that the checkpoint holds'
    )
    parser.add_argument(
        '--out-dir',
        type=Path,
        default=Path('work_dirs/ground'),
        help='output folder of images and JSON (default: %(default)s)',
    )
    parser.add_argument(
        '--questions', type=Path, help='CSV or JSON Lines of image and expression'
    )
    parser.add_argument('--device', help='default: a GPU, if there is one')
    parser.add_argument(
        '--batch-size',
        type=int,
        default=8,
        help='images at once (default: %(default)s)',
    )
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='with --questions: replace predictions of another checkpoint, other '
        'questions or images (default: an error)',
    )
    parser.add_argument(
        '--any-size',
        action='store_true',
        help='also images of over 100 million pixels, and strips',
    )
    args = parser.parse_args()
    if bool(args.expressions) == bool(args.questions):
        parser.error('give expressions, or a file of them by --questions')
    if bool(args.checkpoint) == bool(args.zero_shot):
        parser.error('give a model by --checkpoint, or --zero-shot')
    if args.zero_shot and (args.config or args.precision):
        parser.error('--config and --precision are of a checkpoint')
    return args


def show(predictions: Sequence[dict]) -> None:
    """Print a table of predictions."""
    logging.info('%-32s %-26s %s', 'image', 'box (x1, y1, x2, y2)', 'expression')
    for prediction in predictions:
        name = Path(prediction['image']).name[-32:]
        for box, text in zip(prediction['bboxes'], prediction['texts'], strict=True):
            edges = ' '.join(f'{edge:6.1f}' for edge in box)
            logging.info('%-32s %-26s %s', name, edges, text)


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
        drawn = draw_predictions(image, prediction['bboxes'], prediction['texts'])
        Image.fromarray(drawn).save(out_dir / name)


def predict_questions(
    infer: GroundingInferencer, args: argparse.Namespace
) -> Sequence[dict]:
    """Predictions for a file of questions, those of an earlier run included."""
    questions = read_questions(args.questions, args.image)

    def predict(names: Sequence[str]) -> list[dict]:
        files = [args.image / name for name in names]
        return infer(files, [questions[name] for name in names])['predictions']

    lines = args.out_dir / f'{args.questions.stem}.jsonl'
    config = args.config or args.zero_shot
    origin = dict(
        checkpoint=args.checkpoint
        and checkpoint_sha256(find_checkpoint(args.checkpoint)),
        config=file_sha256(config) if config else None,
        precision=args.precision,
        questions=hashlib.sha256(json.dumps(questions).encode()).hexdigest(),
        images=images_fingerprint(args.image, list(questions)),
    )
    return list(
        resumable_map(
            *(lines, list(questions), predict, args.batch_size, 'predicting'),
            origin=origin,
            overwrite=args.overwrite,
        )
    )


def predict_expressions(
    infer: GroundingInferencer, args: argparse.Namespace
) -> Sequence[dict]:
    """Predictions for the expressions of the command line."""
    texts: Any = args.expressions
    if args.image.is_dir():
        texts = [args.expressions] * len(list_images(args.image))
    predictions = infer(args.image, texts)['predictions']
    with replacing(args.out_dir / 'answers.json') as partial:
        partial.write_text(json.dumps(predictions, indent=1))
    return predictions


def main() -> None:
    """Run inference, and write its results."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    if not args.image.exists():  # before the model, which takes longer
        raise FileNotFoundError(f'{args.image}: no such image.')
    with lock_folder(args.out_dir):
        infer = GroundingInferencer(
            args.checkpoint or args.zero_shot,
            config=args.config,
            device=args.device,
            batch_size=args.batch_size,
            any_size=args.any_size,
            **({'precision': args.precision} if args.precision else {}),
        )
        predict = predict_questions if args.questions else predict_expressions
        predictions = predict(infer, args)
        show(predictions)
        draw(predictions, args.image, args.out_dir, args.any_size)
    logging.info('%s', args.out_dir)


if __name__ == '__main__':
    run_command(main)
