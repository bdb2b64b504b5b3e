"""The web page's side of the server: requests it takes, inputs, what is shown."""

import os
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from PIL import Image, UnidentifiedImageError

from projects.clip_vg_core.runtime.limits import LOOPBACK, ByteLimits, Limits, refusal
from projects.clip_vg_core.utils.image_files import (
    ImageDepthError,
    ImageSizeError,
    check_size,
    load_image,
    open_image,
)
from projects.clip_vg_core.visualization.boxes import (
    NO_TARGET,
    color_of,
    draw_predictions,
    rows_of_expressions,
)

from ..synthetic.expressions import choose, describe
from ..synthetic.scenes import draw, sample_scene
from .shared_models import SharedModels

__all__ = [
    'LOOPBACK',
    'ByteLimits',
    'Guard',
    'Limits',
    'WrongInput',
    'fit_to_screen',
    'ground',
    'make_examples',
    'prediction_rows',
    'prediction_table',
    'read_expressions',
    'read_image',
    'refusal',
    'stored_bytes',
]

_TABLE = """<table class="predictions">
<caption>{{ caption }}</caption>
<thead><tr>{% for name in head %}<th>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in rows %}
<tr><td><span class="color" style="background: rgb{{ colors[loop.index0] }}"></span>
{{- row[0] }}</td>
{%- set missing = head|length - row|length %}
{%- for cell in row[1:] %}<td
{%- if loop.last and missing > 0 %} colspan="{{ missing + 1 }}"{% endif -%}
>{{ cell }}</td>{% endfor %}</tr>{% endfor %}
</tbody></table>"""


class WrongInput(ValueError):
    """Invalid input of a visitor, for whom the message is."""


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
    lines = [line.strip() for line in (text or '').splitlines() if line.strip()]
    if not lines:
        raise WrongInput('Type what to look for: one expression a line.')
    if len(lines) > limits.expressions:
        raise WrongInput(
            f'There are {len(lines)} expressions; at most {limits.expressions} are '
            'grounded at once.'
        )
    for number, expression in enumerate(lines, 1):
        if len(expression) > limits.characters:
            raise WrongInput(
                f'Expression {number} ("{expression[:30]}...") has {len(expression)} '
                f'characters; at most {limits.characters} are read.'
            )
    return lines


def read_image(path: str | Path | None, limits: Limits) -> np.ndarray:
    """A visitor's image, upright; its size is looked at before it is decoded.

    Args:
        path (str or Path, optional): A file of any kind.
        limits (Limits): How large it may be.

    Returns:
        np.ndarray: RGB of shape (H, W, 3), uint8.

    Raises:
        WrongInput: There is none, or it is no image, broken or too large.
    """
    if path is None:
        raise WrongInput('Drop an image first, or click on an example.')
    path = Path(path)
    # The page deletes what is old. Messages have the name alone: the folder is no
    # business of a visitor.
    if not path.is_file():
        raise WrongInput(f'{path.name} was deleted meanwhile: drop it again.')
    if not path.stat().st_size:
        raise WrongInput(f'{path.name} is empty: it has no bytes.')
    try:
        with open_image(path) as file:
            width, height = file.size
    except UnidentifiedImageError:
        raise WrongInput(
            f'{path.name} cannot be read as an image: expected JPEG, PNG, WebP, GIF, '
            'BMP or TIFF.'
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
        return load_image(path)
    except ValueError as error:
        raise _broken(path, error.__cause__) from None


def _broken(path: Path, cause: BaseException | None = None) -> WrongInput:
    if isinstance(cause, ImageDepthError):
        return WrongInput(f'{path.name}: {cause}.')
    return WrongInput(
        f'{path.name} is broken: it begins as an image, but the rest is damaged or '
        'missing. Save or download it again.'
    )


def fit_to_screen(
    image: np.ndarray,
    boxes: Sequence[Sequence[float]],
    least: int = 640,
    most: int = 1280,
) -> tuple[np.ndarray, np.ndarray]:
    """Scale an image and its boxes so that boxes and legend can be read.

    Boxes are cut at the edges of the image: below it is the legend.

    Args:
        image (np.ndarray): RGB of shape (H, W, 3), uint8.
        boxes (Sequence): N boxes, xyxy in pixels.
        least (int): Long side that a smaller image gets. Defaults to 640.
        most (int): Long side that a larger image gets. Defaults to 1280.

    Returns:
        tuple: The image, and the boxes of shape (N, 4) in its pixels.
    """
    height, width = image.shape[:2]
    long = max(height, width)
    side = min(max(long, least), most)
    cut = np.clip(np.asarray(boxes, np.float64).reshape(-1, 4), 0, [width, height] * 2)
    if side == long:
        return image, cut
    size = [max(1, round(edge * side / long)) for edge in (width, height)]
    resized = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    ratio = np.array(size) / (width, height)
    return np.asarray(resized), cut * np.tile(ratio, 2)


def prediction_rows(
    boxes: Sequence[Sequence[float]],
    texts: Sequence[str],
    scores: Sequence[float | None],
    labels: Sequence[int] | None = None,
) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of a table of predictions.

    Args:
        boxes (Sequence): N boxes, xyxy in pixels.
        texts (Sequence[str]): The expressions.
        scores (Sequence[float or None]): Of the boxes; None where one has none.
        labels (Sequence[int], optional): The number of each box's expression. Defaults
            to None: there is a box for each, in order.

    Returns:
        tuple: The names of the columns; and rows, one for each box, and a short one for
        each expression without a box.
    """
    head = ['#', 'Expression', 'Left', 'Top', 'Right', 'Bottom']
    scored = any(score is not None for score in scores)
    if scored:
        head.append('Score')
    rows = []
    for number, own in enumerate(rows_of_expressions(labels, len(texts))):
        first = [str(number + 1), texts[number]]
        if not own:
            rows.append([*first, NO_TARGET])
        for row in own:
            edges = [f'{edge:.1f}' for edge in boxes[row]]
            own_score = '' if scores[row] is None else f'{scores[row]:.3f}'
            rows.append([*first, *edges, *([own_score] if scored else [])])
    return head, rows


def prediction_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], caption: str
) -> str:
    """HTML of a table of predictions, each number in the colour of its boxes."""
    colors = [color_of(int(row[0]) - 1) for row in rows]
    # Expressions are the visitor's: HTML in them is shown as text.
    template = Environment(autoescape=True).from_string(_TABLE)
    return template.render(head=head, rows=rows, colors=colors, caption=caption)


def ground(
    models: SharedModels,
    limits: Limits,
    name: str,
    path: str | Path | None,
    text: str | None,
) -> tuple[np.ndarray, str]:
    """Ground a visitor's expressions in an image.

    Args:
        models (SharedModels): The models of the page.
        limits (Limits): How much is taken.
        name (str): Of the checkpoint.
        path (str or Path, optional): The visitor's file.
        text (str, optional): The visitor's expressions.

    Returns:
        tuple: The image with boxes and legend, RGB of shape (H, W, 3), uint8; and
        the HTML of the table, its boxes in pixels of the visitor's image.

    Raises:
        WrongInput: The image or the expressions are invalid.
    """
    begun = time.perf_counter()
    expressions = read_expressions(text, limits)
    image = read_image(path, limits)
    prediction = models.predict(name, image, expressions)
    boxes, *named = (prediction[k] for k in ('bboxes', 'texts', 'labels', 'scores'))
    texts, labels, scores = named
    shown, scaled = fit_to_screen(image, boxes)
    drawn = draw_predictions(shown, scaled.tolist(), texts, labels, scores)
    seconds = time.perf_counter() - begun
    caption = f'{image.shape[1]} x {image.shape[0]} pixels, {seconds:.2f} s'
    return drawn, prediction_table(
        *prediction_rows(boxes, texts, scores, labels), caption
    )


def make_examples(
    folder: Path, count: int = 4, seed: int = 26
) -> list[tuple[Path, list[str]]]:
    """Synthetic images with expressions that are true of one object of each.

    Args:
        folder (Path): Output folder.
        count (int): How many. Defaults to 4.
        seed (int): Decides everything. Defaults to 26: a model of
            ``configs/clip_vg_synthetic.py`` grounds all objects of those four.

    Returns:
        list: ``count`` times an image and expressions of three of its objects.
    """
    examples = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        size, objects = sample_scene(rng)
        path = folder / f'shapes_{number + 1}.png'
        draw(size, objects, rng).save(path)
        everything = list(describe(size, objects, rng))
        by_object: dict[int, str] = {}
        for _, text, index in choose(everything, len(everything), rng):
            by_object.setdefault(index, text)
        examples.append((path, list(by_object.values())[:3]))
    return examples


def stored_bytes(folder: Path) -> int:
    """Bytes of all files in a folder and below it."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except FileNotFoundError:  # deleted meanwhile
                continue
    return total


class Guard:
    """Middleware of a server (ASGI) that refuses by :func:`refusal`.

    Args:
        app (Callable): What is guarded.
        hosts (Collection[str], optional): See :func:`refusal`.
        byte_limits (ByteLimits): The most bytes that may come in.
        folder (Path): The folder in which files are stored.
    """

    def __init__(
        self,
        app: Callable[..., Awaitable[None]],
        hosts: Collection[str] | None,
        byte_limits: ByteLimits,
        folder: Path,
    ) -> None:
        self.app, self.hosts = app, hosts
        self.byte_limits, self.folder = byte_limits, folder
        self._coming = 0

    async def __call__(
        self, scope: dict[str, Any], receive: Callable, send: Callable
    ) -> None:
        """Pass a request on, or refuse it with the reason."""
        if scope['type'] == 'lifespan':
            await self.app(scope, receive, send)
            return
        if scope['type'] != 'http':  # nothing here speaks WebSocket
            await send(dict(type='websocket.close', code=1008))
            return
        headers = {
            name.decode('latin1').lower(): value.decode('latin1')
            for name, value in scope['headers']
        }
        is_upload = scope['path'].rstrip('/').endswith('/upload')
        why = refusal(scope['method'], is_upload, headers, self.hosts, self.byte_limits)
        length = int(headers.get('content-length') or 0) if why is None else 0
        if why is None and is_upload:
            # Uploads on their way are in no folder yet.
            held = stored_bytes(self.folder) + self._coming
            if held + length > self.byte_limits.stored:
                why = (
                    507,
                    'The server stores no further files now. Try again in an hour.',
                )
        if why is not None:
            await _refuse(send, *why)
            return
        self._coming += length if is_upload else 0
        try:
            await self.app(scope, receive, send)
        finally:
            self._coming -= length if is_upload else 0


async def _refuse(send: Callable, status: int, text: str) -> None:
    head = [(b'content-type', b'text/plain; charset=utf-8'), (b'connection', b'close')]
    await send(dict(type='http.response.start', status=status, headers=head))
    await send(dict(type='http.response.body', body=text.encode()))
