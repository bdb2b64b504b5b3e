"""Selection: which labels are selected, and where two peaks are cut."""

import numpy as np
import pytest

from benchmarks.curriculum_table import add_gaps, make_table, selection_quality
from projects.clip_vg_core.curriculum.selection import (
    mixture_valley,
    otsu_valley,
    select_reliable,
    update_mean,
)

RELIABILITY = np.array([0.0, 0.9, np.nan, 0.5, 1.0, 1 - 2**-24], np.float32)
BIN = 1 / 1000  # the paper's histograms have 1000 bins
VALLEYS = (otsu_valley, mixture_valley)


@pytest.mark.parametrize(
    ('threshold', 'expected'),
    [
        (-1.0, [0, 1, 3, 4, 5]),
        (0.0, [1, 3, 4, 5]),  # strict: a complete miss is never selected
        (0.5, [1, 4, 5]),
        (0.9, [4, 5]),  # 0.9 of single precision passes no 0.9
        (1.0, [4]),  # as in the official code, r == 1; label 5 is the next number below
    ],
)
def test_selects_what_is_above_the_threshold_and_never_nan(threshold, expected):
    assert select_reliable(RELIABILITY, threshold).tolist() == expected


def test_selection_shrinks_as_the_threshold_rises():
    scores = np.random.default_rng(0).integers(0, 11, 200) / 10
    selected = [set(select_reliable(scores, h / 10).tolist()) for h in range(11)]
    for lower, higher in zip(selected, selected[1:], strict=False):
        assert lower >= higher
    assert len(selected[0]) < 200 and selected[10] == set(np.flatnonzero(scores == 1))


def test_selection_follows_the_labels_when_they_are_shuffled():
    order = np.random.default_rng(1).permutation(len(RELIABILITY))
    selected = select_reliable(RELIABILITY[order], 0.5)
    assert selected.tolist() == sorted(selected)
    assert set(order[selected]) == set(select_reliable(RELIABILITY, 0.5))


def means(snapshots):
    mean = None
    for count, values in enumerate(snapshots):
        mean = update_mean(mean, count, values)
    return mean


def test_the_running_mean_is_the_mean_of_all_snapshots():
    snapshots = np.random.default_rng(2).random((7, 50)).astype(np.float32)
    for count in (1, 2, 7):
        assert means(snapshots[:count]) == pytest.approx(
            snapshots[:count].mean(0), abs=1e-6
        )
    assert means(snapshots).dtype == np.float32


def test_a_label_that_one_snapshot_misses_takes_the_other():
    nan = np.nan
    snapshots = np.array([[0.2, nan, 0.4, nan], [0.6, 0.5, nan, nan]], np.float32)
    expected = [0.4, 0.5, 0.4, nan]  # np.nanmean of the columns
    assert means(snapshots) == pytest.approx(expected, nan_ok=True)


def between(values, cut):
    """Variance between the two sides of a cut."""
    low, high = values[values <= cut], values[values > cut]
    if not len(low) or not len(high):
        return 0.0
    return len(low) * len(high) * (low.mean() - high.mean()) ** 2 / len(values) ** 2


def two_peaks(seed, low=(0.1, 0.05), high=(0.8, 0.1), counts=(300, 700)):
    """Samples of two Gaussians (mean, deviation), within [0, 1]."""
    rng = np.random.default_rng(seed)
    parts = [rng.normal(*peak, n) for peak, n in zip((low, high), counts, strict=True)]
    return np.concatenate(parts).clip(0, 1)


SAMPLES = {
    'two peaks': two_peaks(0),
    'overlapping peaks': two_peaks(1, (0.35, 0.15), (0.65, 0.15)),
    'few of one': two_peaks(2, counts=(20, 980)),
    'flat': np.random.default_rng(3).random(800),
    'skewed': np.random.default_rng(4).random(800) ** 4,
    'in tenths': np.random.default_rng(5).integers(0, 11, 301) / 10,
    'two values': np.array([0.3] * 9 + [0.35]),
}


@pytest.mark.parametrize('name', SAMPLES)
def test_otsu_equals_the_slow_reference_that_tries_every_cut(name):
    values = SAMPLES[name]
    best = max(between(values, cut) for cut in values)
    valley = otsu_valley(values)
    near = valley.threshold + np.array([-BIN, 0, BIN])
    assert max(between(values, cut) for cut in near) == pytest.approx(best, rel=2e-3)
    assert valley.separation == pytest.approx(best / values.var(), rel=5e-3)


@pytest.mark.parametrize('counts', [(1, 1), (5, 500), (500, 5)])
def test_between_two_far_groups_otsu_takes_the_middle(counts):
    values = np.repeat([0.2, 0.6], counts)
    valley = otsu_valley(values)
    assert valley.threshold == pytest.approx(0.4, abs=BIN)
    assert valley.separation == pytest.approx(1)


def test_separation_tells_a_valley_from_none():
    apart = [
        otsu_valley(two_peaks(0, (0.5 - gap, 0.1), (0.5 + gap, 0.1))).separation
        for gap in (0.1, 0.2, 0.3)
    ]
    assert apart == sorted(apart) and apart[-1] > 0.85
    # Uniform: 1/16 between the halves, of 1/12.
    assert otsu_valley(np.linspace(0, 1, 5000)).separation == pytest.approx(
        0.75, abs=1e-3
    )
    assert otsu_valley(np.full(5, 0.7)).separation == 0


@pytest.mark.parametrize(
    ('low', 'high', 'share'),
    [
        ((0.25, 0.07), (0.75, 0.07), 0.5),
        ((0.25, 0.07), (0.75, 0.07), 0.2),
        ((0.2, 0.04), (0.7, 0.1), 0.4),
        ((0.3, 0.1), (0.8, 0.05), 0.7),
    ],
)
def test_the_mixture_is_cut_where_two_known_gaussians_cross(low, high, share):
    grid = np.linspace(low[0], high[0], 10001)
    density = [
        part / sigma * np.exp(-(((grid - mean) / sigma) ** 2) / 2)
        for part, (mean, sigma) in ((share, low), (1 - share, high))
    ]
    crossing = grid[np.argmax(density[1] >= density[0])]
    counts = (int(20000 * share), int(20000 * (1 - share)))
    cut = mixture_valley(two_peaks(6, low, high, counts)).threshold
    assert cut == pytest.approx(crossing, abs=0.01)  # of 20000 samples


@pytest.mark.parametrize('valley', VALLEYS)
@pytest.mark.parametrize('seed', range(5))
def test_the_valley_lies_between_the_peaks_of_cross_source_reliability(valley, seed):
    # The paper's peaks; its valley is near 0.45 to 0.55.
    values = two_peaks(seed, (0.06, 0.05), (0.82, 0.1), (400, 600))
    assert 0.2 < valley(values).threshold < 0.7


@pytest.mark.parametrize('valley', VALLEYS)
def test_valleys_see_neither_the_order_nor_labels_without_a_score(valley):
    values = two_peaks(7)
    mixed = np.random.default_rng(0).permutation(np.r_[values, [np.nan] * 99])
    assert valley(mixed) == valley(values)


@pytest.mark.parametrize('valley', VALLEYS)
@pytest.mark.parametrize('values', [[], [np.nan, np.nan]])
def test_there_is_no_valley_of_nothing(valley, values):
    with pytest.raises(ValueError, match='No label is scored'):
        valley(np.array(values))


def test_quality_of_a_selection_by_hand():
    clean = np.array([True, True, True, False, False, True, True, True])
    # Selected: one wrong, three of the six right ones.
    assert selection_quality(np.array([0, 1, 3, 7]), clean) == dict(
        share=0.5, precision=0.75, recall=0.5
    )
    nothing = selection_quality(np.arange(0), clean)
    assert nothing['share'] == nothing['recall'] == 0
    assert np.isnan(nothing['precision'])
    assert np.isnan(selection_quality(np.array([0]), np.zeros(2, bool))['recall'])


def test_the_gap_that_a_way_recovers_lies_between_its_own_part_and_seed():
    def row(part, seed, name, accuracy):
        return dict(part=part, seed=seed, name=name, accuracy=accuracy)

    rows = [
        row('one', 0, 'no selection', 0.5),
        row('one', 0, 'way', 0.7),
        row('one', 0, 'oracle', 0.9),
        row('one', 1, 'no selection', 0.4),
        row('one', 1, 'way', 0.6),
        row('one', 1, 'oracle', 0.6),
        row('no oracle', 0, 'no selection', 0.5),
        row('no oracle', 0, 'way', 0.7),
    ]
    gaps = [row.get('gap') for row in add_gaps(rows)]
    assert gaps == pytest.approx([None, 0.5, None, None, 1.0, None, None, None])
    table = make_table(rows)
    assert '| way | 0.650 ± 0.050 | 0.750 ± 0.250 |' in table
    assert '| way | 0.700 ± 0.000 |\n' in table  # a column that nothing has is left out
