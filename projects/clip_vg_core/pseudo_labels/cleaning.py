"""Detections as the rules use them: valid, large, each object once, with a name."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from .detection import Detection, Scene, iou
from .vocabulary import CLOTHES, Vocabulary

__all__ = [
    'best_attribute',
    'clean_detections',
    'copy_attributes',
    'drop_overlapping',
    'drop_small',
    'inside_image',
    'use_attribute',
]


def inside_image(
    detections: Sequence[Detection], width: int, height: int
) -> list[Detection]:
    """Detections cut at the border of the image; those below a pixel are left out.

    Args:
        detections (Sequence[Detection]): Boxes that may pass the border.
        width (int): Of the image.
        height (int): Of the image.

    Returns:
        list[Detection]: With xyxy boxes at least a pixel wide and high.
    """
    inside = []
    for item in detections:
        left, top, right, bottom = item.box
        box = max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height)
        if box[2] - box[0] >= 1 and box[3] - box[1] >= 1:
            inside.append(item if box == item.box else replace(item, box=box))
    return inside


def drop_small(
    detections: Sequence[Detection],
    groups: Sequence[str],
    image_area: float,
    min_area: float,
) -> list[Detection]:
    """Leave out people and things below a share of the image; clothes may be small.

    Args:
        detections (Sequence[Detection]): N detections.
        groups (Sequence[str]): Their N groups.
        image_area (float): In square pixels.
        min_area (float): Share of the image, as 1 / 64.

    Returns:
        list[Detection]: Those of at least that size, and all clothes.
    """
    return [
        item
        for item, group in zip(detections, groups, strict=True)
        if group in CLOTHES or item.area >= min_area * image_area
    ]


def drop_overlapping(
    detections: Sequence[Detection], threshold: float
) -> list[Detection]:
    """Of two boxes that overlap, drop the less confident; classes do not matter.

    Pair by pair, as in the official code: a box that is dropped drops others too.

    Args:
        detections (Sequence[Detection]): Of one group.
        threshold (float): IoU above which two boxes show the same object.

    Returns:
        list[Detection]: In the order given; of equally confident ones the earlier.
    """
    order = sorted(range(len(detections)), key=lambda i: -detections[i].score)
    cleaned = [
        index
        for place, index in enumerate(order)
        if all(
            iou(detections[index].box, detections[better].box) <= threshold
            for better in order[:place]
        )
    ]
    return [detections[index] for index in sorted(cleaned)]


def clean_detections(
    scene: Scene,
    vocabulary: Vocabulary,
    min_area: float = 1 / 64,
    max_iou: float = 0.4,
    dropped: Counter | None = None,
) -> dict[str, list[Detection]]:
    """Group the detections of an image and drop what no label should be made of.

    Args:
        scene (Scene): Image and detections.
        vocabulary (Vocabulary): Which class is in which group.
        min_area (float): Least share of the image for people and things. Defaults to
            1 / 64 (Pseudo-Q).
        max_iou (float): Above which two boxes of a group are one object. Defaults to
            0.4 (official).
        dropped (Counter, optional): Gets the number dropped by each rule.

    Returns:
        dict[str, list[Detection]]: 'people', 'things', 'hat', 'shirt', 'pants',
        'shoes', as far as there are any, in the order of the file.
    """
    dropped = Counter() if dropped is None else dropped
    named = [d for d in scene.detections if d.name not in vocabulary.background]
    valid = inside_image(named, scene.width, scene.height)
    groups = [vocabulary.group_of(item.name) for item in valid]
    large = drop_small(valid, groups, scene.width * scene.height, min_area)
    by_group: dict[str, list[Detection]] = {}
    for item in large:
        by_group.setdefault(vocabulary.group_of(item.name), []).append(item)
    # Clothes are one group here: a hat on a shirt's box is a double as well.
    clothes = [item for item in large if vocabulary.group_of(item.name) in CLOTHES]
    cleaned: dict[str, list[Detection]] = {}
    for group in ('people', 'things'):
        if group in by_group:
            cleaned[group] = drop_overlapping(by_group[group], max_iou)
    for item in drop_overlapping(clothes, max_iou):
        cleaned.setdefault(vocabulary.group_of(item.name), []).append(item)
    dropped['background'] += len(scene.detections) - len(named)
    dropped['box below a pixel'] += len(named) - len(valid)
    dropped['too small'] += len(valid) - len(large)
    dropped['overlapping'] += len(large) - sum(map(len, cleaned.values()))
    return cleaned


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
        min_score (float): The attribute must be surer than this. Defaults to 0.3
            (official).

    Returns:
        Detection: With ``attribute`` and ``name`` as they shall be said.
    """
    attribute = detection.attribute
    if attribute is None or detection.attribute_score <= min_score:
        return replace(detection, attribute=None) if attribute else detection
    name, words = detection.name.split(), attribute.split()
    if name[-len(words) :] == words:  # 'glass' of a wine glass: the name says it
        return replace(detection, attribute=None)
    for start in range(len(name) - len(words)):
        if name[start : start + len(words)] == words:
            del name[start : start + len(words)]
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
        min_iou (float): The boxes must overlap more. Defaults to 0.5 (official).
        min_score (float): The attribute must be surer. Defaults to 0.3 (official).

    Returns:
        list[Detection]: Each with the attribute of the detection of the same group
        and class that overlaps it most, if any; else as it was.
    """
    described_too = []
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
        described_too.append(item)
    return described_too
