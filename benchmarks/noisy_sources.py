"""Three sources of pseudo-labels whose errors are known, on synthetic images.

They differ in language, as the paper's do: template ("red star", "left blue circle"),
relation ("red star left of the circle", "object above all others"), caption ("there is
a big red star on the left"). A fourth knows names alone ("star"), to begin with.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path

import numpy as np

from projects.clip_vg.synthetic.data_set import make_synthetic
from projects.clip_vg.synthetic.detections import read_shapes
from projects.clip_vg.synthetic.expressions import MARGIN, RELATIONS, Shape, choose
from projects.clip_vg.synthetic.scenes import LARGE_SIDES
from projects.clip_vg_core.utils.atomic import replacing

__all__ = ['CLEAN', 'SLOPPY', 'SOURCES', 'is_right', 'make_noisy_sources']

SOURCES = ('template', 'relation', 'caption')
CLEAN, SLOPPY, WRONG, AMBIGUOUS = range(4)
_KIND = attrgetter('color', 'shape')
# How often an expression names no single object any more.
_VAGUE = {
    'template': ('object', 'thing', 'shape'),
    'relation': ('object near another', 'thing beside a shape'),
    'caption': ('a picture of some objects', 'some shapes on a plain ground'),
    'names': ('object',),
}


def is_right(kinds: np.ndarray) -> np.ndarray:
    """Which labels have the right object, if perhaps a sloppy box."""
    return kinds <= SLOPPY


def _places(size: tuple[int, int], item: Shape) -> list[str]:
    """On which sides of the image's centre an object clearly is."""
    across, down = (item.center[i] / size[i] - 0.5 for i in (0, 1))
    found = []
    if abs(across) > MARGIN:
        found.append('right' if across > 0 else 'left')
    if abs(down) > MARGIN:
        found.append('bottom' if down > 0 else 'top')
    return found


def _named_once(
    objects: list[Shape], name: Callable[[Shape], object]
) -> Iterator[tuple[int, Shape]]:
    """Objects whose name no other has."""
    names = [name(item) for item in objects]
    for index, item in enumerate(objects):
        if names.count(names[index]) == 1:
            yield index, item


def _template(
    size: tuple[int, int],
    objects: list[Shape],
    rng: np.random.Generator,  # noqa: ARG001  # one signature for the three
) -> Iterator[tuple[str, str, int]]:
    for index, item in _named_once(objects, _KIND):
        name = f'{item.color} {item.shape}'
        yield 'name', name, index
        yield 'size', f'{item.size} {name}', index
        for place in _places(size, item):
            yield 'place', f'{place} {name}', index
            yield 'where', f'{name} {place}', index


def _relation(
    size: tuple[int, int],
    objects: list[Shape],
    rng: np.random.Generator,  # noqa: ARG001  # one signature for the three
) -> Iterator[tuple[str, str, int]]:
    margin = MARGIN * max(size)
    for word, (axis, sign) in RELATIONS.items():
        along = [sign * item.center[axis] for item in objects]
        if len(objects) < 2:
            return
        first, second = np.argsort(along)[:-3:-1]
        if along[first] > along[second] + margin:
            yield 'all', f'{objects[first].shape} {word} everything else', int(first)
            yield 'all', f'object {word} all others', int(first)
        for anchor in objects:
            if sum(o.shape == anchor.shape for o in objects) > 1:
                continue
            ahead = [a - sign * anchor.center[axis] > margin for a in along]
            if sum(ahead) == 1:
                index = ahead.index(True)
                noun = f'{objects[index].color} {objects[index].shape}'
                yield 'one', f'{noun} {word} the {anchor.shape}', index


def _caption(
    size: tuple[int, int],
    objects: list[Shape],
    rng: np.random.Generator,  # noqa: ARG001
) -> Iterator[tuple[str, str, int]]:
    words = dict(left='on the left', right='on the right')
    words.update(top='at the top', bottom='at the bottom')
    for index, item in _named_once(objects, _KIND):
        for place in _places(size, item) or ['middle']:
            for start in ('a picture with', 'there is', 'you can see'):
                text = f'{start} a {item.size} {item.color} {item.shape} '
                yield start, text + words.get(place, 'in the middle'), index


def _names(
    size: tuple[int, int],  # noqa: ARG001
    objects: list[Shape],
    rng: np.random.Generator,  # noqa: ARG001
) -> Iterator[tuple[str, str, int]]:
    for index, item in _named_once(objects, attrgetter('shape')):
        yield 'name', item.shape, index


_LANGUAGES = {
    'template': _template,
    'relation': _relation,
    'caption': _caption,
    'names': _names,
}


def _sloppy(box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A box whose IoU with the right one is 0.5 to 0.75."""
    size = np.tile(box[2:] - box[:2], 2)
    while True:
        moved = box + rng.uniform(-0.25, 0.25, 4) * size
        overlap = np.prod(
            np.clip(np.minimum(box, moved)[2:] - np.maximum(box, moved)[:2], 0, None)
        )
        union = np.prod(box[2:] - box[:2]) + np.prod(moved[2:] - moved[:2]) - overlap
        if 0.5 <= overlap / union <= 0.75:
            return moved


def _spoil(
    text: str,
    index: int,
    boxes: np.ndarray,
    vague: tuple[str, ...],
    rates: Mapping[str, float],
    rng: np.random.Generator,
) -> tuple[str, np.ndarray, int]:
    """A label with its error, if it gets one."""
    lot = rng.random()
    if lot < rates.get('wrong', 0) and len(boxes) > 1:
        others = [i for i in range(len(boxes)) if i != index]
        return text, boxes[rng.choice(others)], WRONG
    if lot < rates.get('wrong', 0) + rates.get('ambiguous', 0) and len(boxes) > 1:
        return str(rng.choice(vague)), boxes[index], AMBIGUOUS
    if rng.random() < rates.get('sloppy', 0):
        return text, _sloppy(boxes[index], rng), SLOPPY
    return text, boxes[index], CLEAN


def make_noisy_sources(
    root: str | Path,
    images: Mapping[str, int],
    rates: Mapping[str, Mapping[str, float]],
    seed: int,
    per_image: int = 8,
) -> Path:
    """Make images, clean ``val.jsonl`` and ``test.jsonl``, and noisy sources.

    ``root/pictures`` is what :func:`make_synthetic` makes; beside it lie
    ``<source>.jsonl`` (ODVG), ``<source>.kinds.npy``, int8, the error of each
    label: 0 none, 1 sloppy box, 2 wrong object, 3 ambiguous expression; and
    ``<source>.truth.npy``, (N, 4) xyxy, the box that each expression means, NaN where
    it is ambiguous.

    Args:
        root (str or Path): Output folder; what is complete there is not made again.
        images (Mapping[str, int]): Images of 'train', 'val', 'test'.
        rates (Mapping): For each source ('template', 'relation', 'caption', 'names')
            the shares 'wrong', 'ambiguous', and 'sloppy' (of the others).
        seed (int): Decides everything.
        per_image (int): Most labels of a source for an image. Defaults to 8.

    Returns:
        Path: ``root``.
    """
    root = Path(root)
    toy = make_synthetic(root / 'pictures', images, seed, sides=LARGE_SIDES)
    if all((root / f'{source}.truth.npy').exists() for source in rates):
        return root
    scenes = list(read_shapes(toy / 'shapes' / 'instances.json'))
    objects = {image['id']: items for image, items in scenes}
    firsts = np.cumsum([0, *images.values()])
    parts = {
        split: [image for image, _ in scenes[start:end]]
        for split, start, end in zip(images, firsts, firsts[1:], strict=False)
    }
    for split, number in (('val', 10), ('test', 11)):
        # People say all of it, and mean one object.
        rng = np.random.default_rng([seed, number])
        truth = [
            line
            for image in parts[split]
            for source in rates
            for line, *_ in _label(source, image, objects[image['id']], {}, 2, rng)
        ]
        _write(root, split, truth)
    for number, source in enumerate(rates):
        rng = np.random.default_rng([seed, number])
        labels = [
            label
            for image in parts['train']
            for label in _label(
                source, image, objects[image['id']], rates[source], per_image, rng
            )
        ]
        lines, kinds, truth = zip(*labels, strict=True)
        _write(
            root, source, lines, kinds=np.array(kinds, np.int8), truth=np.array(truth)
        )
    return root


def _label(
    source: str,
    image: dict,
    objects: list[Shape],
    rates: Mapping[str, float],
    per_image: int,
    rng: np.random.Generator,
) -> Iterator[tuple[dict, int, np.ndarray]]:
    size = (image['width'], image['height'])
    found = choose(list(_LANGUAGES[source](size, objects, rng)), per_image, rng)
    boxes = np.array([item.box for item in objects])
    for place, (_, expression, index) in enumerate(found):
        text, box, kind = _spoil(expression, index, boxes, _VAGUE[source], rates, rng)
        region = dict(
            bbox=[round(float(edge), 2) for edge in box],
            phrase=text,
            tokens_positive=[[0, len(text)]],
        )
        line = dict(
            filename=image['file_name'],
            height=image['height'],
            width=image['width'],
            grounding=dict(caption=text, regions=[region]),
            sample_id=f'{source}_{image["id"]}_{place}',
            split='train',
            source=source,
        )
        truth = boxes[index] if kind != AMBIGUOUS else np.full(4, np.nan)
        yield line, kind, truth


def _write(root: Path, name: str, lines: Sequence[dict], **known: np.ndarray) -> None:
    """The labels, then what is known of them; each whole or not at all."""
    with replacing(root / f'{name}.jsonl') as partial:
        partial.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    for what, array in known.items():
        with replacing(root / f'{name}.{what}.npy') as partial:
            np.save(partial, array)
