"""Geometric relations between detections: a scene graph without a model."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

from .cleaning import clean_detections, use_attribute
from .detection import (
    Box,
    CheckedOptions,
    Detection,
    PseudoLabel,
    Scene,
    Triplet,
    intersection,
)
from .relation import RelationOptions, rank_triplets
from .template import Describe
from .vocabulary import PEOPLE, THINGS, Vocabulary

__all__ = ['GeometryOptions', 'geometry_labels', 'predicates', 'relation_word']


@dataclass(frozen=True)
class GeometryOptions(CheckedOptions):
    """The constants of the geometry source; none is official.

    Args:
        min_object_score (float): Both objects must be surer. Defaults to 0.2, as for
            relations.
        expressions (int): Most labels of an image. Defaults to 10, as for relations.
        min_area (float): Least area of an object, as a share of the image's.
            Defaults to 1 / 64, as for templates.
        max_iou (float): IoU above which two boxes are one object. Defaults to 0.4, as
            for templates.
        min_attribute_score (float): A less sure attribute is not said. Defaults to 0.3,
            as for templates.
        attribute_iou (float): IoU above which another detector's attribute is copied.
            Defaults to 0.5, as for templates.
        unique (bool): Whether to leave out a text that several subjects of the image
            have, "cup left of plate" for two cups. Defaults to True.
    """

    min_object_score: float = 0.2
    expressions: int = 10
    min_area: float = 1 / 64
    max_iou: float = 0.4
    min_attribute_score: float = 0.3
    attribute_iou: float = 0.5
    unique: bool = True


def _shared(one: Box, other: Box, axis: int) -> float:
    """Overlap of two boxes along an axis, as a share of the shorter side."""
    low, high = max(one[axis], other[axis]), min(one[axis + 2], other[axis + 2])
    shorter = min(box[axis + 2] - box[axis] for box in (one, other))
    return max(0.0, high - low) / shorter


def _gap(one: Box, other: Box, axis: int) -> float:
    """Pixels between two boxes along an axis; negative where they overlap."""
    return max(one[axis], other[axis]) - min(one[axis + 2], other[axis + 2])


def predicates(subject: Box, other: Box) -> Iterator[str]:
    """How one box lies to another.

    - 'inside': 90 % of the subject is in the object, which is twice as large, as
      :func:`relation_word` says it;
    - 'on': not inside; the boxes touch; half of the subject's width is above the
      object, its bottom in the object's upper half, its top above the object's top;
    - 'left of', 'right of': no overlap in x, and half of the lower one's height is
      beside the other;
    - 'above', 'below': the same in y;
    - 'next to': beside each other, with a gap of at most half the narrower width.

    Args:
        subject (tuple[float, float, float, float]): xyxy.
        other (tuple[float, float, float, float]): xyxy, the object's.

    Yields:
        str: The predicates that hold.
    """
    widths = subject[2] - subject[0], other[2] - other[0]
    heights = subject[3] - subject[1], other[3] - other[1]
    area = widths[0] * heights[0]
    within = intersection(subject, other) / area
    if within >= 0.9 and 2 * area <= widths[1] * heights[1]:
        yield 'inside'
    elif (
        _shared(subject, other, 0) * min(widths) >= widths[0] / 2
        and other[1] <= subject[3] <= other[1] + heights[1] / 2
        and subject[1] < other[1]
    ):
        yield 'on'
    gap = _gap(subject, other, 0)
    if gap >= 0 and _shared(subject, other, 1) >= 0.5:
        yield 'left of' if subject[0] < other[0] else 'right of'
        if gap <= min(widths) / 2:
            yield 'next to'
    if _gap(subject, other, 1) >= 0 and _shared(subject, other, 0) >= 0.5:
        yield 'above' if subject[1] < other[1] else 'below'


def relation_word(
    predicate: str, subject: str, name: str, vocabulary: Vocabulary
) -> str | None:
    """How a predicate of boxes is said of objects of two classes.

    A box within another one shows a thing inside of a container, on a table that is
    seen from above, or, of most classes, a thing in front of another; of vehicles it
    may be the first or the last. A box on another one of the same class, or of a person
    on a person's, shows who is behind; other things on a person's are not told.

    Args:
        predicate (str): Of :func:`predicates`.
        subject (str): Class of the subject.
        name (str): Class of the object, to which the subject lies.
        vocabulary (Vocabulary): Which classes are people, and which are containers,
            surfaces and vehicles, by their name or its last word.

    Returns:
        str: Or None where the boxes do not tell.
    """
    if predicate == 'on':
        groups = [vocabulary.group_of(one) for one in (subject, name)]
        if subject == name or groups == [PEOPLE, PEOPLE]:
            return 'behind'
        return None if groups[1] == PEOPLE else 'on'
    if predicate != 'inside':
        return predicate
    known = {name, name.rsplit(' ', 1)[-1]}
    if known & set(vocabulary.vehicles):
        return None
    if known & set(vocabulary.surfaces):
        return 'on'
    return 'inside' if known & set(vocabulary.containers) else 'in front of'


def geometry_labels(
    scene: Scene,
    vocabulary: Vocabulary,
    options: GeometryOptions | None = None,
    describe: Describe | None = None,
    dropped: Counter | None = None,
) -> list[PseudoLabel]:
    """Make labels of how the objects of an image lie to each other.

    Args:
        scene (Scene): The image and its detections.
        vocabulary (Vocabulary): Groups of classes.
        options (GeometryOptions, optional): Defaults to None: all defaults.
        describe (Callable, optional): Gives the detections that are left after
            cleaning their attributes. Defaults to None: those of their file.
        dropped (Counter, optional): Gets the number that each rule left out.

    Returns:
        list[PseudoLabel]: At most ``options.expressions``, "[attribute ]class
        relation [attribute ]class" with the box of the first; clothes have none.
    """
    options = options or GeometryOptions()
    dropped = Counter() if dropped is None else dropped
    cleaned = clean_detections(
        scene, vocabulary, options.min_area, options.max_iou, dropped
    )
    items = [item for group in (PEOPLE, THINGS) for item in cleaned.get(group, ())]
    if describe is not None and items:
        items = describe(scene, items)
    items = [use_attribute(item, options.min_attribute_score) for item in items]
    nodes = [Detection(item.phrase, item.box, item.score) for item in items]
    triplets = []
    for i, j in permutations(range(len(nodes)), 2):
        for predicate in predicates(nodes[i].box, nodes[j].box):
            word = relation_word(predicate, items[i].name, items[j].name, vocabulary)
            if word is None:
                dropped['boxes do not tell how they lie'] += 1
            else:
                triplets.append(Triplet(nodes[i], word, nodes[j]))
    # Many products are equal: which of them are selected shall not depend on the file.
    triplets.sort(
        key=lambda t: (t.subject.name, t.predicate, t.object.name, t.subject.box)
    )
    limits = RelationOptions(
        min_score=options.min_object_score,
        expressions=options.expressions,
        max_iou=options.max_iou,
        unique=options.unique,
    )
    return rank_triplets(triplets, limits, dropped)
