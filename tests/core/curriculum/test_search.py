"""Searches: which trials they score, in which order, and what they select."""

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
    rank_measurers,
)

GRID = [i / 10 for i in range(11)]  # the paper's
# Starts and steps whose grid is not the paper's, too.
SETTINGS = [(0.5, 0.1), (0.0, 0.1), (1.0, 0.1), (0.3, 0.25), (0.55, 0.1), (0.5, 0.7)]


class Scorer:
    """Scores by a function, and records the lists that were scored."""

    def __init__(self, score):
        self.score, self.calls = score, []

    def __call__(self, keys):
        self.calls.append(list(keys))
        return [self.score(key) for key in keys]


def random_scores(seed):
    """A score for every key; few levels, so many ties, and some failures."""
    rng = np.random.default_rng(seed)
    levels = [0.0, 1.0, 2.0, 3.0, -math.inf]
    return cache(lambda key: levels[rng.choice(5, p=[0.2, 0.25, 0.25, 0.2, 0.1])])


def slow_walk(score, start, step):
    """Reference: list the whole way, then see how far the walk gets."""
    ways = [
        [h for i in range(1, 99) if 0 <= (h := round(start + sign * i * step, 6)) <= 1]
        for sign in (-1, 1)
    ]
    ways = [way for way in ways if way]  # the lower one first: it wins over equals
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


def slow_msa(score, sources, measurers, start, step):
    """Reference: section 6 of the method, one source after the other."""
    picks, best, helps = (), -math.inf, []
    for source in sources:

        def at(measurer, threshold, source=source, before=picks):
            return score((*before, Pick(source, measurer, threshold)))

        by = min(measurers[source], key=lambda m: -at(m, start))  # noqa: B023
        threshold, value, _ = slow_walk(lambda h: at(by, h), start, step)  # noqa: B023
        helps.append(value > best)
        if value > best:
            picks, best = (*picks, Pick(source, by, threshold)), value
    return picks, best, helps


@pytest.mark.parametrize(('start', 'step'), SETTINGS)
def test_the_walk_equals_the_slow_reference_on_random_scores(start, step):
    fewest, most = number_of_trials('greedy', start, step)
    lengths = set()
    for seed in range(300):
        score = Scorer(random_scores(seed))
        walk = greedy_walk(score, start, step)
        expected = slow_walk(score.score, start, step)
        assert (walk.threshold, walk.score, walk.path) == expected
        assert [h for thresholds in score.calls for h in thresholds] == list(walk.path)
        assert all(0 <= h <= 1 for h in walk.path)
        assert len(set(walk.path)) == len(walk.path)
        lengths.add(len(walk.path))
    assert fewest == min(lengths) and max(lengths) <= most


@pytest.mark.parametrize(('start', 'step'), SETTINGS)
def test_msa_equals_the_slow_reference_on_random_scores(start, step):
    measurers = rank_measurers('abc')
    for seed in range(200):
        score = random_scores(seed)
        result = multi_source('abc', measurers, Scorer(score), greedy_walk, start, step)
        picks, best, helps = slow_msa(score, 'abc', measurers, start, step)
        assert (result.trial, result.score) == (picks, best)
        assert [source.kept for source in result.sources] == helps


@pytest.mark.parametrize(('start', 'step'), SETTINGS)
def test_the_walk_to_the_far_end_takes_the_most_trials(start, step):
    far = -1 if start >= 0.5 else 1
    walk = greedy_walk(Scorer(lambda h: far * h), start, step)
    assert len(walk.path) == number_of_trials('greedy', start, step)[1]


@pytest.mark.parametrize('peak', GRID)
@pytest.mark.parametrize('start', [0.0, 0.5, 0.8, 1.0])
def test_the_walk_reaches_the_peak_of_a_curve_with_one(peak, start):
    walk = greedy_walk(Scorer(lambda h: -abs(h - peak)), start)
    assert (walk.threshold, walk.score) == (pytest.approx(peak), pytest.approx(0))


def test_of_equal_scores_the_start_wins_and_then_the_lower_threshold():
    assert greedy_walk(Scorer(lambda h: 1.0)).threshold == 0.5
    scores = {0.5: 1.0, 0.4: 2.0, 0.6: 2.0}
    walk = greedy_walk(Scorer(lambda h: scores.get(h, 0.0)))
    assert (walk.threshold, walk.path) == (0.4, (0.5, 0.4, 0.6, 0.3))


def test_where_every_threshold_leaves_too_few_the_walk_ends_at_once():
    score = Scorer(lambda h: -math.inf)
    walk = greedy_walk(score)
    assert (walk.threshold, walk.score) == (0.5, -math.inf)
    assert len(score.calls) == 1


def test_the_walk_leaves_a_start_of_too_few_labels():
    score = Scorer(lambda h: 1.0 - h if h < 0.5 else -math.inf)
    assert greedy_walk(score).threshold == 0.0


def test_the_grid_scores_all_at_once_and_takes_the_best():
    for seed in range(50):
        score = Scorer(random_scores(seed))
        walk = full_grid(score)
        assert score.calls == [GRID] == [list(walk.path)]
        best = min(GRID, key=lambda h: (-score.score(h), h != 0.5, h))
        assert (walk.threshold, walk.score) == (best, score.score(best))
    assert number_of_trials('grid') == (11, 11)


@pytest.mark.parametrize(('start', 'step'), SETTINGS + [(0.2, 0.2), (0.5, 0.15)])
def test_the_grid_has_as_many_trials_as_announced(start, step):
    walk = full_grid(Scorer(lambda h: h), start, step)
    assert number_of_trials('grid', start, step) == (len(walk.path),) * 2
    assert start in walk.path
    assert 0 <= walk.path[0] < step + 1e-9
    assert 1 - step - 1e-9 < walk.path[-1] <= 1
    assert np.diff(walk.path) == pytest.approx(step)


def test_a_fixed_threshold_is_one_trial():
    score = Scorer(lambda h: 7.0)
    walk = fixed(score, 0.3)
    assert (walk.threshold, walk.score, walk.path) == (0.3, 7.0, (0.3,))
    assert score.calls == [[0.3]]
    assert number_of_trials('fixed') == (1, 1)


@pytest.mark.parametrize('strategy', STRATEGIES.values())
def test_of_one_source_it_is_the_search_for_the_threshold(strategy):
    for seed in range(20):
        alone = Scorer(random_scores(seed))
        walk = strategy(alone)
        trials = Scorer(lambda trial, of=alone.score: of(trial[0].threshold))
        result = multi_source(['a'], {'a': ['a']}, trials, strategy)
        assert result.sources[0].walk == walk
        assert trials.calls == [[(Pick('a', 'a', h),) for h in c] for c in alone.calls]
        if walk.score > -math.inf:
            assert result.trial == (Pick('a', 'a', walk.threshold),)
            assert result.score == walk.score


# What each measurer adds to each source, and each source's best threshold.
GAINS = {'a': {'m': 2.0, 'n': 1.0}, 'b': {'m': -1.0, 'n': -0.5}, 'c': {'m': 1, 'n': 3}}
PEAKS = {'a': 0.2, 'b': 0.5, 'c': 0.7}


def additive(trial):
    gains = (GAINS[pick.source][pick.measurer] for pick in trial)
    losses = (abs(pick.threshold - PEAKS[pick.source]) for pick in trial)
    return sum(gains) - sum(losses)


def test_sources_are_added_in_order_each_with_its_best_measurer_and_threshold():
    score = Scorer(additive)
    result = multi_source('abc', dict.fromkeys('abc', 'mn'), score)
    a, c = Pick('a', 'm', 0.2), Pick('c', 'n', 0.7)
    assert result.trial == (a, c)
    assert result.score == pytest.approx(5)
    assert [(s.source, s.measurer, s.kept) for s in result.sources] == [
        ('a', 'm', True),
        ('b', 'n', False),  # helps nothing: reported, and nothing is built on it
        ('c', 'n', True),
    ]
    assert result.sources[1].walk.score == pytest.approx(1.5)
    assert result.sources[1].measurers == pytest.approx(dict(m=1, n=1.5))
    for trials in score.calls:
        on_top_of = {trial[:-1] for trial in trials}
        assert on_top_of == ({()} if trials[0][-1].source == 'a' else {(a,)})


def test_measurers_are_compared_at_the_start():
    score = Scorer(additive)
    multi_source(['c'], {'c': ['m', 'n']}, score, fixed, start=0.4)
    assert score.calls == [
        [(Pick('c', 'm', 0.4),), (Pick('c', 'n', 0.4),)],
        [(Pick('c', 'n', 0.4),)],
    ]


def test_of_equal_measurers_the_first_is_taken():
    result = multi_source('a', {'a': ['n', 'm']}, Scorer(lambda trial: 1.0), fixed)
    assert result.sources[0].measurer == 'n'


def test_a_source_that_only_draws_level_is_skipped():
    result = multi_source('ab', dict(a='m', b='m'), Scorer(lambda t: 1.0), fixed)
    assert result.trial == (Pick('a', 'm', 0.5),)
    assert not result.sources[1].kept


def test_where_nothing_works_nothing_is_selected():
    score = Scorer(lambda trial: -math.inf)
    result = multi_source('ab', dict(a='mn', b='mn'), score)
    assert (result.trial, result.score) == ((), -math.inf)
    assert [s.kept for s in result.sources] == [False, False]


def test_the_result_has_its_score_and_nothing_tried_on_the_way_beats_it():
    for seed in range(100):
        score = Scorer(random_scores(seed))
        result = multi_source('abc', dict.fromkeys('abc', 'mn'), score)
        trial = result.trial
        assert result.score == (score.score(trial) if trial else -math.inf)
        helped = [s for s in result.sources if s.kept]
        assert [p.source for p in trial] == [s.source for s in helped]
        assert [s.walk.score for s in helped] == sorted({s.walk.score for s in helped})
        assert result.score == max(score.score(t) for call in score.calls for t in call)


def test_a_source_that_does_not_help_is_skipped_or_kept():
    """The second source lowers every score; the third raises it again."""
    value = {'a': 0.6, 'b': -0.1, 'c': 0.2}

    def score(trials):
        return [sum(value[pick.source] for pick in trial) for trial in trials]

    own = {name: [name] for name in value}
    skipped = multi_source(list(value), own, score, fixed)
    assert [pick.source for pick in skipped.trial] == ['a', 'c']
    assert skipped.score == pytest.approx(0.8)
    kept = multi_source(list(value), own, score, fixed, keep_all=True)
    assert [pick.source for pick in kept.trial] == ['a', 'b', 'c']
    assert kept.score == pytest.approx(0.7)
    assert all(one.kept for one in kept.sources)
    # Nothing to keep where too few labels are left.
    value['b'] = -math.inf
    kept = multi_source(list(value), own, score, fixed, keep_all=True)
    assert [pick.source for pick in kept.trial] == ['a', 'c']
