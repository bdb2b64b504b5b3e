"""Transforms that heed the words of an expression: its sides and places."""

import re
from collections.abc import Sequence
from typing import Any

from mmcv.transforms import RandomChoice
from mmdet.datasets.transforms import RandomFlip
from mmdet.registry import TRANSFORMS

__all__ = ['PLACE_WORDS', 'ExpressionAwareChoice', 'TextAwareFlip', 'mirror_text']

# Of the official code; matched anywhere in the expression, so "leftmost" counts too.
PLACE_WORDS = ('left', 'right', 'top', 'bottom', 'middle')
_SIDES = re.compile(r'left|right', re.IGNORECASE)
# Words that hold "left" or "right" and name no side.
_NO_SIDE = re.compile(
    r'\b\w*(?:bright|fright|wright|upright|cleft|leftover|alright)\w*\b', re.IGNORECASE
)


def mirror_text(text: str) -> str:
    """Swap left and right in an expression, keeping case and other words.

    Args:
        text (str): E.g. 'Leftmost bright lamp'.

    Returns:
        str: E.g. 'Rightmost bright lamp'.
    """
    sideless = [match.span() for match in _NO_SIDE.finditer(text)]

    def swap(match: re.Match) -> str:
        if any(start <= match.start() < end for start, end in sideless):
            return match[0]
        other = 'right' if match[0].lower() == 'left' else 'left'
        if match[0].isupper():
            return other.upper()
        return other.capitalize() if match[0][0].isupper() else other

    return _SIDES.sub(swap, text)


@TRANSFORMS.register_module()
class ExpressionAwareChoice(RandomChoice):
    """``RandomChoice`` that takes its first branch for expressions of place.

    Args:
        transforms (list): Branches; the first must keep places as they are.
        prob (list[float], optional): Of each branch. Defaults to None: even.
        words (Sequence[str]): What makes an expression one of place. Defaults to
            left, right, top, bottom, middle.
    """

    def __init__(
        self,
        transforms: list,
        prob: list[float] | None = None,
        words: Sequence[str] = PLACE_WORDS,
    ) -> None:
        super().__init__(transforms, prob)
        self.words = tuple(words)

    def transform(self, results: dict) -> Any:
        """Run the first branch if a word is in ``text``, else a random one."""
        text = results['text']
        joined = (text if isinstance(text, str) else ' '.join(text)).lower()
        if any(word in joined for word in self.words):
            return self.transforms[0](results)
        return super().transform(results)


@TRANSFORMS.register_module()
class TextAwareFlip(RandomFlip):
    """MMDetection's ``RandomFlip`` that swaps left and right in ``text`` too.

    Args:
        prob (float): Of a horizontal flip.
    """

    def __init__(self, prob: float) -> None:
        # Words of height stay true only if nothing is flipped upside down.
        super().__init__(prob=prob, direction='horizontal')

    def transform(self, results: dict) -> dict:
        """Flip ``img``, ``gt_bboxes`` and ``text``, or nothing."""
        results = super().transform(results)
        text = results.get('text')
        if not results['flip'] or text is None:
            return results
        if isinstance(text, str):
            results['text'] = mirror_text(text)
        else:
            results['text'] = [mirror_text(expression) for expression in text]
        return results
