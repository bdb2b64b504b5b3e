"""Expressions that are true of exactly one object of a synthetic image."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

__all__ = [
    'MARGIN',
    'RELATIONS',
    'SIDES',
    'SIDE_TEXTS',
    'Shape',
    'choose',
    'describe',
    'nouns',
    'only',
]

_Referent = TypeVar('_Referent', int, tuple[int, ...])
MARGIN = 0.08  # of the long side: how clearly an object must lie on a side


@dataclass(frozen=True)
class Shape:
    """One object of an image.

    Args:
        shape (str): One of ``synthetic.SHAPES``.
        color (str): A key of ``synthetic.COLORS``.
        size (str): 'small' or 'big'.
        box (tuple[float, ...]): xyxy in pixels.
    """

    shape: str
    color: str
    size: str
    box: tuple[float, float, float, float]

    @property
    def center(self) -> tuple[float, float]:
        """Centre (x, y) in pixels."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2


def only(objects: Sequence[Shape], fits: Callable[[Shape], bool]) -> int | None:
    """The index of the one object that fits, or None if not exactly one does."""
    found = [i for i, item in enumerate(objects) if fits(item)]
    return found[0] if len(found) == 1 else None


def nouns(item: Shape) -> Iterator[tuple[str, Callable[[Shape], bool]]]:
    """Ways to name an object, and what else each name fits."""
    yield item.shape, lambda o: o.shape == item.shape
    yield f'{item.color} one', lambda o: o.color == item.color
    yield (
        f'{item.color} {item.shape}',
        lambda o: (o.color, o.shape) == (item.color, item.shape),
    )
    yield (
        f'{item.size} {item.shape}',
        lambda o: (o.size, o.shape) == (item.size, item.shape),
    )
    yield (
        f'{item.size} {item.color} {item.shape}',
        lambda o: (o.size, o.color, o.shape) == (item.size, item.color, item.shape),
    )


# word -> (axis, sign): the object with the largest sign * centre[axis] is meant.
SIDES = {'left': (0, -1), 'right': (0, 1), 'top': (1, -1), 'bottom': (1, 1)}
SIDE_TEXTS = {
    'left': ('left {}', '{} on the left', 'leftmost {}'),
    'right': ('right {}', '{} on the right', 'rightmost {}'),
    'top': ('top {}', '{} at the top', 'uppermost {}'),
    'bottom': ('bottom {}', '{} at the bottom', 'lowest {}'),
}
RELATIONS = {'left of': (0, -1), 'right of': (0, 1), 'above': (1, -1), 'below': (1, 1)}


def describe(
    size: tuple[int, int], objects: list[Shape], rng: np.random.Generator
) -> Iterator[tuple[str, str, int]]:
    """All kinds of true, unambiguous expressions for the objects of an image.

    Args:
        size (tuple[int, int]): (width, height) in pixels.
        objects (list[Shape]): What is in it.
        rng (np.random.Generator): Chooses among phrasings.

    Yields:
        tuple[str, str, int]: Kind ('attribute', 'place', 'size', 'relation'),
        expression, and the index of the referent.
    """
    margin = MARGIN * max(size)
    for index, item in enumerate(objects):
        for noun, fits in nouns(item):
            if only(objects, fits) == index:
                yield 'attribute', noun, index
        yield from _place_expressions(objects, index, margin, rng)
        yield from _relation_expressions(objects, index, margin)
    areas = [(o.box[2] - o.box[0]) * (o.box[3] - o.box[1]) for o in objects]
    order = np.argsort(areas)
    # By a margin: which of two alike is larger, nobody would say.
    if len(objects) > 1 and areas[order[-1]] > 1.3 * areas[order[-2]]:
        yield (
            'size',
            str(rng.choice(('largest object', 'biggest thing'))),
            int(order[-1]),
        )
    if len(objects) > 1 and areas[order[1]] > 1.3 * areas[order[0]]:
        yield (
            'size',
            str(rng.choice(('smallest object', 'tiniest thing'))),
            int(order[0]),
        )


def _place_expressions(
    objects: list[Shape], index: int, margin: float, rng: np.random.Generator
) -> Iterator[tuple[str, str, int]]:
    item = objects[index]
    groups = {
        'object': list(objects),
        item.shape: [o for o in objects if o.shape == item.shape],
        f'{item.color} one': [o for o in objects if o.color == item.color],
    }
    for noun, group in groups.items():
        if len(group) < 2:
            continue
        for side, (axis, sign) in SIDES.items():
            others = [sign * o.center[axis] for o in group if o is not item]
            if sign * item.center[axis] > max(others) + margin:
                text = str(rng.choice(SIDE_TEXTS[side]))
                yield 'place', text.format(noun), index


def _relation_expressions(
    objects: list[Shape], index: int, margin: float
) -> Iterator[tuple[str, str, int]]:
    """'star left of the red square': among several stars, one is left of it."""
    item = objects[index]
    same = [o for o in objects if o.shape == item.shape]
    if len(same) < 2:
        return
    for anchor_index, anchor in enumerate(objects):
        name = next(
            (n for n, fits in nouns(anchor) if only(objects, fits) == anchor_index),
            None,
        )
        if anchor.shape == item.shape or name is None:
            continue
        for words, (axis, sign) in RELATIONS.items():
            lead = {id(o): sign * (o.center[axis] - anchor.center[axis]) for o in same}
            others = [value for key, value in lead.items() if key != id(item)]
            if lead[id(item)] > margin and max(others) < -margin / 2:
                yield 'relation', f'{item.shape} {words} the {name}', index


def choose(
    expressions: list[tuple[str, str, _Referent]], most: int, rng: np.random.Generator
) -> list[tuple[str, str, _Referent]]:
    """A mix of kinds: each pick draws a kind first, then one of its expressions.

    Args:
        expressions (list): Kind, expression, and referent or referents of each;
            doubles count once.
        most (int): How many to choose, if there are as many.
        rng (np.random.Generator): Decides.

    Returns:
        list: The chosen ones.
    """
    by_kind: dict[str, list[tuple[str, str, _Referent]]] = {}
    for kind, text, index in dict.fromkeys(expressions):
        by_kind.setdefault(kind, []).append((kind, text, index))
    chosen: list[tuple[str, str, _Referent]] = []
    while by_kind and len(chosen) < most:
        # Kinds first: relations are many, and would crowd out the others.
        kind = str(rng.choice(sorted(by_kind)))
        chosen.append(by_kind[kind].pop(int(rng.integers(len(by_kind[kind])))))
        if not by_kind[kind]:
            del by_kind[kind]
    return chosen
