"""What visitors of the web page may give, and what they are shown."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment
from PIL import Image, UnidentifiedImageError

from projects.clip_vg_core.utils.image_files import (
    ImageDepthError,
    ImageSizeError,
    check_size,
    open_image,
)
from projects.clip_vg_core.visualization.boxes import color_of, draw_predictions

from ..synthetic.expressions import choose, describe
from ..synthetic.scenes import draw, sample_scene
from .grounding_inferencer import load_picture
from .shared_models import SharedModels

__all__ = [
    'Limits',
    'WrongInput',
    'answer',
    'answer_rows',
    'answer_table',
    'fit_to_screen',
    'make_examples',
    'read_expressions',
    'read_picture',
]

_TABLE = """<table class="answers">
<caption>{{ caption }}</caption>
<thead><tr>{% for name in head %}<th>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in rows %}
<tr><td><span class="color" style="background: rgb{{ colors[loop.index0] }}"></span>
{{- row[0] }}</td>
{%- for cell in row[1:] %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}
</tbody></table>"""


class WrongInput(ValueError):
    """A visitor gave what cannot be answered; the message is for the visitor."""


@dataclass(frozen=True)
class Limits:
    """The most that a visitor may give.

    Args:
        pixels (int): Of a picture, width times height. Defaults to 40,000,000.
        expressions (int): For a picture. Defaults to 20.
        characters (int): Of an expression. Defaults to 200.
    """

    pixels: int = 40_000_000
    expressions: int = 20
    characters: int = 200


def read_expressions(text: str | None, limits: Limits) -> list[str]:
    """The expressions of a text, one a line; blank lines do not count.

    Args:
        text (str, optional): What a visitor typed.
        limits (Limits): How much is taken.

    Returns:
        list[str]: At least one, each without spaces around it.

    Raises:
        WrongInput: There is none, there are too many, or one is too long.
    """
    found = [line.strip() for line in (text or '').splitlines() if line.strip()]
    if not found:
        raise WrongInput('Type what to look for: one expression a line.')
    if len(found) > limits.expressions:
        raise WrongInput(
            f'There are {len(found)} expressions; at most {limits.expressions} are '
            'answered at once.'
        )
    for number, expression in enumerate(found, 1):
        if len(expression) > limits.characters:
            raise WrongInput(
                f'Expression {number} ("{expression[:30]}...") has {len(expression)} '
                f'characters; at most {limits.characters} are read.'
            )
    return found


def read_picture(path: str | Path | None, limits: Limits) -> np.ndarray:
    """A visitor's picture, upright; its size is looked at before it is decoded.

    Args:
        path (str or Path, optional): A file of any kind.
        limits (Limits): How large it may be.

    Returns:
        np.ndarray: RGB of shape (H, W, 3), uint8.

    Raises:
        WrongInput: There is none, or it is no picture, broken or too large.
    """
    if path is None:
        raise WrongInput('Drop a picture first, or click on an example.')
    path = Path(path)
    if not path.is_file():
        raise WrongInput(f'{path.name} was deleted meanwhile: drop it again.')
    if not path.stat().st_size:
        raise WrongInput(f'{path.name} is empty: it has no bytes.')
    try:
        with open_image(path) as file:
            width, height = file.size
    except UnidentifiedImageError:
        raise WrongInput(
            f'{path.name} is no picture: expected JPEG, PNG, WebP, GIF, BMP or TIFF.'
        ) from None
    except ImageSizeError:  # PIL's own limit
        raise WrongInput(
            f'{path.name} is too large: at most {limits.pixels:,} pixels are read.'
        ) from None
    except (OSError, ValueError):
        raise _broken(path) from None
    if width * height > limits.pixels:
        raise WrongInput(
            f'{path.name} is too large: it has {width:,} x {height:,} pixels; at most '
            f'{limits.pixels:,} in all are read.'
        )
    try:
        check_size(width, height)
    except ImageSizeError as error:
        raise WrongInput(f'{path.name}: {error}.') from None
    try:
        return load_picture(path)
    except ValueError as error:
        raise _broken(path, error.__cause__) from None


def _broken(path: Path, cause: BaseException | None = None) -> WrongInput:
    if isinstance(cause, ImageDepthError):
        return WrongInput(f'{path.name}: {cause}.')
    return WrongInput(
        f'{path.name} is broken: it begins as a picture, but the rest is damaged or '
        'missing. Save or download it again.'
    )


def fit_to_screen(
    image: np.ndarray,
    boxes: Sequence[Sequence[float]],
    least: int = 640,
    most: int = 1280,
) -> tuple[np.ndarray, np.ndarray]:
    """Scale a picture and its boxes so that boxes and legend can be read.

    Boxes are cut at the edges of the picture: below it is the legend.

    Args:
        image (np.ndarray): RGB of shape (H, W, 3), uint8.
        boxes (Sequence): N boxes, xyxy in pixels.
        least (int): Long side that a smaller picture gets. Defaults to 640.
        most (int): Long side that a larger picture gets. Defaults to 1280.

    Returns:
        tuple: The picture, and the boxes of shape (N, 4) in its pixels.
    """
    height, width = image.shape[:2]
    long = max(height, width)
    side = min(max(long, least), most)
    cut = np.clip(np.asarray(boxes, np.float64).reshape(-1, 4), 0, [width, height] * 2)
    if side == long:
        return image, cut
    size = [max(1, round(edge * side / long)) for edge in (width, height)]
    picture = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    ratio = np.array(size) / (width, height)
    return np.asarray(picture), cut * np.tile(ratio, 2)


def answer_rows(
    boxes: Sequence[Sequence[float]], texts: Sequence[str], scores: Sequence[float]
) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of a table of answers.

    Args:
        boxes (Sequence): N boxes, xyxy in pixels.
        texts (Sequence[str]): Their expressions.
        scores (Sequence[float]): Their scores; all 1 where a model gives none.

    Returns:
        tuple: The names of the columns, and N rows.
    """
    head = ['#', 'Expression', 'Left', 'Top', 'Right', 'Bottom']
    rows = [
        [str(number), text, *(f'{edge:.1f}' for edge in box)]
        for number, (text, box) in enumerate(zip(texts, boxes, strict=True), 1)
    ]
    if any(score != 1 for score in scores):
        head.append('Score')
        for row, score in zip(rows, scores, strict=True):
            row.append(f'{score:.3f}')
    return head, rows


def answer_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], caption: str
) -> str:
    """HTML of a table of answers, each number in the colour of its box."""
    colors = [color_of(number) for number in range(len(rows))]
    template = Environment(autoescape=True).from_string(_TABLE)
    return template.render(head=head, rows=rows, colors=colors, caption=caption)


def answer(
    models: SharedModels,
    limits: Limits,
    name: str,
    path: str | Path | None,
    text: str | None,
) -> tuple[np.ndarray, str]:
    """Answer a visitor.

    Args:
        models (SharedModels): Who is asked.
        limits (Limits): How much is taken.
        name (str): Of the checkpoint.
        path (str or Path, optional): The visitor's file.
        text (str, optional): The visitor's expressions.

    Returns:
        tuple: The picture with boxes and legend, RGB of shape (H, W, 3), uint8; and
        the HTML of the table, its boxes in pixels of the visitor's picture.

    Raises:
        WrongInput: The picture or the expressions cannot be answered.
    """
    begun = time.perf_counter()
    expressions = read_expressions(text, limits)
    image = read_picture(path, limits)
    found = models.ask(name, image, expressions)
    boxes, texts = found['bboxes'], found['texts']
    shown, scaled = fit_to_screen(image, boxes)
    drawn = draw_predictions(shown, scaled.tolist(), texts)
    seconds = time.perf_counter() - begun
    caption = f'{image.shape[1]} x {image.shape[0]} pixels, {seconds:.2f} s'
    return drawn, answer_table(*answer_rows(boxes, texts, found['scores']), caption)


def make_examples(
    folder: Path, count: int = 4, seed: int = 26
) -> list[tuple[Path, list[str]]]:
    """Synthetic pictures with expressions that are true of one object of each.

    Args:
        folder (Path): Where they are written to.
        count (int): How many. Defaults to 4.
        seed (int): Decides everything. Defaults to 26: a model of
            ``configs/clip_vg_synthetic.py`` found all objects of those four.

    Returns:
        list: ``count`` times a picture and expressions of three of its objects.
    """
    examples = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        size, objects = sample_scene(rng)
        path = folder / f'shapes_{number + 1}.png'
        draw(size, objects, rng).save(path)
        everything = list(describe(size, objects, rng))
        asked: dict[int, str] = {}
        for _, text, index in choose(everything, len(everything), rng):
            asked.setdefault(index, text)
        examples.append((path, list(asked.values())[:3]))
    return examples
