"""Searches: which trials they ask for, in which order, and what they find."""

import math
from functools import cache

import numpy as np
import pytest

from projects.clip_vg_core.curriculum.search import (
    STRATEGIES,
    Pick,
    fixed,
    full_grid,
    greedy_walk,
    multi_source,
    number_of_trials,
)

GRID = [i / 10 for i in range(11)]  # the paper's
# Starts and steps whose grid is not the paper's, too.
SETTINGS = [(0.5, 0.1), (0.0, 0.1), (1.0, 0.1), (0.3, 0.25), (0.55, 0.1), (0.5, 0.7)]


def drive(search, score):
    """Run a search; what it returns, and the lists it asked for."""
    asked = []
    try:
        asked.append(next(search))
        while True:
            asked.append(search.send({key: score(key) for key in asked[-1]}))
    except StopIteration as done:
        return done.value, asked


def random_scores(seed):
    """A score for everything asked; few levels, so many ties, and some failures."""
    rng = np.random.default_rng(seed)
    levels = [0.0, 1.0, 2.0, 3.0, -math.inf]
    return cache(lambda key: levels[rng.choice(5, p=[0.2, 0.25, 0.25, 0.2, 0.1])])


def slow_walk(score, start, step):
    """Reference: list the whole way, then see how far it is gone."""
    ways = [
        [h for i in range(1, 99) if 0 <= (h := round(start + sign * i * step, 6)) <= 1]
        for sign in (-1, 1)
    ]
    ways = [way for way in ways if way]  # the lower one first: it wins when equal
    path = [start] + [way[0] for way in ways]
    if ways:
        way = max(ways, key=lambda way: score(way[0]))
        values = [score(start)] + [score(h) for h in way]
        for i, h in enumerate(way[1:], 1):
            if values[i] < values[i - 1] or values[i] == -math.inf:
                break
            path.append(h)
    best = min(path, key=lambda h: (-score(h), h != start, h))
    return best, score(best), tuple(path)


@pytest.mark.parametrize(('start', 'step'), SETTINGS)
def test_the_walk_equals_the_slow_reference_on_random_scores(start, step):
    fewest, most = number_of_trials('greedy', start, step)
    lengths = set()
    for seed in range(300):
        score = random_scores(seed)
        found, asked = drive(greedy_walk(start, step), score)
        expected = slow_walk(score, start, step)
        assert (found.threshold, found.score, found.path) == expected
        assert [h for thresholds in asked for h in thresholds] == list(found.path)
        assert all(0 <= h <= 1 for h in found.path)
        assert len(set(found.path)) == len(found.path)
        lengths.add(len(found.path))
    assert fewest == min(lengths) and max(lengths) <= most


@pytest.mark.parametrize(('start', 'step'), SETTINGS)
def test_the_walk_to_the_far_end_takes_the_most_trials(start, step):
    far = -1 if start >= 0.5 else 1
    found, _ = drive(greedy_walk(start, step), lambda h: far * h)
    assert len(found.path) == number_of_trials('greedy', start, step)[1]


@pytest.mark.parametrize('peak', GRID)
@pytest.mark.parametrize('start', [0.0, 0.5, 0.8, 1.0])
def test_the_walk_finds_the_peak_of_a_curve_with_one(peak, start):
    found, _ = drive(greedy_walk(start), lambda h: -abs(h - peak))
    assert (found.threshold, found.score) == (pytest.approx(peak), pytest.approx(0))


def test_equal_scores_keep_the_start_and_then_the_lower_threshold():
    assert drive(greedy_walk(), lambda h: 1.0)[0].threshold == 0.5
    scores = {0.5: 1.0, 0.4: 2.0, 0.6: 2.0}
    found, _ = drive(greedy_walk(), lambda h: scores.get(h, 0.0))
    assert (found.threshold, found.path) == (0.4, (0.5, 0.4, 0.6, 0.3))


def test_where_every_threshold_leaves_too_few_the_walk_ends_at_once():
    found, asked = drive(greedy_walk(), lambda h: -math.inf)
    assert (found.threshold, found.score) == (0.5, -math.inf)
    assert len(asked) == 1


def test_the_walk_leaves_a_start_of_too_few_labels():
    found, _ = drive(greedy_walk(), lambda h: 1.0 - h if h < 0.5 else -math.inf)
    assert found.threshold == 0.0


def test_the_grid_asks_for_all_at_once_and_finds_the_best():
    for seed in range(50):
        score = random_scores(seed)
        found, asked = drive(full_grid(), score)
        assert asked == [GRID] == [list(found.path)]
        best = min(GRID, key=lambda h: (-score(h), h != 0.5, h))
        assert (found.threshold, found.score) == (best, score(best))
    assert number_of_trials('grid') == (11, 11)


@pytest.mark.parametrize(('start', 'step'), SETTINGS + [(0.2, 0.2), (0.5, 0.15)])
def test_the_grid_has_as_many_trials_as_announced(start, step):
    found, _ = drive(full_grid(start, step), lambda h: h)
    assert number_of_trials('grid', start, step) == (len(found.path),) * 2
    assert start in found.path
    assert 0 <= found.path[0] < step + 1e-9
    assert 1 - step - 1e-9 < found.path[-1] <= 1
    assert np.diff(found.path) == pytest.approx(step)


def test_a_fixed_threshold_is_one_trial():
    found, asked = drive(fixed(0.3), lambda h: 7.0)
    assert (found.threshold, found.score, found.path) == (0.3, 7.0, (0.3,))
    assert asked == [[0.3]]
    assert number_of_trials('fixed') == (1, 1)


@pytest.mark.parametrize('strategy', STRATEGIES)
def test_of_one_source_it_is_the_search_for_the_threshold(strategy):
    search = STRATEGIES[strategy]
    for seed in range(20):
        score = random_scores(seed)
        alone, asked = drive(search(), score)
        found, trials = drive(
            multi_source(['a'], {'a': ['a']}, search),
            lambda trial, score=score: score(trial[0].threshold),
        )
        assert found.sources[0].walk == alone
        assert trials == [[(Pick('a', 'a', h),) for h in step] for step in asked]
        if alone.score > -math.inf:
            assert found.trial == (Pick('a', 'a', alone.threshold),)
            assert found.score == alone.score


# What each measurer adds to each source, and each source's best threshold.
GAINS = {'a': {'m': 2.0, 'n': 1.0}, 'b': {'m': -1.0, 'n': -0.5}, 'c': {'m': 1, 'n': 3}}
PEAKS = {'a': 0.2, 'b': 0.5, 'c': 0.7}


def additive(trial):
    gains = (GAINS[pick.source][pick.measurer] for pick in trial)
    losses = (abs(pick.threshold - PEAKS[pick.source]) for pick in trial)
    return sum(gains) - sum(losses)


def test_sources_are_added_in_order_each_with_its_best_measurer_and_threshold():
    found, asked = drive(
        multi_source('abc', dict.fromkeys('abc', 'mn'), greedy_walk), additive
    )
    a, c = Pick('a', 'm', 0.2), Pick('c', 'n', 0.7)
    assert found.trial == (a, c)
    assert found.score == pytest.approx(5)
    assert [(s.source, s.measurer, s.kept) for s in found.sources] == [
        ('a', 'm', True),
        ('b', 'n', False),  # helps nothing: reported, and nothing is built on it
        ('c', 'n', True),
    ]
    assert found.sources[1].walk.score == pytest.approx(1.5)
    assert found.sources[1].measurers == pytest.approx(dict(m=1, n=1.5))
    for trials in asked:
        assert isinstance(trials, list)
        on_top_of = {trial[:-1] for trial in trials}
        assert on_top_of == ({()} if trials[0][-1].source == 'a' else {(a,)})


def test_measurers_are_compared_at_the_start():
    asked = drive(
        multi_source(['c'], {'c': ['m', 'n']}, lambda: fixed(0.4), start=0.4), additive
    )[1]
    assert asked[0] == [(Pick('c', 'm', 0.4),), (Pick('c', 'n', 0.4),)]
    assert asked[1] == [(Pick('c', 'n', 0.4),)]


def test_of_equal_measurers_the_first_is_taken():
    found, _ = drive(multi_source('a', {'a': ['n', 'm']}, fixed), lambda trial: 1.0)
    assert found.sources[0].measurer == 'n'


def test_a_source_that_only_draws_level_is_skipped():
    found, _ = drive(multi_source('ab', dict(a='m', b='m'), fixed), lambda t: 1.0)
    assert found.trial == (Pick('a', 'm', 0.5),)
    assert not found.sources[1].kept


def test_where_nothing_works_nothing_is_chosen():
    found, _ = drive(
        multi_source('ab', dict(a='mn', b='mn'), greedy_walk), lambda t: -math.inf
    )
    assert (found.trial, found.score) == ((), -math.inf)
    assert [s.kept for s in found.sources] == [False, False]


def test_what_is_found_has_its_score_and_nothing_tried_on_the_way_beats_it():
    for seed in range(100):
        score = random_scores(seed)
        found, asked = drive(
            multi_source('abc', dict.fromkeys('abc', 'mn'), greedy_walk), score
        )
        assert found.score == (score(found.trial) if found.trial else -math.inf)
        kept = [s for s in found.sources if s.kept]
        assert [p.source for p in found.trial] == [s.source for s in kept]
        assert [s.walk.score for s in kept] == sorted({s.walk.score for s in kept})
        assert found.score == max(score(trial) for trials in asked for trial in trials)
