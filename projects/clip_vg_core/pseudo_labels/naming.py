"""Which detections a noun phrase can mean, by the names of their classes."""

from collections.abc import Iterable, Sequence

import numpy as np

from ..zero_shot.expression import ParsedExpression
from .vocabulary import PEOPLE, Vocabulary

__all__ = ['detection_logits', 'named_classes']


def named_classes(head: str, names: Iterable[str], vocabulary: Vocabulary) -> set[str]:
    """The classes that a head phrase can mean: those that its first noun names.

    Args:
        head (str): As :attr:`ParsedExpression.head`.
        names (Iterable[str]): Of the classes, lower case.
        vocabulary (Vocabulary): Synonyms, and which classes are people.

    Returns:
        set[str]: Of "lady cutting pizza", 'person'; none where no class is named.
    """
    words, names = ParsedExpression(head).noun.split(), set(names)
    longest = max((len(name.split()) for name in names), default=0) + 1
    for start in range(len(words)):
        # "baseball player" before "baseball", which would be a ball.
        for end in range(min(start + longest, len(words)), start, -1):
            phrase = ' '.join(words[start:end])
            forms = {phrase, phrase.removesuffix('s'), phrase.removesuffix('es')}
            named = {n for n in names if any(vocabulary.same(n, f) for f in forms)}
            if 'person' in names and vocabulary.group_of(phrase) == PEOPLE:
                named.add('person')
            if named:
                return named
    return set()


def detection_logits(
    heads: Sequence[str],
    names: Sequence[str] | None,
    scores: np.ndarray,
    vocabulary: Vocabulary,
    category: float,
    score: float,
) -> np.ndarray:
    """What a detector knows of its boxes, as logits for head phrases.

    Args:
        heads (Sequence[str]): H phrases, as :attr:`ParsedExpression.head`.
        names (Sequence[str], optional): Class of each box; None: not known.
        scores (np.ndarray): Confidence of each box in [0, 1], of shape (K, ).
        vocabulary (Vocabulary): Synonyms, and which classes are people.
        category (float): Logit of a class that the phrase names.
        score (float): Weight of the logarithm of the confidence.

    Returns:
        np.ndarray: Of shape (H, K).
    """
    logits = np.tile(score * np.log(np.maximum(scores, 1e-6)), (len(heads), 1))
    if category and names is not None:
        for row, head in zip(logits, heads, strict=True):
            named = named_classes(head, names, vocabulary)
            row += category * np.array([name in named for name in names])
    return logits
