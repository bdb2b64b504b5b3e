"""Expressions that refer to nothing in a synthetic picture, by its truth."""

import re
from collections.abc import Sequence

import numpy as np

from .expressions import RELATIONS, Shape
from .scenes import COLORS, SHAPES

__all__ = ['absent_twin', 'names_nothing']

_RELATION = re.compile(rf' (?:{"|".join(RELATIONS)}) ')


def _subject(text: str) -> str:
    """What is looked for, without the object it stands beside."""
    return _RELATION.split(text)[0]


def names_nothing(text: str, objects: Sequence[Shape]) -> bool:
    """Whether no object has the name of what is looked for.

    Args:
        text (str): An expression of :mod:`.expressions`.
        objects (Sequence[Shape]): The true objects of the picture.

    Returns:
        bool: False too if the name says neither colour nor shape ("left object"):
        something in the picture is meant by it.
    """
    words = set(_subject(text).split())
    named = words & {*COLORS, *SHAPES, 'big', 'small'}
    return bool(words & {*COLORS, *SHAPES}) and not any(
        named <= {item.color, item.shape, item.size} for item in objects
    )


def absent_twin(
    text: str, objects: Sequence[Shape], rng: np.random.Generator
) -> str | None:
    """Change one word of an expression so that it refers to nothing.

    Args:
        text (str): An expression of :mod:`.expressions`.
        objects (Sequence[Shape]): The true objects of the picture.
        rng (np.random.Generator): Chooses the word.

    Returns:
        str, optional: With another colour or another shape; None if the expression has
        neither, or every change fits some object.
    """
    subject = _subject(text)
    rest = text.removeprefix(subject)
    words = subject.split()
    twins = [
        ' '.join([*words[:place], other, *words[place + 1 :]]) + rest
        for place, word in enumerate(words)
        for kind in (tuple(COLORS), SHAPES)
        if word in kind
        for other in kind
        if other != word
    ]
    absent = [twin for twin in twins if names_nothing(twin, objects)]
    return str(rng.choice(absent)) if absent else None
