"""Where objects of a class are: extremes, the third of three, quarters, and depth."""

import numpy as np
import pytest

from projects.clip_vg_core.pseudo_labels.detection import Detection
from projects.clip_vg_core.pseudo_labels.template import locations

from ...helpers.scenes import SIZE, at, scattered, shuffled

AXES = dict(x=('left', 'right'), y=('top', 'bottom'))
DEPTHS = {'behind', 'front'}


def places(*centers, axis='x', size=SIZE, **options):
    """Words for boxes of one size whose centres differ along an axis only."""
    items = [
        at(*((c, size[1] / 2) if axis == 'x' else (size[0] / 2, c))) for c in centers
    ]
    return [set(words) for words in locations(items, *size, **options)]


def depths(*areas, **options):
    """Words for boxes of one centre whose areas differ."""
    items = [at(320, 240, size=(area, 1)) for area in areas]
    return [set(words) for words in locations(items, *SIZE, **options)]


@pytest.mark.parametrize('items', [[], [at(10, 10)]])
def test_a_single_object_has_no_place(items):
    assert locations(items, *SIZE) == [[] for _ in items]


@pytest.mark.parametrize('axis', AXES)
@pytest.mark.parametrize(
    ('size', 'limit'),
    [
        ((640, 480), 50),  # the release's pixels, in its images
        ((480, 640), 50),  # relative to the long side, whichever it is
        ((1280, 960), 100),
        ((640, 640), 50),
        ((320, 240), 25),
    ],
)
def test_extremes_have_a_place_if_they_are_farther_apart_than_the_limit(
    axis, size, limit
):
    low, high = AXES[axis]
    assert places(60, 60 + limit + 0.5, axis=axis, size=size) == [{low}, {high}]
    assert places(60 + limit + 0.5, 60, axis=axis, size=size) == [{high}, {low}]
    assert places(60, 60 + limit, axis=axis, size=size) == [set(), set()]


@pytest.mark.parametrize('axis', AXES)
def test_the_limit_is_an_option_as_a_share_or_in_pixels(axis):
    apart = [set(AXES[axis][:1]), set(AXES[axis][1:])]
    far = dict(axis=axis, size=(1280, 960))
    assert places(60, 119, **far) == [set(), set()]
    assert places(60, 119, **far, min_spread=0.04) == apart
    assert places(60, 119, **far, min_spread_pixels=50) == apart  # the release's
    assert places(60, 110, **far, min_spread_pixels=50) == [set(), set()]
    assert places(60, 61, **far, min_spread_pixels=0) == apart


@pytest.mark.parametrize('third', [61, 100, 240, 439])
def test_of_exactly_three_in_a_row_the_third_is_in_the_middle(third):
    expected = {60: {'left'}, third: {'middle', 'center'}, 440: {'right'}}
    for seed in range(6):
        centers = shuffled(list(expected), seed)
        assert places(*centers) == [expected[c] for c in centers]


@pytest.mark.parametrize(
    ('third', 'words'),
    [(61, {'top'}), (119, {'top'}), (121, set()), (240, set()), (361, {'bottom'})],
)
def test_of_exactly_three_in_a_column_the_third_goes_by_quarters(third, words):
    expected = {60: {'top'}, third: words, 440: {'bottom'}}
    for seed in range(6):
        centers = shuffled(list(expected), seed)
        assert places(*centers, axis='y') == [expected[c] for c in centers]


def reference(items, width, height, spread):
    """Places as the official code has them, with quarters of the height in y."""
    x, y = np.array([item.center for item in items]).T
    words = [set() for _ in items]
    for centers, side, names in ((x, width, AXES['x']), (y, height, AXES['y'])):
        if centers.max() - centers.min() <= spread:
            continue
        first, last = (
            np.arange(len(items)) == i for i in (centers.argmin(), centers.argmax())
        )
        outer = len(items) != 3 or names == AXES['y']  # whether quarters count
        low = first | (outer & ~last & (centers < side / 4))
        high = last | (outer & ~first & (centers > side * 3 / 4))
        for i in range(len(items)):
            words[i] |= {names[0]} if low[i] else {names[1]} if high[i] else set()
            if names == AXES['x'] and not low[i] and not high[i]:
                words[i] |= {'middle', 'center'}
    return words


@pytest.mark.parametrize('count', [2, 3, 4, 5, 9])
def test_places_are_those_of_the_official_code(count):
    said = 0
    for seed in range(60):
        items = scattered(seed, ['dog'], count)
        found = [set(words) - DEPTHS for words in locations(items, *SIZE)]
        assert found == reference(items, *SIZE, 50)
        across = [item.center[0] for item in items]
        for words, x in zip(found, across, strict=True):
            if 'middle' in words:  # never the left or right extreme
                said += 1
                assert min(across) < x < max(across)
    assert said or count == 2


@pytest.mark.parametrize('axis', AXES)
def test_of_two_or_four_none_is_in_the_middle_of_the_outer_quarters(axis):
    for centers in ((60, 440), (20, 60, 90, 470)):
        assert not set().union(*places(*centers, axis=axis)) & {'middle', 'center'}


@pytest.mark.parametrize('size', [(640, 480), (480, 640), (2000, 400), (400, 400)])
@pytest.mark.parametrize('axis', AXES)
@pytest.mark.parametrize('count', [4, 5, 9])
def test_of_more_the_others_go_by_quarters_of_their_own_side(axis, size, count):
    # Of the height in y: in 2000 x 400, y = 350 is no top, though a quarter of the
    # width is 500 (the release's mistake).
    low, high = AXES[axis]
    side = size['xy'.index(axis)]
    inner = np.linspace(0.02, 0.98, count - 2) * side
    centers = [1, *(c for c in inner.tolist()), side - 1]
    found = places(*centers, axis=axis, size=size)
    assert found[0] == {low} and found[-1] == {high}
    for center, words in zip(centers, found, strict=True):
        assert (low in words) is (center < side / 4)
        assert (high in words) is (center > side * 3 / 4)


@pytest.mark.parametrize('axis', AXES)
@pytest.mark.parametrize('third', [0.24, 0.26, 0.5, 0.74, 0.76])
def test_quarters_are_of_the_image_not_of_the_objects(axis, third):
    side = SIZE['xy'.index(axis)]
    middle = third * side
    words = places(0, 0.2 * side, middle, 0.9 * side, axis=axis)[2]
    low, high = AXES[axis]
    expected = {low} if third < 0.25 else {high} if third > 0.75 else set()
    assert words - {'middle', 'center'} == expected


@pytest.mark.parametrize('third', [0.26, 0.5, 0.74])
def test_of_more_those_in_the_inner_quarters_are_in_the_middle(third):
    assert places(0, 20, third * 640, 630)[2] == {'middle', 'center'}
    assert places(0, 20, third * 480, 470, axis='y')[2] == set()


@pytest.mark.parametrize('size', [(640, 480), (480, 640)])
def test_the_axes_do_not_mix(size):
    diagonal = [at(c, c, size=(40, 40)) for c in (60, 200, 350, 420)]
    found = locations(diagonal, *size)
    for axis, words in AXES.items():
        alone = places(60, 200, 350, 420, axis=axis, size=size)
        assert [set(f) & set(words) for f in found] == [a & set(words) for a in alone]


@pytest.mark.parametrize(
    ('areas', 'expected'),
    [
        ((39, 100), [{'behind'}, {'front'}]),
        ((100, 39), [{'front'}, {'behind'}]),
        ((40, 100), [set(), set()]),  # exactly 0.4
        ((41, 100), [set(), set()]),
        ((100, 100), [set(), set()]),
        # The third of three has none, however large it is.
        ((10, 100, 20), [{'behind'}, {'front'}, set()]),
        ((10, 100, 90), [{'behind'}, {'front'}, set()]),
        # With more: below 0.4 or above 0.8 of the largest.
        ((10, 100, 39, 81), [{'behind'}, {'front'}, {'behind'}, {'front'}]),
        ((10, 100, 40, 80), [{'behind'}, {'front'}, set(), set()]),
        ((81, 40, 100, 39), [{'front'}, set(), {'front'}, {'behind'}]),
        # Nothing of it where the smallest is not behind.
        ((50, 100, 90, 60), [set()] * 4),
        ((40, 100, 90, 81), [set()] * 4),
    ],
)
@pytest.mark.parametrize('factor', [1, 3, 0.5])
def test_small_ones_are_behind_and_large_ones_in_front(areas, expected, factor):
    assert depths(*(area * factor for area in areas)) == expected


@pytest.mark.parametrize('behind', [0.2, 0.5])
@pytest.mark.parametrize('front', [0.6, 0.9])
def test_the_shares_of_the_largest_are_options(behind, front):
    areas = (19, 100, 45, 55, 65, 89, 91)
    expected = [{'behind'} if a / 100 < behind else set() for a in areas]
    for words, area in zip(expected, areas, strict=True):
        words |= {'front'} if area / 100 > front else set()
    assert depths(*areas, behind=behind, front=front) == expected


@pytest.mark.parametrize('count', [2, 3, 4, 7])
@pytest.mark.parametrize('seed', range(4))
def test_places_follow_the_objects_when_they_are_shuffled(count, seed):
    items = scattered(seed, ['dog'], count)
    words = {
        item: set(found)
        for item, found in zip(items, locations(items, *SIZE), strict=True)
    }
    assert any(words.values())
    mixed = shuffled(items, seed + 1)
    assert [set(found) for found in locations(mixed, *SIZE)] == [
        words[item] for item in mixed
    ]


MIRROR = dict(left='right', right='left', top='bottom', bottom='top')


@pytest.mark.parametrize('count', [2, 3, 4, 7])
@pytest.mark.parametrize('seed', range(4))
def test_an_image_turned_around_swaps_left_and_right_top_and_bottom(count, seed):
    items = scattered(seed, ['dog'], count)
    width, height = SIZE
    turned = [
        Detection('dog', (width - x2, height - y2, width - x1, height - y1))
        for x1, y1, x2, y2 in (item.box for item in items)
    ]
    expected = [{MIRROR.get(w, w) for w in f} for f in locations(items, *SIZE)]
    assert [set(found) for found in locations(turned, *SIZE)] == expected


@pytest.mark.parametrize('count', [2, 4, 7])
@pytest.mark.parametrize('seed', range(4))
def test_a_word_is_said_once_and_never_with_its_contrary(count, seed):
    for words in locations(scattered(seed, ['dog'], count), *SIZE):
        assert len(words) == len(set(words))
        for contrary in (*map(set, AXES.values()), DEPTHS):
            assert not contrary <= set(words)


def test_the_size_of_the_image_does_not_matter_in_itself():
    items = scattered(5, ['dog'], 6)
    small = [
        Detection(item.name, tuple(edge / 4 for edge in item.box)) for item in items
    ]
    assert locations(small, 160, 120) == locations(items, *SIZE)
