"""Two runs on the same samples: who gained, who lost, and could it be chance?"""

from typing import Any

import numpy as np

from .breakdown import HIT, Grouping

__all__ = ['compare', 'compare_groups', 'mcnemar']


def mcnemar(gained: int, lost: int) -> float:
    """Exact McNemar (sign) test, two-sided.

    Args:
        gained (int): Samples that only the second run hits.
        lost (int): Samples that only the first run hits.

    Returns:
        float: How probable a difference at least as large is, were both runs equally
        good.
    """
    if gained + lost == 0:
        return 1.0
    from scipy.stats import binomtest  # half a second of imports

    return float(binomtest(gained, gained + lost).pvalue)


def compare(one: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    """Compare the hits (IoU >= 0.5) of two runs, sample by sample.

    Args:
        one (np.ndarray): IoUs of the first run, of shape (N, ), N > 0.
        other (np.ndarray): Of the second, of the same samples.

    Returns:
        dict: ``count``; ``gained`` (miss -> hit), ``lost`` (hit -> miss), ``both`` and
        ``neither``, which add up to it; ``difference`` of the accuracies, second minus
        first; ``p`` of :func:`mcnemar`.
    """
    first, second = one >= HIT, other >= HIT
    gained, lost = int((~first & second).sum()), int((first & ~second).sum())
    return dict(
        count=len(one),
        gained=gained,
        lost=lost,
        both=int((first & second).sum()),
        neither=int((~first & ~second).sum()),
        difference=(gained - lost) / len(one),
        p=mcnemar(gained, lost),
    )


def compare_groups(
    one: np.ndarray, other: np.ndarray, grouping: Grouping
) -> dict[str, dict[str, Any]]:
    """:func:`compare` for each group."""
    return {name: compare(one[mask], other[mask]) for name, mask in grouping.items()}
