"""Whether a label of a synthetic image is true, as a person would read it."""

import re
from collections.abc import Callable, Sequence

from projects.clip_vg.synthetic.expressions import MARGIN, RELATIONS, Shape
from projects.clip_vg.synthetic.scenes import COLORS, SHAPES
from projects.clip_vg_core.pseudo_labels.detection import Box, iou
from projects.clip_vg_core.pseudo_labels.geometry import predicates
from projects.clip_vg_core.pseudo_labels.plural import plural_of

__all__ = ['SET_VERDICTS', 'VERDICTS', 'verdict_of', 'verdict_of_set']

VERDICTS = (
    'right',
    'ambiguous',
    'wrong class',
    'wrong attribute',
    'wrong place',
    'wrong relation',
    'box off',
)
SET_VERDICTS = (
    'right',
    'incomplete',
    'has a referent',
    'wrong class',
    'wrong attribute',
    'wrong place',
    'box off',
)
# Plurals and words of number, and the singular as which the rest is read.
_SINGULARS = {plural_of(shape): shape for shape in SHAPES}
_SINGULARS |= {'ones': 'one', 'objects': 'object'}
_NUMBERS = {'all', 'both', 'two', 'three', 'four', 'five'}
_NOUN = rf'(?:(?:a|the) )?(?:(?:{"|".join(COLORS)}) )?(?:{"|".join(SHAPES)})\b'
_RELATION = re.compile(
    r'\b(left of|right of|above|below|inside|in front of|behind|next to|on) '
    rf'(?={_NOUN})'
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
        elif word in ('front', 'behind', 'back'):
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
            # As relation_word says it of shapes, which hold nothing.
            of_boxes = {'in front of': 'inside', 'behind': 'on'}
            said = of_boxes.get(predicate, predicate)
            return said in predicates(item.box, anchor.box)
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


def _meant_together(
    text: str, size: tuple[int, int], objects: Sequence[Shape]
) -> tuple[Callable[[Shape], str | None], list[Shape]]:
    """What is wrong with calling an object so, and all that a plural means."""
    words = [word for word in text.split() if word not in _NUMBERS]
    mistake = _named(' '.join(_SINGULARS.get(word, word) for word in words))
    meant = [item for item in objects if mistake(item) is None]
    for word in words:
        if word in _AXES:
            # Of several, all on that side of the middle of the image.
            axis, sign = _AXES[word]
            meant = [o for o in meant if sign * (o.center[axis] - size[axis] / 2) > 0]
    return mistake, meant


def _is_plural(text: str) -> bool:
    return any(word in _SINGULARS for word in text.split())


def verdict_of_set(
    text: str, boxes: Sequence[Box], size: tuple[int, int], objects: Sequence[Shape]
) -> str:
    """Compare a label of any number of targets with the truth.

    Args:
        text (str): A plural ("red stars", "both circles on the left"), or an expression
            as of :func:`verdict_of`; two of either with "and" between.
        boxes (Sequence[tuple]): xyxy in pixels.
        size (tuple[int, int]): (width, height) of the image.
        objects (Sequence[Shape]): The true objects.

    Returns:
        str: One of ``SET_VERDICTS``: 'right' if the boxes are those of all objects that
        are meant, each once (IoU of 0.5); 'incomplete' if some of them have no box;
        'has a referent' if a label without boxes means something; 'box off' if a box is
        no object's, or two are of one; else what is wrong for the object in a box.
    """
    parts = text.split(' and ')
    if len(parts) > 1 or not _is_plural(text):
        # A part means the object that alone makes it right, or nothing.
        verdicts = {
            number: {verdict_of(part, item.box, size, objects) for part in parts}
            for number, item in enumerate(objects)
        }
        meant = [objects[n] for n, found in verdicts.items() if 'right' in found]
        if any('ambiguous' in found for found in verdicts.values()) and not boxes:
            return 'has a referent'
        mistake = _named(parts[0])
    else:
        mistake, meant = _meant_together(text, size, objects)
    if not boxes:
        return 'has a referent' if meant else 'right'
    hits = [max(objects, key=lambda item: iou(box, item.box)) for box in boxes]
    pairs = zip(boxes, hits, strict=True)
    if len({id(hit) for hit in hits}) < len(boxes) or any(
        iou(box, hit.box) < 0.5 for box, hit in pairs
    ):
        return 'box off'
    for hit in hits:
        if not any(hit is item for item in meant):
            return mistake(hit) or 'wrong place'
    return 'right' if len(hits) == len(meant) else 'incomplete'
