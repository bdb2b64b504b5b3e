"""Simulated output of a detector, a scene-graph model and a captioner.

The true objects of synthetic images, with errors at given rates: so the labels that
generators make of them can be compared with the truth.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from projects.clip_vg_core.pseudo_labels.error_rates import ErrorRates
from projects.clip_vg_core.utils.atomic import replacing

from .expressions import MARGIN, RELATIONS, Shape
from .scenes import COLORS, SHAPES

__all__ = ['ErrorRates', 'simulate_predictions', 'read_shapes']


def read_shapes(instances: str | Path) -> Iterator[tuple[dict, list[Shape]]]:
    """The images of a synthetic data set and the true objects of each.

    Args:
        instances (str or Path): ``shapes/instances.json`` of ``make_synthetic``.

    Yields:
        tuple[dict, list[Shape]]: COCO's entry of the image, and its objects.
    """
    data = json.loads(Path(instances).read_text())
    objects: dict[int, list[Shape]] = {}
    for entry in data['annotations']:
        left, top, width, height = entry['bbox']
        box = (left, top, left + width, top + height)
        shape = SHAPES[entry['category_id'] - 1]
        item = Shape(shape, entry['color'], entry['size'], box)
        objects.setdefault(entry['image_id'], []).append(item)
    for image in data['images']:
        yield image, objects.get(image['id'], [])


def _other(
    names: tuple[str, ...] | list[str], name: str, rng: np.random.Generator
) -> str:
    return str(rng.choice([other for other in names if other != name]))


def _jitter(box: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    size = np.tile(box[2:] - box[:2], 2)
    return box + rng.uniform(-share, share, 4) * size


def _detect(item: Shape, rates: ErrorRates, rng: np.random.Generator) -> list[dict]:
    """The detections of one object."""
    if rng.random() < rates.missed:
        return []
    shape, color, box = item.shape, item.color, np.array(item.box)
    if rng.random() < rates.misclassed:
        shape = _other(SHAPES, shape, rng)
    if rng.random() < rates.recolored:
        color = _other(list(COLORS), color, rng)
    if rng.random() < rates.shifted:
        # Half a side in one axis leaves an IoU of a third.
        shift = np.zeros(2)
        shift[rng.integers(2)] = rng.choice((-0.5, 0.5))
        box = box + np.tile(shift * (box[2:] - box[:2]), 2)
    made = [(shape, _jitter(box, 0.03, rng), rng.uniform(0.6, 1.0))]
    if rng.random() < rates.doubled:
        made.append((shape, _jitter(box, 0.08, rng), rng.uniform(0.3, 0.6)))
    return [
        dict(
            category_id=SHAPES.index(name) + 1,
            bbox=[round(float(v), 2) for v in (*where[:2], *(where[2:] - where[:2]))],
            score=round(float(score), 4),
            attributes={color: round(float(rng.uniform(0.5, 1.0)), 4)},
        )
        for name, where, score in made
    ]


def _relate(
    long_side: int, objects: list[Shape], rates: ErrorRates, rng: np.random.Generator
) -> Iterator[dict]:
    """The edges of a scene graph."""

    def end(item: Shape) -> dict:
        left, top, right, bottom = item.box
        named = f'{item.color} {item.shape}' if rng.random() < 0.5 else item.shape
        box = [round(v, 2) for v in (left, top, right - left, bottom - top)]
        return dict(name=named, bbox=box, score=round(float(rng.uniform(0.4, 1)), 4))

    for subject in objects:
        for other in objects:
            for predicate, (axis, sign) in RELATIONS.items():
                ahead = sign * (subject.center[axis] - other.center[axis])
                if subject is other or ahead <= MARGIN * long_side:
                    continue
                if rng.random() < rates.relation:
                    predicate = _other(list(RELATIONS), predicate, rng)
                yield dict(
                    subject=end(subject),
                    predicate=predicate,
                    object=end(other),
                    score=round(float(rng.uniform(0.1, 1)), 4),
                )


def _caption(
    size: tuple[int, int],
    objects: list[Shape],
    rates: ErrorRates,
    rng: np.random.Generator,
) -> str:
    """One sentence about one object."""
    item = objects[rng.integers(len(objects))]
    color, across = item.color, item.center[0] / size[0] - 0.5
    side = 'right' if across > 0 else 'left'
    if rng.random() < rates.caption:
        if rng.random() < 0.5:
            color = _other(list(COLORS), color, rng)
        else:
            side = 'left' if side == 'right' else 'right'
    text = str(rng.choice(('a {} {} {}', 'there is a {} {} {}')))
    place = f' on the {side}' if abs(across) > MARGIN else ''
    return text.format(item.size, color, item.shape) + place


def simulate_predictions(
    instances: str | Path,
    out: str | Path,
    rates: ErrorRates | None = None,
    seed: int = 0,
) -> Path:
    """Simulate models with known errors on a synthetic data set.

    Args:
        instances (str or Path): ``shapes/instances.json`` of ``make_synthetic``.
        out (str or Path): Folder; gets ``detections.json`` (COCO results with
            colours), ``captions.json`` and ``triplets.json``.
        rates (ErrorRates, optional): Defaults to None: all defaults.
        seed (int): Defaults to 0.

    Returns:
        Path: ``out``.
    """
    rates, out = rates or ErrorRates(), Path(out)
    detections: list[dict] = []
    triplets: list[dict] = []
    captions: list[dict] = []
    for image, objects in read_shapes(instances):
        # An image's errors do not depend on which others there are.
        rng = np.random.default_rng([seed, image['id']])
        name = dict(image_id=image['id'])
        size = (image['width'], image['height'])
        detections += [name | e for o in objects for e in _detect(o, rates, rng)]
        triplets += [name | e for e in _relate(max(size), objects, rates, rng)]
        if objects:
            captions.append(name | dict(caption=_caption(size, objects, rates, rng)))
    out.mkdir(parents=True, exist_ok=True)
    for file, entries in (
        ('detections.json', detections),
        ('triplets.json', triplets),
        ('captions.json', captions),
    ):
        with replacing(out / file) as partial:
            partial.write_text(json.dumps(entries))
    return out
