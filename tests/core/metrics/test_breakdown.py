"""Groups of predictions, intervals and the comparison of runs."""

import math

import numpy as np
import pytest

from projects.clip_vg.datasets.transforms.expression_aware import PLACE_WORDS
from projects.clip_vg_core.metrics.breakdown import (
    breakdown,
    by_box_size,
    by_crowd,
    by_length,
    by_value,
    by_word_category,
    calibration,
    summary,
    weak_groups,
    wilson,
)
from projects.clip_vg_core.metrics.comparison import compare, compare_groups, mcnemar
from projects.clip_vg_core.metrics.expression_words import (
    WordCategories,
    load_categories,
)
from projects.clip_vg_core.pseudo_labels.vocabulary import Vocabulary

WORDS = ('left', 'red', 'man', 'the', 'next', 'to', 'umbrella', 'biggest', 'two')


def answers(count=300, seed=0):
    """Random expressions, boxes, sizes, images, sources and IoUs."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 400, (count, 2, 2))
    sizes = np.where(rng.random((count, 1)) < 0.1, np.nan, [[640.0, 480.0]])
    return dict(
        texts=[' '.join(rng.choice(WORDS, rng.integers(1, 20))) for _ in range(count)],
        boxes=np.concatenate([corners.min(1), corners.max(1)], 1),
        sizes=sizes,
        images=[f'{i}.jpg' for i in rng.geometric(0.1, count)],
        sources=rng.choice(['a', 'b', 'c'], count).tolist(),
        ious=rng.random(count),
    )


PARTITIONS = {
    'length': lambda a: by_length(a['texts']),
    'box': lambda a: by_box_size(a['boxes'], a['sizes']),
    'box without pictures': lambda a: by_box_size(
        a['boxes'], np.full_like(a['sizes'], np.nan)
    ),
    'crowd': lambda a: by_crowd(a['images']),
    'source': lambda a: by_value(a['sources']),
}
GROUPINGS = {**PARTITIONS, 'words': lambda a: by_word_category(a['texts'])}


# Newcombe, Statistics in Medicine 17 (1998), 857-872, table I, method 3.
@pytest.mark.parametrize(
    'hits, count, low, high',
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_intervals_are_those_published(hits, count, low, high):
    assert wilson(hits, count) == pytest.approx((low, high), abs=5e-5)


def test_a_summary_counts_hits_from_an_iou_of_a_half():
    found = summary(np.array([0.5, 0.4999, 1.0, 0.0]))
    assert (found['count'], found['hits'], found['accuracy']) == (4, 2, 0.5)
    assert found['miou'] == pytest.approx(1.9999 / 4)
    assert found['low'] < 0.5 < found['high']


@pytest.mark.parametrize('grouping', PARTITIONS.values(), ids=PARTITIONS)
def test_every_prediction_is_in_exactly_one_group(grouping):
    masks = np.stack(list(grouping(answers()).values()))
    np.testing.assert_array_equal(masks.sum(0), 1)
    assert masks.any(1).all()


@pytest.mark.parametrize('grouping', GROUPINGS.values(), ids=GROUPINGS)
def test_groups_do_not_depend_on_the_order(grouping):
    given = answers()
    order = np.random.default_rng(1).permutation(len(given['ious']))
    shuffled = {
        key: value[order]
        if isinstance(value, np.ndarray)
        else [value[i] for i in order]
        for key, value in given.items()
    }
    one = breakdown(given['ious'], grouping(given))
    other = breakdown(shuffled['ious'], grouping(shuffled))
    assert list(one) == list(other)
    for name, part in one.items():
        assert part == pytest.approx(other[name])


def slow_box_group(box, size):
    share = (box[2] - box[0]) * (box[3] - box[1]) / (size[0] * size[1])
    for name, below in (('< 1 %', 1), ('1–3 %', 3), ('3–10 %', 10), ('10–30 %', 30)):
        if 100 * share < below:
            return name
    return 'image not found' if math.isnan(share) else '≥ 30 %'


def test_boxes_are_grouped_by_their_share_of_the_image():
    given = answers()
    grouping = by_box_size(given['boxes'], given['sizes'])
    for index, (box, size) in enumerate(
        zip(given['boxes'], given['sizes'], strict=True)
    ):
        assert grouping[slow_box_group(box, size)][index]


def test_most_images_missing_boxes_are_grouped_by_pixels():
    boxes = np.array([[0, 0, 31, 31], [0, 0, 32, 32], [5, 5, 5, 9], [0, 0, 1000, 900]])
    sizes = np.full((4, 2), np.nan)
    sizes[0] = 640, 480
    grouping = by_box_size(boxes, sizes)
    assert {name: np.flatnonzero(mask).tolist() for name, mask in grouping.items()} == {
        '< 32 px': [0, 2],
        '32–64 px': [1],
        '≥ 256 px': [3],
    }


def test_lengths_and_crowds_fall_into_their_bins():
    texts = ['', 'one', "man's hat, left", ' '.join(['word'] * 7), 'word ' * 40]
    assert [name for name, mask in by_length(texts).items() if mask.any()] == [
        *('1', '3', '6–7', '≥ 16')
    ]
    images = ['a'] * 4 + ['b'] + [None] * 9
    crowds = by_crowd(images)
    assert {name: int(mask.sum()) for name, mask in crowds.items()} == {
        '1': 1,
        '3–4': 4,
    }  # who knows which image the others share


def test_many_names_are_put_together():
    values = [f'v{i:03}' for i in range(100)] + ['v050'] * 5
    grouping = by_value(values)
    assert len(grouping) == 31
    assert next(iter(grouping)) == 'v050'
    assert grouping['70 others'].sum() == 70
    assert sum(mask.sum() for mask in grouping.values()) == len(values)


@pytest.mark.parametrize(
    'text, expected',
    [
        ('Left man', {'place', 'person'}),
        ('the leftmost red cup', {'place', 'comparison', 'colour'}),
        ('cup in front of the laptop', {'relation'}),
        ('cup in the front', {'place'}),
        ('left of the picture', {'place'}),
        ('bowl left of the spoon', {'relation'}),
        ('bright lamp', {'colour'}),  # no "right" in it
        ('second zebra, not blurry', {'number', 'negation'}),
        ('isn’t visible', {'negation'}),
        ('umbrella', set()),
    ],
)
def test_words_tell_the_category(text, expected):
    assert load_categories()(text) == expected


def test_the_lists_agree_with_the_other_lists_of_the_package():
    categories = load_categories()
    for word in PLACE_WORDS:
        assert 'place' in categories(word)
    for word in Vocabulary.load().attributes:
        assert categories(word) & {'colour', 'material'}


def slow_categories(found, words):
    if not words:
        return set()
    for stop in range(len(words), 0, -1):
        if ' '.join(words[:stop]) in found:
            return found[' '.join(words[:stop])] | slow_categories(found, words[stop:])
    return slow_categories(found, words[1:])


def test_the_longest_entry_counts():
    lists = dict(a=['x', 'x y', 'z'], b=['y'], c=['x y z', 'x'])
    found = {
        entry: {name for name, entries in lists.items() if entry in entries}
        for entry in ('x', 'x y', 'z', 'y', 'x y z')
    }
    rng = np.random.default_rng(0)
    for _ in range(200):
        words = rng.choice(list('xyzw'), rng.integers(8)).tolist()
        expected = slow_categories(found, words)
        assert WordCategories(lists)(' '.join(words)) == expected


def test_weak_groups_are_below_the_whole_and_the_costliest_first():
    rng = np.random.default_rng(0)
    ious = rng.random(1000)
    names = np.where(ious < 0.5, 'bad', 'good')
    names[rng.random(1000) < 0.3] = 'mixed'
    parts = dict(kind=breakdown(ious, by_value(names.tolist())))
    accuracy = summary(ious)['accuracy']
    found = weak_groups(parts, accuracy)
    assert [group['group'] for group in found] == ['bad']
    assert found[0]['lost'] == pytest.approx(accuracy * found[0]['count'])
    assert (
        weak_groups(dict(all=breakdown(ious, by_value(['x'] * 1000))), accuracy) == []
    )


def slow_mcnemar(gained, lost):
    """Sum of all outcomes that are no likelier than the one found."""
    total = gained + lost
    ways = [math.comb(total, k) for k in range(total + 1)]
    return sum(w for w in ways if w <= ways[gained]) / 2**total


def test_mcnemar_is_the_sum_over_outcomes():
    for gained in range(12):
        for lost in range(12):
            assert mcnemar(gained, lost) == pytest.approx(slow_mcnemar(gained, lost))


def test_a_comparison_adds_up_and_turns_with_its_sides():
    rng = np.random.default_rng(0)
    one, other = rng.random((2, 500))
    found, back = compare(one, other), compare(other, one)
    cells = ('gained', 'lost', 'both', 'neither')
    assert sum(found[cell] for cell in cells) == found['count'] == 500
    assert found['difference'] == pytest.approx(
        summary(other)['accuracy'] - summary(one)['accuracy']
    )
    assert (back['gained'], back['lost']) == (found['lost'], found['gained'])
    assert back['p'] == pytest.approx(found['p'])
    same = compare(one, one)
    assert (same['gained'], same['lost'], same['p']) == (0, 0, 1.0)
    parts = compare_groups(one, other, by_value(['a', 'b'] * 250))
    assert sum(part['gained'] for part in parts.values()) == found['gained']


def test_calibration_of_scores_that_are_right_and_of_useless_ones():
    ious = np.random.default_rng(0).random(2000)
    right = calibration(ious, ious)
    assert right['error'] == pytest.approx(0, abs=1e-12)
    assert right['auroc'] == 1
    reversed_ = calibration(ious, 1 - ious)
    assert reversed_['auroc'] == 0
    assert (np.diff(reversed_['accuracies']) <= 0).all()
    assert calibration(ious, np.full(2000, 0.7)) is None
    assert calibration(ious, np.full(2000, np.nan)) is None
    assert calibration(ious, ious * 9) is None  # no probabilities


def test_predictions_without_a_score_do_not_count():
    ious = np.array([0.9, 0.1, 0.4, 0.6])
    scores = np.array([0.8, 0.2, np.nan, np.nan])
    found, expected = calibration(ious, scores), calibration(ious[:2], scores[:2])
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value)
