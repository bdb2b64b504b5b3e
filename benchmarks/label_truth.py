"""Whether a label of a synthetic image is true, as a person would read it."""

import re
from collections.abc import Callable, Sequence

from projects.clip_vg.synthetic.expressions import MARGIN, RELATIONS, Shape
from projects.clip_vg.synthetic.scenes import COLORS, SHAPES
from projects.clip_vg_core.pseudo_labels.detection import Box, iou
from projects.clip_vg_core.pseudo_labels.geometry import predicates

__all__ = ['VERDICTS', 'verdict_of']

VERDICTS = (
    'right',
    'ambiguous',
    'wrong class',
    'wrong attribute',
    'wrong place',
    'wrong relation',
    'box off',
)
_NOUN = rf'(?:(?:a|the) )?(?:(?:{"|".join(COLORS)}) )?(?:{"|".join(SHAPES)})\b'
_RELATION = re.compile(
    rf'\b(left of|right of|above|below|inside|next to|on) (?={_NOUN})'
)
_AXES = {'left': (0, -1), 'right': (0, 1), 'top': (1, -1), 'bottom': (1, 1)}


def _named(text: str) -> Callable[[Shape], str | None]:
    """What is wrong with calling an object so; None if nothing is."""
    words = set(text.split())
    shapes, colors = words & set(SHAPES), words & set(COLORS)
    sizes = words & {'big', 'small'}

    def mistake(item: Shape) -> str | None:
        if shapes - {item.shape}:
            return 'wrong class'
        if colors - {item.color} or sizes - {item.size}:
            return 'wrong attribute'
        return None

    return mistake


def _placed(text: str, named: Sequence[Shape]) -> list[Shape]:
    """Those of the objects of one name that are where the words say."""
    found = list(named)
    if len(named) < 2:  # the only one is meant, wherever it is
        return found
    for word in text.split():
        if word in _AXES:
            axis, sign = _AXES[word]
            best = max(named, key=lambda item: sign * item.center[axis])
            found = [item for item in found if item is best]
        elif word in ('front', 'behind'):
            sign = 1 if word == 'front' else -1
            best = max(named, key=lambda item: sign * _area(item))
            found = [item for item in found if item is best]
        elif word in ('middle', 'center'):
            # Along x only, as template labels say it.
            between = sorted(named, key=lambda item: item.center[0])[1:-1]
            found = [item for item in found if item in between]
    return found


def _area(item: Shape) -> float:
    return (item.box[2] - item.box[0]) * (item.box[3] - item.box[1])


def _related(
    predicate: str, named: Sequence[Shape], anchors: Sequence[Shape], long_side: int
) -> list[Shape]:
    """Those of the objects for which the relation to an anchor holds."""

    def holds(item: Shape, anchor: Shape) -> bool:
        if predicate not in RELATIONS:
            return predicate in predicates(item.box, anchor.box)
        axis, sign = RELATIONS[predicate]
        ahead = sign * (item.center[axis] - anchor.center[axis])
        return ahead > MARGIN * long_side

    return [
        item
        for item in named
        if any(item is not anchor and holds(item, anchor) for anchor in anchors)
    ]


def verdict_of(
    text: str, box: Box, size: tuple[int, int], objects: Sequence[Shape]
) -> str:
    """Compare a label with the truth.

    Args:
        text (str): The expression: shapes, colours, sizes, words of place, one
            relation.
        box (tuple[float, float, float, float]): xyxy in pixels.
        size (tuple[int, int]): (width, height) of the image.
        objects (Sequence[Shape]): The true objects.

    Returns:
        str: One of ``VERDICTS``: 'right' if the expression fits one object alone, and
        the box is that object's (IoU of 0.5); 'ambiguous' if it fits several, the
        box's among them; 'box off' if the box is no object's; else what is wrong in
        the expression for the object in the box.
    """
    hit = max(objects, key=lambda item: iou(box, item.box), default=None)
    if hit is None or iou(box, hit.box) < 0.5:
        return 'box off'
    relation = _RELATION.search(text)
    subject = text[: relation.start()] if relation else text
    mistake = _named(subject)
    if wrong := mistake(hit):
        return wrong
    meant = [item for item in objects if mistake(item) is None]
    if relation:
        other = _named(text[relation.end() :])
        anchors = [item for item in objects if other(item) is None]
        meant = _related(relation[1], meant, anchors, max(size))
        if hit not in meant:
            return 'wrong relation'
    else:
        meant = _placed(subject, meant)
        if hit not in meant:
            return 'wrong place'
    return 'right' if len(meant) == 1 else 'ambiguous'
