"""Which pseudo-labels to select, as functions of their reliability alone."""

import math
from dataclasses import dataclass

import numpy as np

__all__ = [
    'BINS',
    'SHAPES',
    'VALLEYS',
    'Valley',
    'mixture_valley',
    'otsu_valley',
    'select_reliable',
    'threshold_at',
    'update_mean',
]

# The paper's histograms have 1000 bins over (0, 1].
BINS = 1000
# Of the way that a threshold moves during a training run.
SHAPES = ('linear', 'cosine', 'constant')


@dataclass(frozen=True)
class Valley:
    """Threshold between the two peaks of a histogram, and how far they are apart.

    Args:
        threshold (float): In [0, 1].
        separation (float): Share of the variance that lies between the two sides, in
            [0, 1]; 0.75 for a uniform histogram.
    """

    threshold: float
    separation: float


def select_reliable(reliability: np.ndarray, threshold: float) -> np.ndarray:
    """Indices of the labels whose reliability exceeds a threshold.

    Args:
        reliability (np.ndarray): In [0, 1], of shape (N, ); NaN where not scored.
        threshold (float): Exclusive lower bound, so 0 drops complete misses. As in
            the official code, 1 selects the labels of exactly 1.

    Returns:
        np.ndarray: Selected indices of shape (K, ), ascending; NaN is never selected.
    """
    reliability = np.asarray(reliability)
    # Nothing exceeds 1: the official code has `== 1.0` for its last bin.
    selected = reliability >= 1 if threshold >= 1 else reliability > threshold
    return np.flatnonzero(selected)


def threshold_at(
    progress: float, start: float, end: float, shape: str = 'linear'
) -> float:
    """Threshold at a point of a training run, from easy labels to hard ones.

    Args:
        progress (float): In [0, 1]: 0 at the first selection, 1 at the last.
        start (float): Threshold of the first selection: high, of the easiest labels.
        end (float): Threshold of the last selection: low, of harder labels too.
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


def update_mean(mean: np.ndarray | None, count: int, values: np.ndarray) -> np.ndarray:
    """Running mean of the reliability over snapshots of a training run.

    Args:
        mean (np.ndarray, optional): Mean of the first ``count`` snapshots, of shape
            (N, ).
        count (int): Number of these snapshots.
        values (np.ndarray): Reliability by the next snapshot, of shape (N, ).

    Returns:
        np.ndarray: Mean of ``count + 1`` snapshots. A label that is not scored (NaN)
        in one of the two takes the other; every snapshot counts as one all the same.
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
        raise ValueError('No label is scored, so the histogram has no valley.')
    counts, edges = np.histogram(scored, BINS, (0.0, 1.0))
    return counts / counts.sum(), (edges[1:] + edges[:-1]) / 2


def otsu_valley(reliability: np.ndarray) -> Valley:
    """Threshold of the largest variance between the two sides (Otsu, 1979).

    Args:
        reliability (np.ndarray): In [0, 1], of shape (N, ); NaN is left out.

    Returns:
        Valley: The threshold and its separation.

    Raises:
        ValueError: Nothing is scored.
    """
    share, centre = _histogram(np.asarray(reliability))
    below = share.cumsum()
    moment = (share * centre).cumsum()
    with np.errstate(divide='ignore', invalid='ignore'):
        between = (moment[-1] * below - moment) ** 2 / (below * (1 - below))
    # A cut with nothing on one side; `below` is a sum of floats, so ends near 1.
    between = np.where((below > 0) & (below < 1 - 1e-12), between, 0.0)
    # Between two far groups every cut is as good: take the middle one.
    best = np.flatnonzero(between >= between.max() - 1e-12)
    total = (share * (centre - moment[-1]) ** 2).sum()
    cut = float((best[0] + best[-1]) / 2 + 1) / BINS
    return Valley(cut, float(between.max() / total) if total > 0 else 0.0)


def mixture_valley(reliability: np.ndarray, iterations: int = 200) -> Valley:
    """Threshold where two fitted Gaussians are equally likely.

    Args:
        reliability (np.ndarray): In [0, 1], of shape (N, ); NaN is left out.
        iterations (int): Steps of expectation maximisation. Defaults to 200.

    Returns:
        Valley: Between the two means; where one component swallows the other,
        halfway.

    Raises:
        ValueError: Nothing is scored.
    """
    share, centre = _histogram(np.asarray(reliability))
    # Expectation maximisation ends in a local optimum: it starts from a good cut.
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


# By their names in configs and on the command line.
VALLEYS = dict(otsu=otsu_valley, mixture=mixture_valley)
