"""Expressions that are true of several objects of a synthetic image, or of none."""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import numpy as np

from projects.clip_vg_core.pseudo_labels.plural import plural_of

from .expressions import MARGIN, RELATIONS, SIDE_TEXTS, SIDES, Shape, nouns, only
from .scenes import COLORS, SHAPES

__all__ = ['describe_none', 'describe_several']

_COUNTS = {2: ('both', 'two'), 3: ('three',), 4: ('four',), 5: ('five',)}


def _groups(objects: Sequence[Shape]) -> dict[str, list[int]]:
    """What several objects can be called together, and which these are."""
    groups: dict[str, list[int]] = {}
    for index, item in enumerate(objects):
        shape = plural_of(item.shape)
        for name in (
            shape,
            f'{item.color} ones',
            f'{item.color} {shape}',
            f'{item.size} {shape}',
        ):
            groups.setdefault(name, []).append(index)
    return groups


def _counted(name: str, count: int, rng: np.random.Generator) -> str:
    """The name of a group, half of the times with a word for how many there are."""
    if rng.random() < 0.5:
        return name
    return f'{rng.choice(("all", *_COUNTS[count]))} {name}'


def describe_several(
    size: tuple[int, int], objects: Sequence[Shape], rng: np.random.Generator
) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """All kinds of true expressions for two or more objects of an image.

    Args:
        size (tuple[int, int]): (width, height) in pixels.
        objects (Sequence[Shape]): What is in it.
        rng (np.random.Generator): Chooses among phrasings.

    Yields:
        tuple[str, str, tuple[int, ...]]: Kind ('several', 'several by place',
        'several by name'), expression, and the indices of the referents, ascending.
    """
    groups = _groups(objects)
    for name, members in groups.items():
        if len(members) > 1:
            yield 'several', _counted(name, len(members), rng), tuple(members)
    everything = {'objects': list(range(len(objects)))}
    for name, members in {**groups, **everything}.items():
        for side, (axis, sign) in SIDES.items():
            # By a margin from the middle of the image, on either side of it.
            lead = [
                sign * (objects[i].center[axis] - size[axis] / 2) / max(size)
                for i in members
            ]
            meant = [i for i, v in zip(members, lead, strict=True) if v > MARGIN]
            clear = all(abs(value) > MARGIN for value in lead)
            if clear and 1 < len(meant) < len(members):
                place = SIDE_TEXTS[side][1].format(_counted(name, len(meant), rng))
                yield 'several by place', place, tuple(meant)
    named = [
        [text for text, fits in nouns(item) if only(objects, fits) == index]
        for index, item in enumerate(objects)
    ]
    for one, other in combinations(range(len(objects)), 2):
        if named[one] and named[other]:
            texts = [str(rng.choice(named[index])) for index in (one, other)]
            rng.shuffle(texts)
            yield 'several by name', ' and '.join(texts), (one, other)


def describe_none(
    objects: Sequence[Shape], rng: np.random.Generator, tries: int = 30
) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Expressions whose name no object of an image has.

    Half of them differ by one word from the name of an object that is there.

    Args:
        objects (Sequence[Shape]): What is in the image.
        rng (np.random.Generator): Draws words and phrasings.
        tries (int): How many names are drawn. Defaults to 30.

    Yields:
        tuple[str, str, tuple[int, ...]]: Kind ('none', 'none of several', 'none by
        place', 'none by relation'), expression, and no index.
    """
    anchors = [
        text
        for index, item in enumerate(objects)
        for text, fits in nouns(item)
        if only(objects, fits) == index
    ]
    for _ in range(tries if objects else 0):
        name, absent = _absent(objects, rng)
        if not absent(objects):
            continue
        shape = name.rsplit(' ', 1)[-1]
        many = name.removesuffix(shape) + plural_of(shape)
        side = str(rng.choice(list(SIDES)))
        yield 'none', name, ()
        yield 'none of several', f'{rng.choice(("", "all ", "two "))}{many}', ()
        yield 'none by place', str(rng.choice(SIDE_TEXTS[side])).format(name), ()
        if anchors:
            words, anchor = rng.choice(list(RELATIONS)), rng.choice(anchors)
            yield 'none by relation', f'{name} {words} the {anchor}', ()


def _absent(
    objects: Sequence[Shape], rng: np.random.Generator
) -> tuple[str, Callable[[Sequence[Shape]], bool]]:
    """A name, and whether no object has it."""
    color, shape = str(rng.choice(list(COLORS))), str(rng.choice(SHAPES))
    if rng.random() < 0.25:
        kind = int(rng.integers(2))
        return (
            (shape, f'{color} one')[kind],
            lambda those: (
                not any((o.shape == shape, o.color == color)[kind] for o in those)
            ),
        )
    if rng.random() < 2 / 3:
        item = objects[int(rng.integers(len(objects)))]
        if rng.random() < 0.5:
            color = item.color
        else:
            shape = item.shape
    return (
        f'{color} {shape}',
        lambda those: not any((o.color, o.shape) == (color, shape) for o in those),
    )
