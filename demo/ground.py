"""Ask a picture.

    python demo/ground.py IMAGE EXPRESSION... --checkpoint FILE --out-dir DIR

Prints the boxes, and writes the picture with them and a JSON. A folder with a file of
questions (CSV with a head, or JSON Lines: image, expression) is asked one after
another; interrupted, the same command goes on.
"""

import argparse
import csv
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from projects.clip_vg.apis import GroundingInferencer
from projects.clip_vg.apis.grounding_inferencer import load_picture
from projects.clip_vg.atomic import replacing
from projects.clip_vg.engine.labelling.predictions import list_pictures
from projects.clip_vg.engine.labelling.resumable import each_once
from projects.clip_vg.visualization.answers import draw_answers


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('image', type=Path, help='a picture, or a folder of pictures')
    parser.add_argument('expressions', nargs='*', help='such as "left man"')
    parser.add_argument('--checkpoint', type=Path, required=True)
    parser.add_argument(
        '--config', type=Path, help='default: the one that the checkpoint holds'
    )
    parser.add_argument('--out-dir', type=Path, default=Path('work_dirs/ground'))
    parser.add_argument(
        '--questions', type=Path, help='CSV or JSON Lines of image and expression'
    )
    parser.add_argument('--device', help='default: a GPU, if there is one')
    parser.add_argument('--batch-size', type=int, default=8, help='pictures at once')
    args = parser.parse_args()
    if bool(args.expressions) == bool(args.questions):
        parser.error('give expressions, or a file of them by --questions')
    return args


def read_questions(path: Path, folder: Path) -> dict[str, list[str]]:
    """The expressions of each picture, in the order of the file.

    Raises:
        ValueError: A line has no image or no expression, or the picture is not there.
    """
    with path.open(encoding='utf-8-sig', newline='') as file:
        rows: list[Any] = (
            list(csv.DictReader(file))
            if path.suffix.lower() == '.csv'
            else [json.loads(line) for line in file if line.strip()]
        )
    found: dict[str, list[str]] = {}
    for number, row in enumerate(rows, 1):
        where = f'{path}, entry {number}'
        values = [row.get(key) for key in ('image', 'expression')]
        if not all(isinstance(v, str) and v.strip() for v in values):
            raise ValueError(
                f'{where}: found {dict(row)}; expected an "image" and an "expression".'
            )
        if not (folder / values[0]).is_file():
            raise ValueError(f'{where}: {folder / values[0]}: no such picture.')
        found.setdefault(values[0], []).append(values[1])
    if not found:
        raise ValueError(f'{path} has no questions.')
    return found


def show(answers: Sequence[dict]) -> None:
    """Print a table of answers."""
    logging.info('%-32s %-26s %s', 'picture', 'box (x1, y1, x2, y2)', 'expression')
    for answer in answers:
        for box, text in zip(answer['bboxes'], answer['texts'], strict=True):
            said = ' '.join(f'{edge:6.1f}' for edge in box)
            logging.info('%-32s %-26s %s', Path(answer['image']).name[-32:], said, text)


def draw(answers: Sequence[dict], out_dir: Path) -> None:
    """Write each picture with its answers."""
    for answer in answers:
        image = load_picture(answer['image'])
        path = out_dir / f'{Path(answer["image"]).stem}.png'
        drawn = draw_answers(image, answer['bboxes'], answer['texts'])
        Image.fromarray(drawn).save(path)


def main() -> None:
    """Ask."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    ask = GroundingInferencer(
        args.checkpoint,
        config=args.config,
        device=args.device,
        batch_size=args.batch_size,
    )
    args.out_dir.mkdir(parents=True, exist_ok=True)
    if args.questions:
        questions = read_questions(args.questions, args.image)

        def answer(names: Sequence[str]) -> list[dict]:
            files = [args.image / name for name in names]
            return ask(files, [questions[name] for name in names])['predictions']

        answers = list(
            each_once(
                args.out_dir / f'{args.questions.stem}.jsonl',
                list(questions),
                answer,
                args.batch_size,
                'asking',
            )
        )
    else:
        texts: Any = args.expressions
        if args.image.is_dir():
            texts = [args.expressions] * len(list_pictures(args.image))
        answers = ask(args.image, texts)['predictions']
        with replacing(args.out_dir / 'answers.json') as partial:
            partial.write_text(json.dumps(answers, indent=1))
    show(answers)
    draw(answers, args.out_dir)
    logging.info('%s', args.out_dir)


if __name__ == '__main__':
    main()
