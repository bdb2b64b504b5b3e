"""Attributes of objects: from the detector, or from other detections."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from .detection import Detection, iou
from .vocabulary import Vocabulary

__all__ = ['best_attribute', 'copy_attributes', 'use_attribute']


def best_attribute(scores: Mapping[str, float]) -> tuple[str | None, float]:
    """The most likely attribute and its score; (None, 0) where there is none."""
    if not scores:
        return None, 0.0
    name = max(scores, key=lambda key: scores[key])
    return name, scores[name]


def use_attribute(detection: Detection, min_score: float = 0.3) -> Detection:
    """Settle how an object is called: its attribute, if sure, and its class.

    An attribute that the class name has already is taken out of the class: 'wooden'
    and 'wooden table' make "wooden table", with the class 'table'. One that is the
    noun itself ('glass' and 'wine glass') is not said.

    Args:
        detection (Detection): One object.
        min_score (float): The attribute must be surer than this. Defaults to 0.3 (as
            released).

    Returns:
        Detection: With ``attribute`` and ``name`` as they shall be said.
    """
    attribute = detection.attribute
    if attribute is None or detection.attribute_score <= min_score:
        return replace(detection, attribute=None) if attribute else detection
    name, said = detection.name.split(), attribute.split()
    if name[-len(said) :] == said:  # 'glass' of a wine glass: the name says it
        return replace(detection, attribute=None)
    for start in range(len(name) - len(said)):
        if name[start : start + len(said)] == said:
            del name[start : start + len(said)]
            break
    return replace(detection, name=' '.join(name))


def copy_attributes(
    detections: Sequence[Detection],
    described: Sequence[Detection],
    vocabulary: Vocabulary,
    min_iou: float = 0.5,
    min_score: float = 0.3,
) -> list[Detection]:
    """Give detections the attributes that another detector found on the same object.

    Args:
        detections (Sequence[Detection]): Of the object detector.
        described (Sequence[Detection]): Of the attribute detector.
        vocabulary (Vocabulary): Which class is in which group.
        min_iou (float): The boxes must overlap more. Defaults to 0.5 (as released).
        min_score (float): The attribute must be surer. Defaults to 0.3 (as released).

    Returns:
        list[Detection]: Each with the attribute of the detection of the same group
        and class that overlaps it most, if any; else as it was.
    """
    found = []
    for item in detections:
        same = [
            (iou(item.box, other.box), other.attribute_score, other)
            for other in described
            if other.attribute is not None
            and other.attribute_score > min_score
            and other.name == item.name
            and vocabulary.group_of(other.name) == vocabulary.group_of(item.name)
        ]
        overlap, _, best = max(same, key=lambda entry: entry[:2], default=(0, 0, item))
        if overlap > min_iou:
            item = replace(
                item, attribute=best.attribute, attribute_score=best.attribute_score
            )
        found.append(item)
    return found
