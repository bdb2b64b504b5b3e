"""Flip a picture and the words that its sides have."""

import re

from mmdet.datasets.transforms import RandomFlip
from mmdet.registry import TRANSFORMS

__all__ = ['TextAwareFlip', 'mirror_text']

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
    kept = [match.span() for match in _NO_SIDE.finditer(text)]

    def swap(match: re.Match) -> str:
        if any(start <= match.start() < end for start, end in kept):
            return match[0]
        other = 'right' if match[0].lower() == 'left' else 'left'
        if match[0].isupper():
            return other.upper()
        return other.capitalize() if match[0][0].isupper() else other

    return _SIDES.sub(swap, text)


@TRANSFORMS.register_module()
class TextAwareFlip(RandomFlip):
    """MMDetection's ``RandomFlip`` that swaps left and right in ``text`` too.

    Args:
        prob (float): Of a horizontal flip.
    """

    def __init__(self, prob: float) -> None:
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
