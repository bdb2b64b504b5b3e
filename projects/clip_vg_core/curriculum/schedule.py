"""How the threshold moves in one training, from easy labels to hard ones."""

import math

__all__ = ['SHAPES', 'threshold_at']

SHAPES = ('linear', 'cosine', 'constant')


def threshold_at(
    progress: float, start: float, end: float, shape: str = 'linear'
) -> float:
    """The threshold at a point of the training.

    Args:
        progress (float): In [0, 1]: 0 at the first selection, 1 at the last.
        start (float): Threshold of the first: high, only the easiest labels.
        end (float): Threshold of the last: low, harder ones too.
        shape (str): 'linear', 'cosine' (slow at both ends) or 'constant'
            (``start`` throughout). Defaults to 'linear'.

    Returns:
        float: Between the two.

    Raises:
        ValueError: The shape is unknown.
    """
    if shape not in SHAPES:
        raise ValueError(f'shape={shape!r}; expected one of {SHAPES}.')
    progress = min(1.0, max(0.0, progress))
    if shape == 'constant':
        return start
    if shape == 'cosine':
        progress = (1 - math.cos(math.pi * progress)) / 2
    return start + (end - start) * progress
