"""Choose an augmentation that leaves the expression true."""

from collections.abc import Sequence
from typing import Any

from mmcv.transforms import RandomChoice
from mmdet.registry import TRANSFORMS

__all__ = ['ExpressionAwareChoice']

# As released; matched anywhere in the expression, so "leftmost" counts too.
PLACE_WORDS = ('left', 'right', 'top', 'bottom', 'middle')


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
