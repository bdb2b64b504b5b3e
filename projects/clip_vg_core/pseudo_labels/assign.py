"""Assigned labels: texts without boxes get the detection that they mean."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .cleaning import clean_detections, inside_image
from .detection import CheckedOptions, Detection, GivenText, PseudoLabel, Scene
from .vocabulary import Vocabulary

__all__ = ['AssignOptions', 'Score', 'assign_labels', 'word_logits']

# From an image, E texts and K boxes (xyxy in pixels, of shape (K, 4)) to the
# probability of each text to mean each box, of shape (E, K).
Score = Callable[[Scene, Sequence[str], np.ndarray], np.ndarray]

_LEAST = 1e-6  # of a probability: a factor of 0 would let no other evidence count
_PLACES = {
    'left': (0, -1.0),
    'right': (0, 1.0),
    'top': (1, -1.0),
    'upper': (1, -1.0),
    'bottom': (1, 1.0),
    'lower': (1, 1.0),
}
_MIDDLE = ('middle', 'center', 'centre')
_SIZES = {
    **dict.fromkeys(('big', 'bigger', 'biggest', 'large', 'larger', 'largest'), 1.0),
    **dict.fromkeys(('small', 'smaller', 'smallest', 'little', 'tiny'), -1.0),
    **dict.fromkeys(('front', 'closest', 'nearest', 'foreground'), 1.0),
    **dict.fromkeys(('back', 'background', 'farthest', 'furthest'), -1.0),
}
_WORD = re.compile(r"[a-z0-9']+")


@dataclass(frozen=True)
class AssignOptions(CheckedOptions):
    """The constants of the assign source; none is official.

    Args:
        min_probability (float): A text whose likeliest box is less probable gets no
            label. Defaults to 0: all get one.
        use_words (bool): Whether names of classes and words of place and size in a
            text count beside what scores it. Defaults to True.
        min_area (float): Least area of a box that a text may get, as a share of the
            image's. Defaults to 1 / 64, as for templates.
        max_iou (float): IoU above which two boxes are one object. Defaults to 0.7.
    """

    min_probability: float = 0.0
    use_words: bool = True
    min_area: float = 1 / 64
    max_iou: float = 0.7


def _named(text: str, names: Sequence[str], vocabulary: Vocabulary) -> set[str]:
    """The classes that the first name of a class in a text can mean."""
    words = _WORD.findall(text.lower())
    longest = max((len(name.split()) for name in names), default=0) + 1
    for start in range(len(words)):
        for length in range(longest, 0, -1):
            phrase = ' '.join(words[start : start + length])
            forms = {phrase, phrase.removesuffix('s'), phrase.removesuffix('es')}
            named = {n for n in names if any(vocabulary.same(n, f) for f in forms)}
            if named:
                return named
    return set()


def word_logits(
    text: str,
    detections: Sequence[Detection],
    size: tuple[int, int],
    vocabulary: Vocabulary,
    strength: float = 4.0,
) -> np.ndarray:
    """How the words of a text speak for each detection.

    The class that is named first is what the text means; words of place and size
    compare the detections of that class, or all where none is named. A place before
    "of" is a relation, and not counted: "left of the car".

    Args:
        text (str): An expression.
        detections (Sequence[Detection]): K detections.
        size (tuple[int, int]): Width and height of the image.
        vocabulary (Vocabulary): Synonyms of classes.
        strength (float): Logit of each word. Defaults to 4.

    Returns:
        np.ndarray: Logits of shape (K, ).
    """
    named = _named(text, sorted({d.name for d in detections}), vocabulary)
    meant = np.array([not named or d.name in named for d in detections])
    logits = strength * meant
    centers = np.array([d.center for d in detections])
    sides = np.sqrt([max(d.area, 1.0) for d in detections])
    words = _WORD.findall(text.lower())
    for word, following in zip(words, [*words[1:], ''], strict=True):
        if word in _PLACES and following != 'of':
            axis, sign = _PLACES[word]
            values = sign * centers[:, axis]
        elif word in _MIDDLE:
            values = -abs(centers[:, 0] - size[0] / 2)
        elif word in _SIZES:
            values = _SIZES[word] * sides
        else:
            continue
        logits = logits + strength * _relative(values, meant)
    return logits


def _relative(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Values from 0, the least of some of them, to 1, the largest of those."""
    low, high = values[among].min(), values[among].max()
    return np.clip((values - low) / max(high - low, 1e-6), 0, 1)


def assign_labels(
    scene: Scene,
    vocabulary: Vocabulary,
    options: AssignOptions | None = None,
    score: Score | None = None,
    dropped: Counter | None = None,
) -> list[PseudoLabel]:
    """Give the texts of an image their boxes.

    A text with a box or the number of a detection gets that one, a negative text none;
    all others get the likeliest detection: what scores them (CLIP, a zero-shot
    detector) and their own words are multiplied.

    Args:
        scene (Scene): The image, its detections and texts.
        vocabulary (Vocabulary): Names for nothing, groups of classes and synonyms.
        options (AssignOptions, optional): Defaults to None: all defaults.
        score (Callable, optional): Probability of each text to mean each box. Defaults
            to None: words alone decide.
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
        own = [texts[index] for index in unknown]
        probabilities = _probabilities(
            scene, own, detections, vocabulary, options.use_words, score
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
    texts: Sequence[GivenText],
    detections: Sequence[Detection],
    vocabulary: Vocabulary,
    use_words: bool,
    score: Score | None,
) -> np.ndarray:
    """Probability of each text to mean each detection, of shape (E, K)."""
    words = [text.text for text in texts]
    logits = np.zeros((len(texts), len(detections)))
    if score is not None:
        scores = np.asarray(score(scene, words, np.array([d.box for d in detections])))
        if scores.shape != logits.shape:
            raise ValueError(
                f'{scene.file_name}: {len(texts)} texts and {len(detections)} boxes '
                f'were scored as an array of shape {scores.shape}; expected '
                f'{logits.shape}.'
            )
        logits = np.log(np.maximum(scores, _LEAST))
    if use_words:
        size = scene.width, scene.height
        logits = logits + [word_logits(w, detections, size, vocabulary) for w in words]
    logits = np.exp(logits - logits.max(1, keepdims=True))
    return logits / logits.sum(1, keepdims=True)
