"""Assigned labels: texts without boxes get the detection that they mean."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..zero_shot.expression import ParsedExpression, parse_expression
from ..zero_shot.scoring import DIRECTIONS, GeometryWeights, ground_parsed
from .cleaning import clean_detections, inside_image
from .detection import CheckedOptions, Detection, GivenText, PseudoLabel, Scene
from .naming import detection_logits, named_classes
from .vocabulary import Vocabulary

__all__ = ['AssignOptions', 'Score', 'assign_labels']

# From an image, E phrases and K boxes (xyxy in pixels, of shape (K, 4)) to the
# probability of each phrase to mean each box, of shape (E, K).
Score = Callable[[Scene, Sequence[str], np.ndarray], np.ndarray]

_LEAST = 1e-6  # of a probability: a factor of 0 would let no other evidence count
# As configs/_base_/models/zero_shot_vit-b16.py weighs them beside CLIP; a class that is
# named outweighs the margin, for words that decide alone.
_CATEGORY, _SCORE = 6.0, 0.5
_GEOMETRY = GeometryWeights()


@dataclass(frozen=True)
class AssignOptions(CheckedOptions):
    """The constants of the assign source; none is official.

    Args:
        min_probability (float): A text whose likeliest box is less probable gets no
            label. Defaults to 0: all get one.
        use_words (bool): Whether a text is parsed: names of classes, places, sizes and
            relations count beside the score of its head phrase. Defaults to True;
            False: the score of the whole text alone.
        min_area (float): Least area of a box that a text may get, as a share of the
            image's. Defaults to 1 / 64, as for templates.
        max_iou (float): IoU above which two boxes are one object. Defaults to 0.7.
    """

    min_probability: float = 0.0
    use_words: bool = True
    min_area: float = 1 / 64
    max_iou: float = 0.7


def assign_labels(
    scene: Scene,
    vocabulary: Vocabulary,
    options: AssignOptions | None = None,
    score: Score | None = None,
    dropped: Counter | None = None,
) -> list[PseudoLabel]:
    """Give the texts of an image their boxes.

    A text with a box or the number of a detection gets that one, a negative text none;
    all others get the likeliest detection, by zero-shot grounding among the detections:
    what scores their head phrases (CLIP), and their own words.

    Args:
        scene (Scene): The image, its detections and texts.
        vocabulary (Vocabulary): Names for nothing, groups of classes and synonyms.
        options (AssignOptions, optional): Defaults to None: all defaults.
        score (Callable, optional): Probability of phrases to mean each box: of what the
            texts look for ("star" and "red square" of "left star above the red
            square"), or of whole texts, if words do not count. Defaults to None: words
            alone decide.
        dropped (Counter, optional): Gets the number that each rule left out.

    Returns:
        list[PseudoLabel]: At most one for each text, in their order; ``score`` is the
        probability of the box, 1 where it was given.
    """
    options = options or AssignOptions()
    dropped = Counter() if dropped is None else dropped
    texts = [text for text in scene.texts if text.text.strip()]
    dropped['empty text'] += len(scene.texts) - len(texts)
    labels: dict[int, PseudoLabel] = {}
    unknown: list[int] = []
    for index, text in enumerate(texts):
        if text.negative:
            labels[index] = _label(text, None, 'negative')
        elif text.box is not None or text.region is not None:
            label = _given(text, scene, dropped)
            labels.update({index: label} if label else {})
        else:
            unknown.append(index)
    cleaned = clean_detections(
        scene, vocabulary, options.min_area, options.max_iou, dropped
    )
    detections = [item for group in cleaned.values() for item in group]
    if unknown and not detections:
        dropped['text without a detection'] += len(unknown)
    elif unknown:
        own = [texts[index].text for index in unknown]
        parsed = [
            parse_expression(text) if options.use_words else ParsedExpression(text)
            for text in own
        ]
        category = _CATEGORY if options.use_words else 0.0
        probabilities = _probabilities(
            scene, parsed, detections, vocabulary, category, score
        )
        for index, row in zip(unknown, probabilities, strict=True):
            best = int(row.argmax())
            if row[best] < options.min_probability:
                dropped['below --min-probability'] += 1
                continue
            labels[index] = _label(
                texts[index], detections[best], 'assigned', float(row[best])
            )
    return [labels[index] for index in sorted(labels)]


def _label(
    text: GivenText, item: Detection | None, rule: str, score: float = 1.0
) -> PseudoLabel:
    box = None if item is None else item.box
    return PseudoLabel(' '.join(text.text.split()), box, rule, 1, score)


def _given(text: GivenText, scene: Scene, dropped: Counter) -> PseudoLabel | None:
    """The label of a text that says which box it is about."""
    items = [d for d in scene.detections if d.region == text.region]
    if text.box is not None:
        items = [Detection('', text.box)]
    elif not items:
        dropped['region below --min-score'] += 1
        return None
    inside = inside_image(items, scene.width, scene.height)
    if not inside:
        dropped['box below a pixel'] += 1
        return None
    return _label(text, inside[0], 'given box' if text.box else 'given region')


def _probabilities(
    scene: Scene,
    texts: Sequence[ParsedExpression],
    detections: Sequence[Detection],
    vocabulary: Vocabulary,
    category: float,
    score: Score | None,
) -> np.ndarray:
    """Probability of each text to mean each detection, of shape (E, K)."""
    heads = list(dict.fromkeys(head for text in texts for head in text.heads))
    boxes = np.array([item.box for item in detections])
    names = [item.name for item in detections]
    logits = detection_logits(
        heads,
        names,
        np.array([item.score for item in detections]),
        vocabulary,
        category,
        _SCORE if category else 0.0,
    )
    if score is not None and heads:
        scores = np.asarray(score(scene, heads, boxes))
        if scores.shape != logits.shape:
            raise ValueError(
                f'{scene.file_name}: {len(heads)} phrases and {len(boxes)} boxes '
                f'were scored as an array of shape {scores.shape}; expected '
                f'{logits.shape}.'
            )
        logits = logits + np.log(np.maximum(scores, _LEAST))
    elif category:
        unknown = {h for h in heads if not named_classes(h, names, vocabulary)}
        texts = [_with_known_anchors(text, unknown) for text in texts]
    by_head = dict(zip(heads, logits, strict=True))
    size = scene.width, scene.height
    rows = [ground_parsed(text, boxes, size, by_head, _GEOMETRY) for text in texts]
    return np.exp(rows)


def _with_known_anchors(text: ParsedExpression, unknown: set[str]) -> ParsedExpression:
    """A text without relations to what no detection is known to be, as "on grass"."""
    anchors = [one for one in (text.anchor, text.other) if one is not None]
    # "Left of the green one" still is further left than most.
    is_direction = text.relation in DIRECTIONS
    if not is_direction and any(anchor.head in unknown for anchor in anchors):
        return replace(text, relation=None, anchor=None, other=None)
    anchor, other = (
        one and _with_known_anchors(one, unknown) for one in (text.anchor, text.other)
    )
    return replace(text, anchor=anchor, other=other)
