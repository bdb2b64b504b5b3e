"""Search for the measurer and the threshold of each source of pseudo-labels.

Nothing here trains: the callers pass a function that scores several independent
thresholds or trials, which may run side by side.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

__all__ = [
    'STRATEGIES',
    'MultiSourceResult',
    'Pick',
    'SourceResult',
    'Strategy',
    'Trial',
    'WalkResult',
    'fixed',
    'full_grid',
    'greedy_walk',
    'multi_source',
    'number_of_trials',
    'rank_measurers',
]


@dataclass(frozen=True, order=True)
class Pick:
    """Labels of ``source`` whose reliability by ``measurer`` exceeds ``threshold``."""

    source: str
    measurer: str
    threshold: float


# What a trial trains on: the picks of all its sources, in order.
Trial = tuple[Pick, ...]


@dataclass(frozen=True)
class WalkResult:
    """Best threshold of a search, its score, and all thresholds in the order scored."""

    threshold: float
    score: float
    path: tuple[float, ...]


# Scores of independent thresholds, in their order; -inf where too few labels are left.
ScoreThresholds = Callable[[Sequence[float]], Sequence[float]]
ScoreTrials = Callable[[Sequence[Trial]], Sequence[float]]
# Takes a ScoreThresholds, the first threshold and the step.
Strategy = Callable[[ScoreThresholds, float, float], WalkResult]


@dataclass(frozen=True)
class SourceResult:
    """Decision about one source.

    Args:
        source (str): Name of the source.
        measurers (dict[str, float]): Score of each measurer at the first threshold.
        measurer (str): The best of them.
        walk (WalkResult): Search for the threshold with that measurer.
        kept (bool): Whether the source raised the score; if not, it was skipped.
    """

    source: str
    measurers: Mapping[str, float]
    measurer: str
    walk: WalkResult
    kept: bool


@dataclass(frozen=True)
class MultiSourceResult:
    """The best trial, its score, and the decision about each source."""

    trial: Trial
    score: float
    sources: list[SourceResult] = field(default_factory=list)


def _rounded(value: float) -> float:
    """Thresholds as people write them: 0.3, not 0.30000000000000004."""
    return round(value, 6)


def _result(scores: Mapping[float, float], start: float) -> WalkResult:
    """The best of the scored thresholds."""
    # `max` returns the first of equals: the start, then the lowest, which selects
    # most labels.
    best = max([start, *sorted(scores)], key=scores.__getitem__)
    return WalkResult(best, scores[best], tuple(scores))


def greedy_walk(
    score: ScoreThresholds, start: float = 0.5, step: float = 0.1
) -> WalkResult:
    """Walk from a threshold towards better scores until they drop.

    The start and both neighbours are scored, then the walk goes on beyond the better
    one (method, section 5). Of equal scores the start wins, then the lower threshold.

    Args:
        score (Callable): Scores a list of thresholds.
        start (float): First threshold, in [0, 1]. Defaults to 0.5.
        step (float): Distance between thresholds. Defaults to 0.1.

    Returns:
        WalkResult: The best of all scored thresholds.
    """
    around = [
        h for h in (_rounded(start - step), _rounded(start + step)) if 0 <= h <= 1
    ]
    first = [start, *around]
    scores = dict(zip(first, score(first), strict=True))
    if around:
        before, here = start, max(around, key=scores.__getitem__)
        way = step if here > start else -step
        # A level score does not end the walk: validation has few distinct values.
        while scores[here] >= scores[before] and scores[here] > -math.inf:
            before, here = here, _rounded(here + way)
            if not 0 <= here <= 1:
                break
            (scores[here],) = score([here])
    return _result(scores, start)


def _grid(start: float, step: float) -> list[float]:
    """Thresholds in [0, 1], ``step`` apart, of which ``start`` is one; ascending."""
    below, above = (int(_rounded(way / step)) for way in (start, 1 - start))
    return [
        start if not i else _rounded(start + i * step) for i in range(-below, above + 1)
    ]


def full_grid(
    score: ScoreThresholds, start: float = 0.5, step: float = 0.1
) -> WalkResult:
    """Score every threshold of the grid, all at once.

    Args:
        score (Callable): Scores a list of thresholds.
        start (float): One of the grid, which wins over equals. Defaults to 0.5.
        step (float): Distance between thresholds. Defaults to 0.1.

    Returns:
        WalkResult: The best of all.
    """
    grid = _grid(start, step)
    return _result(dict(zip(grid, score(grid), strict=True)), start)


def fixed(score: ScoreThresholds, start: float = 0.5, *_: float) -> WalkResult:
    """Score one threshold and take it.

    Args:
        score (Callable): Scores a list of thresholds.
        start (float): The threshold. Defaults to 0.5.

    Returns:
        WalkResult: Of the start.
    """
    (value,) = score([start])
    return WalkResult(start, value, (start,))


STRATEGIES: dict[str, Strategy] = {
    'greedy': greedy_walk,
    'grid': full_grid,
    'fixed': fixed,
}


def number_of_trials(
    strategy: str, start: float = 0.5, step: float = 0.1
) -> tuple[int, int]:
    """Fewest and most trials of one search for a threshold.

    Args:
        strategy (str): A key of ``STRATEGIES``.
        start (float): First threshold. Defaults to 0.5.
        step (float): Distance between thresholds. Defaults to 0.1.

    Returns:
        tuple[int, int]: (fewest, most).
    """
    if strategy == 'fixed':
        return 1, 1
    grid = _grid(start, step)
    if strategy == 'grid':
        return len(grid), len(grid)
    below = grid.index(start)
    above = len(grid) - 1 - below
    around = 1 + min(below, 1) + min(above, 1)
    return around, around + max(below, above, 1) - 1


def rank_measurers(sources: Sequence[str]) -> dict[str, list[str]]:
    """Measurers of each source, its own first, which so wins over equals."""
    return {s: [s, *(other for other in sources if other != s)] for s in sources}


def multi_source(
    sources: Sequence[str],
    measurers: Mapping[str, Sequence[str]],
    score: ScoreTrials,
    strategy: Strategy = greedy_walk,
    start: float = 0.5,
    step: float = 0.1,
    keep_all: bool = False,
) -> MultiSourceResult:
    """Multi-source self-paced adapting (method, section 6); of one source, SSA.

    For each source in turn: every measurer at the first threshold, on top of the
    picks so far; then the search for the threshold with the best measurer. A source
    that does not raise the score is skipped, of which the paper says nothing.

    Args:
        sources (Sequence[str]): Names, from simple to complex.
        measurers (Mapping[str, Sequence[str]]): Measurers of each source; the first
            wins over equals.
        score (Callable): Scores a list of independent trials.
        strategy (Callable): Search for one threshold. Defaults to greedy_walk.
        start (float): First threshold, at which measurers are compared. Defaults to
            0.5.
        step (float): Distance between thresholds. Defaults to 0.1.
        keep_all (bool): Whether a source that does not raise the score is kept, too,
            as in the paper's loop. Defaults to False.

    Returns:
        MultiSourceResult: The best trial; with ``keep_all``, that of all sources.
    """
    selected: Trial = ()
    best = -math.inf
    decided = []
    for source in sources:
        names = measurers[source]
        compared: dict[str, float] = {}
        # A single measurer needs no comparison, so no training run for it.
        if len(names) > 1:
            trials = [(*selected, Pick(source, name, start)) for name in names]
            compared = dict(zip(names, score(trials), strict=True))
        measurer = max(names, key=compared.__getitem__) if compared else names[0]
        walk = strategy(
            partial(_score_thresholds, score, selected, source, measurer), start, step
        )
        # Too few labels at every threshold leave nothing to keep.
        helps = walk.score > (-math.inf if keep_all else best)
        decided.append(SourceResult(source, compared, measurer, walk, helps))
        if helps:
            best = walk.score
            selected = (*selected, Pick(source, measurer, walk.threshold))
    return MultiSourceResult(selected, best, decided)


def _score_thresholds(
    score: ScoreTrials,
    selected: Trial,
    source: str,
    measurer: str,
    thresholds: Sequence[float],
) -> Sequence[float]:
    """Scores of a source's thresholds on top of the picks so far."""
    return score([(*selected, Pick(source, measurer, h)) for h in thresholds])
