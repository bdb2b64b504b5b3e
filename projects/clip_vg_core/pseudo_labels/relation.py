"""Relation labels: "subject predicate object", with the subject's box."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from .cleaning import inside_image
from .detection import CheckedOptions, PseudoLabel, Scene, Triplet, iou
from .vocabulary import Vocabulary

__all__ = ['RelationOptions', 'rank_triplets', 'relation_labels']


@dataclass(frozen=True)
class RelationOptions(CheckedOptions):
    """The constants of the relation source.

    Args:
        min_score (float): Subject, object and predicate must each be surer. Defaults
            to 0.2 (official).
        expressions (int): Most labels of an image. Defaults to 10 (official).
        max_iou (float): Two triplets of the same words whose subjects overlap more
            are one. Defaults to 0.5.
        unique (bool): Whether to leave out a text that several subjects of the image
            have. Defaults to False (official).
    """

    min_score: float = 0.2
    expressions: int = 10
    max_iou: float = 0.5
    unique: bool = False


def _text(triplet: Triplet) -> str:
    return ' '.join((triplet.subject.name, triplet.predicate, triplet.object.name))


def _product(triplet: Triplet) -> float:
    return triplet.score * triplet.subject.score * triplet.object.score


def rank_triplets(
    triplets: Sequence[Triplet], options: RelationOptions, dropped: Counter
) -> list[PseudoLabel]:
    """Labels of the surest triplets, without doubles.

    Args:
        triplets (Sequence[Triplet]): Of one image, with valid boxes.
        options (RelationOptions): The constants.
        dropped (Counter): Gets the number that each rule left out.

    Returns:
        list[PseudoLabel]: By the product of the three scores, largest first; of equal
        ones the earlier.
    """
    sure = [
        t
        for t in triplets
        if min(t.score, t.subject.score, t.object.score) > options.min_score
    ]
    dropped['not sure'] += len(triplets) - len(sure)
    labels: list[PseudoLabel] = []
    for triplet in sorted(sure, key=_product, reverse=True):
        text, box = _text(triplet), triplet.subject.box
        if any(
            text == other.text and iou(box, other.box) > options.max_iou
            for other in labels
        ):
            dropped['double'] += 1
            continue
        labels.append(
            PseudoLabel(
                text,
                box,
                triplet.predicate,
                entities=2,
                score=_product(triplet),
                words=frozenset({'relation'}),
            )
        )
    if options.unique:
        fits = Counter(label.text for label in labels)
        clear = [label for label in labels if fits[label.text] == 1]
        dropped['text of several subjects'] += len(labels) - len(clear)
        labels = clear
    dropped['beyond the surest'] += max(0, len(labels) - options.expressions)
    return labels[: options.expressions]


def relation_labels(
    scene: Scene,
    vocabulary: Vocabulary,
    options: RelationOptions | None = None,
    dropped: Counter | None = None,
) -> list[PseudoLabel]:
    """Make the relation labels of an image from its scene graph.

    Args:
        scene (Scene): The image and its triplets.
        vocabulary (Vocabulary): What counts as background.
        options (RelationOptions, optional): Defaults to None: all defaults.
        dropped (Counter, optional): Gets the number that each rule left out.

    Returns:
        list[PseudoLabel]: At most ``options.expressions``. Triplets whose subject,
        object or predicate says "nothing" are left out (the official code keeps them).
    """
    options = options or RelationOptions()
    dropped = Counter() if dropped is None else dropped
    real = [
        t
        for t in scene.triplets
        if not {t.subject.name, t.predicate, t.object.name} & set(vocabulary.background)
    ]
    dropped['background'] += len(scene.triplets) - len(real)
    valid = []
    for triplet in real:
        boxes = inside_image(
            (triplet.subject, triplet.object), scene.width, scene.height
        )
        if len(boxes) == 2:
            valid.append(Triplet(boxes[0], triplet.predicate, boxes[1], triplet.score))
    dropped['box below a pixel'] += len(real) - len(valid)
    return rank_triplets(valid, options, dropped)
