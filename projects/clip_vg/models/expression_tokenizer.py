"""Expressions as token ids."""

import logging
from collections.abc import Sequence

import open_clip
import torch
from mmengine.logging import print_log
from torch import Tensor

__all__ = ['ExpressionTokenizer', 'text_lengths']


def text_lengths(token_ids: Tensor) -> Tensor:
    """Lengths of texts, up to and including their end-of-text token.

    It is the largest id of CLIP's vocabulary. Id 0 does not tell the end: it is the
    filling, and "!" inside a run of symbols ("circle!~") as well.

    Args:
        token_ids (Tensor): Of shape (E, L), int64; 0 after the end.

    Returns:
        Tensor: Of shape (E, ), int64.
    """
    # The last of them: users can type "<end_of_text>", which is the same token.
    return token_ids.shape[1] - token_ids.flip(1).argmax(1)


class ExpressionTokenizer:
    """CLIP's byte pair encoding of expressions, lower-cased.

    Args:
        context_length (int): Most tokens of a text.
        template (str): Prompt template of an expression, e.g. 'find the region of
            {}'. Defaults to '{}': the expression itself.
        prompt_length (int): Tokens of a learned prompt after the start of the text.
            Defaults to 0.

    Raises:
        ValueError: The template has no {}, or more than one.
    """

    def __init__(
        self, context_length: int, template: str = '{}', prompt_length: int = 0
    ) -> None:
        if template.count('{}') != 1:
            raise ValueError(f'template must have one {{}}, got {template!r}.')
        self.context_length = context_length
        self.template = template
        self.prompt_length = prompt_length
        self.words = open_clip.SimpleTokenizer(context_length=context_length)
        self._warned_of_length = False

    def __call__(self, expressions: Sequence[str]) -> Tensor:
        """Token ids of expressions.

        Args:
            expressions (Sequence[str]): E expressions.

        Returns:
            Tensor: Of shape (E, L), int64, L the longest expression's length; 0
            after the end-of-text token, and for "!" in a run of symbols. An
            expression that passes the context length is cut there, with one
            warning. Tokens of a learned prompt have the id of the start of the text.
        """
        for expression in expressions:
            if not isinstance(expression, str):
                raise ValueError(
                    f'An expression must be a str, got {type(expression).__name__}: '
                    f'{expression!r}.'
                )
        free = self.context_length - self.prompt_length
        tokens = self.words([self.template.format(e) for e in expressions], free)
        lengths = text_lengths(tokens)
        # A cut expression fills the context to its last place.
        if not self._warned_of_length and bool((lengths == free).any()):
            longest = expressions[int(lengths.argmax())]
            self._warned_of_length = True
            print_log(
                f'An expression fills or passes the {free} tokens that the text tower '
                f'has for it, and is cut there: {longest[:80]!r}... (logged once)',
                logger='current',
                level=logging.WARNING,
            )
        tokens = tokens[:, : int(lengths.max())]
        start = tokens[:, :1]
        return torch.cat([start.expand(-1, 1 + self.prompt_length), tokens[:, 1:]], 1)
