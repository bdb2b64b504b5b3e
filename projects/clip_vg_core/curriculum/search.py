"""Search for thresholds and measurers: which trials to run, one step at a time.

The searches are generators. They yield trials to run, which do not depend on each
other and may run side by side; they are sent a dict of their scores, and return what
they found. Nothing here trains.
"""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

__all__ = [
    'STRATEGIES',
    'MultiSourceResult',
    'Pick',
    'SourceResult',
    'Trial',
    'WalkResult',
    'fixed',
    'follow',
    'full_grid',
    'greedy_walk',
    'multi_source',
    'number_of_trials',
    'own_first',
]

T = TypeVar('T')
R = TypeVar('R')
# Yields thresholds; is sent their scores.
ThresholdSearch = Generator[list[float], Mapping[float, float], 'WalkResult']


@dataclass(frozen=True, order=True)
class Pick:
    """The labels of a source whose reliability under a measurer passes."""

    source: str
    measurer: str
    threshold: float


# What a trial trains on: the picks of all its sources, in order.
Trial = tuple[Pick, ...]


@dataclass(frozen=True)
class WalkResult:
    """What a search for a threshold found, and its way in order."""

    threshold: float
    score: float
    path: tuple[float, ...]


@dataclass(frozen=True)
class SourceResult:
    """What was decided for a source.

    Args:
        source (str): Its name.
        measurers (dict[str, float]): Score of each measurer at the first threshold.
        measurer (str): The best of them.
        walk (WalkResult): Over the threshold, with that measurer.
        kept (bool): Whether the source helped; else it was skipped.
    """

    source: str
    measurers: Mapping[str, float]
    measurer: str
    walk: WalkResult
    kept: bool


@dataclass(frozen=True)
class MultiSourceResult:
    """The trial that won, its score, and how it came about."""

    trial: Trial
    score: float
    sources: list[SourceResult] = field(default_factory=list)


def _rounded(value: float) -> float:
    """Thresholds as people write them: 0.3, not 0.30000000000000004."""
    return round(value, 6)


def _best(scores: Mapping[T, float], order: Sequence[T]) -> T:
    """The best scored; of equals, the first in ``order``."""
    return max(order, key=lambda key: (scores[key], -order.index(key)))


def greedy_walk(
    start: float = 0.5, step: float = 0.1, low: float = 0.0, high: float = 1.0
) -> ThresholdSearch:
    """Walk from a threshold towards better scores until they drop.

    The start and both neighbours are scored, then the better way is gone (method,
    section 5). Of equal scores the start wins, then the lower threshold, which
    keeps more labels. A threshold that leaves too few labels scores ``-inf``.

    Args:
        start (float): Defaults to 0.5.
        step (float): Defaults to 0.1.
        low (float): The lowest threshold. Defaults to 0.
        high (float): The highest. Defaults to 1.

    Yields:
        list[float]: Thresholds to score.

    Returns:
        WalkResult: The best of all scored ones.
    """
    around = [_rounded(start - step), _rounded(start + step)]
    first = [start] + [h for h in around if low <= h <= high]
    scores = dict((yield first))
    path = list(first)
    if len(first) > 1:
        here = _best(scores, sorted(first[1:]))
        way = step if here > start else -step
        before = scores[start]
        while scores[here] >= before and scores[here] > -math.inf:
            before, here = scores[here], _rounded(here + way)
            if not low <= here <= high:
                break
            scores.update((yield [here]))
            path.append(here)
    best = _best(scores, [start, *sorted(set(path) - {start})])
    return WalkResult(best, scores[best], tuple(path))


def _grid(start: float, step: float, low: float, high: float) -> list[float]:
    """Thresholds from low to high, a step apart, of which the start is one."""
    below, above = (int(_rounded(way / step)) for way in (start - low, high - start))
    return [
        start if not i else _rounded(start + i * step) for i in range(-below, above + 1)
    ]


def full_grid(
    start: float = 0.5, step: float = 0.1, low: float = 0.0, high: float = 1.0
) -> ThresholdSearch:
    """Score every threshold of the grid, at once.

    Args:
        start (float): On the grid; wins over equals. Defaults to 0.5.
        step (float): Defaults to 0.1.
        low (float): Defaults to 0.
        high (float): Defaults to 1.

    Yields:
        list[float]: All thresholds.

    Returns:
        WalkResult: The best.
    """
    grid = _grid(start, step, low, high)
    scores = yield grid
    best = _best(scores, [start] + [h for h in grid if h != start])
    return WalkResult(best, scores[best], tuple(grid))


def fixed(start: float = 0.5, **_: float) -> ThresholdSearch:
    """Score one threshold and take it.

    Args:
        start (float): Defaults to 0.5.

    Yields:
        list[float]: It alone.

    Returns:
        WalkResult: It.
    """
    scores = yield [start]
    return WalkResult(start, scores[start], (start,))


STRATEGIES: dict[str, Callable[..., ThresholdSearch]] = {
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
        start (float): Defaults to 0.5.
        step (float): Defaults to 0.1.

    Returns:
        tuple[int, int]: (fewest, most).
    """
    if strategy == 'fixed':
        return 1, 1
    grid = _grid(start, step, 0.0, 1.0)
    if strategy == 'grid':
        return len(grid), len(grid)
    below = grid.index(start)
    above = len(grid) - 1 - below
    around = 1 + min(below, 1) + min(above, 1)
    return around, around + max(below, above, 1) - 1


def own_first(sources: Sequence[str]) -> dict[str, list[str]]:
    """The measurers of each source; of equal ones its own wins, being first."""
    return {s: [s, *(other for other in sources if other != s)] for s in sources}


def follow(
    search: Generator[list[T], Mapping[T, float], R],
    evaluate: Callable[[list[T]], Mapping[T, float]],
) -> R:
    """Go through with a search.

    Args:
        search (Generator): Any of this module.
        evaluate (Callable): Scores what it asks for.

    Returns:
        Any: What it found.
    """
    asked = next(search)
    while True:
        try:
            asked = search.send(evaluate(asked))
        except StopIteration as done:
            return done.value


def multi_source(
    sources: Sequence[str],
    measurers: Mapping[str, Sequence[str]],
    threshold_search: Callable[[], ThresholdSearch],
    start: float = 0.5,
) -> Generator[list[Trial], Mapping[Trial, float], MultiSourceResult]:
    """Multi-source self-paced adapting (method, section 6); of one source, SSA.

    For each source in turn: every measurer at the first threshold, on top of what
    was chosen before; then the search for the threshold with the best measurer.
    A source that helps nothing is skipped, which is ours.

    Args:
        sources (Sequence[str]): From simple to complex.
        measurers (Mapping[str, Sequence[str]]): Of each source; of equal ones the
            first wins.
        threshold_search (Callable): Makes a search, e.g. ``greedy_walk``.
        start (float): Threshold of the comparison of measurers. Defaults to 0.5.

    Yields:
        list[Trial]: Trials to score.

    Returns:
        MultiSourceResult: The winner.
    """
    chosen: Trial = ()
    best = -math.inf
    decided = []
    for source in sources:
        at_start = {
            name: (*chosen, Pick(source, name, start)) for name in measurers[source]
        }
        scores: dict[str, float] = {}
        if len(at_start) > 1:
            answers = yield list(at_start.values())
            scores = {name: answers[trial] for name, trial in at_start.items()}
        names = list(at_start)
        measurer = _best(scores, names) if scores else names[0]
        walk = yield from _with_picks(threshold_search(), chosen, source, measurer)
        kept = walk.score > best
        decided.append(SourceResult(source, scores, measurer, walk, kept))
        if kept:
            best = walk.score
            chosen = (*chosen, Pick(source, measurer, walk.threshold))
    return MultiSourceResult(chosen, best, decided)


def _with_picks(
    search: ThresholdSearch, chosen: Trial, source: str, measurer: str
) -> Generator[list[Trial], Mapping[Trial, float], WalkResult]:
    """A search over thresholds as one over trials."""
    thresholds = next(search)
    while True:
        trials = {h: (*chosen, Pick(source, measurer, h)) for h in thresholds}
        answers = yield list(trials.values())
        try:
            thresholds = search.send({h: answers[t] for h, t in trials.items()})
        except StopIteration as done:
            return done.value
