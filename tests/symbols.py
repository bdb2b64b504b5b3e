"""Expressions of symbols, in which CLIP's tokens have the id 0 ("!") before the end."""

import random

__all__ = ['symbol_texts']

_SYMBOLS = [*'!!!!~?#$"\'(<;. ', '😀', 'é', 'circle', 'left ', '<end_of_text>']


def symbol_texts(count: int, seed: int = 0) -> list[str]:
    """Random runs of symbols and words; the first are those of a bug report."""
    rng = random.Random(seed)
    texts = ['circle!😀', '!~', 'red !"! box', 'a <end_of_text> b']
    while len(texts) < count:
        texts.append(''.join(rng.choices(_SYMBOLS, k=rng.randint(1, 9))))
    return texts
