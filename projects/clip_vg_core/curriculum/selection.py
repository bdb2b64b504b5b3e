"""Which pseudo-labels to keep, as functions of their reliability alone."""

import math
from dataclasses import dataclass

import numpy as np

__all__ = [
    'VALLEYS',
    'Valley',
    'auroc',
    'keep_quality',
    'mixture_valley',
    'otsu_valley',
    'select_reliable',
    'update_mean',
]

# The paper's histograms have 1000 bins over (0, 1].
BINS = 1000


@dataclass(frozen=True)
class Valley:
    """Where a histogram of two peaks is cut.

    Args:
        threshold (float): In [0, 1].
        separation (float): Share of the variance that lies between the two sides,
            in [0, 1]: how much there is of a valley.
    """

    threshold: float
    separation: float


def select_reliable(reliability: np.ndarray, threshold: float) -> np.ndarray:
    """Indices of the labels whose reliability passes.

    Args:
        reliability (np.ndarray): In [0, 1], of shape (N, ); NaN where not scored.
        threshold (float): Exclusive lower bound, so 0 drops complete misses. As
            released, 1 keeps those of exactly 1.

    Returns:
        np.ndarray: Kept indices of shape (K, ), ascending. NaN is never kept.
    """
    reliability = np.asarray(reliability)
    kept = reliability >= 1 if threshold >= 1 else reliability > threshold
    return np.flatnonzero(kept)


def update_mean(mean: np.ndarray | None, count: int, values: np.ndarray) -> np.ndarray:
    """Running mean of the reliability over snapshots of a training.

    Args:
        mean (np.ndarray, optional): Mean of the first ``count`` snapshots.
        count (int): How many snapshots it is of.
        values (np.ndarray): Those of the next one.

    Returns:
        np.ndarray: Mean of ``count + 1``. A label that is not scored (NaN) in one
        of the two takes the other; every snapshot counts as one all the same.
    """
    if mean is None or count == 0:
        return np.asarray(values, np.float32)
    moved = mean + (values - mean) / (count + 1)
    moved = np.where(np.isnan(mean), values, moved)
    return np.where(np.isnan(values), mean, moved).astype(np.float32)


def _histogram(reliability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares and centres of the bins over [0, 1]; complete misses included."""
    scored = reliability[~np.isnan(reliability)]
    if not len(scored):
        raise ValueError('No label is scored: there is no valley to find.')
    counts, edges = np.histogram(scored, BINS, (0.0, 1.0))
    return counts / counts.sum(), (edges[1:] + edges[:-1]) / 2


def otsu_valley(reliability: np.ndarray) -> Valley:
    """The threshold that separates two groups best (Otsu, 1979).

    Args:
        reliability (np.ndarray): In [0, 1], of shape (N, ); NaN is left out.

    Returns:
        Valley: Of the largest variance between the groups.

    Raises:
        ValueError: Nothing is scored.
    """
    share, centre = _histogram(np.asarray(reliability))
    below = share.cumsum()
    moment = (share * centre).cumsum()
    with np.errstate(divide='ignore', invalid='ignore'):
        between = (moment[-1] * below - moment) ** 2 / (below * (1 - below))
    between = np.where((below > 0) & (below < 1 - 1e-12), between, 0.0)
    # Between two far groups every cut is as good: take the middle one.
    best = np.flatnonzero(between >= between.max() - 1e-12)
    total = (share * (centre - moment[-1]) ** 2).sum()
    cut = float((best[0] + best[-1]) / 2 + 1) / BINS
    return Valley(cut, float(between.max() / total) if total > 0 else 0.0)


def mixture_valley(reliability: np.ndarray, iterations: int = 200) -> Valley:
    """The threshold where two fitted Gaussians are equally likely.

    Args:
        reliability (np.ndarray): In [0, 1], of shape (N, ); NaN is left out.
        iterations (int): Of expectation maximisation. Defaults to 200.

    Returns:
        Valley: Between the two means; where one component swallows the other,
        halfway.

    Raises:
        ValueError: Nothing is scored.
    """
    share, centre = _histogram(np.asarray(reliability))
    start = otsu_valley(reliability)
    low = np.where(centre <= start.threshold, 0.95, 0.05)
    belongs = np.stack([low, 1 - low])
    for _ in range(iterations):
        mass = (belongs * share).sum(1) + 1e-12
        mean = (belongs * share * centre).sum(1) / mass
        spread = (belongs * share * (centre - mean[:, None]) ** 2).sum(1) / mass
        spread = np.maximum(spread, 1e-4)  # no component of a single bin
        likely = (
            np.log(mass)[:, None]
            - 0.5 * np.log(spread)[:, None]
            - 0.5 * (centre - mean[:, None]) ** 2 / spread[:, None]
        )
        likely -= likely.max(0)
        belongs = np.exp(likely)
        belongs /= belongs.sum(0)
    upper = int(mean.argmax())
    between = (centre > mean.min()) & (centre < mean.max())
    crossing = np.flatnonzero(between & (belongs[upper] >= 0.5))
    cut = float(centre[crossing[0]]) if len(crossing) else float(mean.mean())
    return Valley(cut, start.separation)


# What they are called in configs and on the command line.
VALLEYS = dict(otsu=otsu_valley, mixture=mixture_valley)


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Probability that a positive scores higher than a negative; ties are half.

    Args:
        scores (np.ndarray): Of shape (N, ); NaN is left out.
        positive (np.ndarray): Bool, of shape (N, ).

    Returns:
        float: In [0, 1]; NaN where one side is empty.
    """
    known = ~np.isnan(scores)
    scores, positive = scores[known], positive[known]
    ordered = np.sort(scores[~positive])
    wins = np.searchsorted(ordered, scores[positive], 'left')
    not_lost = np.searchsorted(ordered, scores[positive], 'right')
    pairs = len(ordered) * int(positive.sum())
    return float((wins + not_lost).sum() / 2 / pairs) if pairs else math.nan


def keep_quality(kept: np.ndarray, clean: np.ndarray) -> dict[str, float]:
    """How well a selection finds the clean labels.

    Args:
        kept (np.ndarray): Indices of the kept labels.
        clean (np.ndarray): Bool, of shape (N, ): which labels are right.

    Returns:
        dict[str, float]: ``share`` kept, ``precision`` and ``recall`` of "kept =
        clean".
    """
    hits = int(clean[kept].sum())
    return dict(
        share=len(kept) / len(clean),
        precision=hits / len(kept) if len(kept) else math.nan,
        recall=hits / int(clean.sum()) if clean.any() else math.nan,
    )
