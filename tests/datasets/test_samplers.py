"""Groups of one image, plans of labels, and the grouping sampler."""

import types

import numpy as np
import pytest
from torch.utils.data import SequentialSampler

from projects.clip_vg.datasets.samplers import image_group_sampler
from projects.clip_vg.datasets.samplers.image_group_sampler import (
    ImageGroupSampler,
    is_grouped,
)
from projects.clip_vg_core.data.grouping import ImageGroups, draw, split_by_weight

INDEX = np.random.default_rng(0).integers(0, 17, 101)
DATASET = types.SimpleNamespace(table=types.SimpleNamespace(image_index=INDEX))
SOME = np.random.default_rng(1).choice(101, 40, replace=False)


def slow_groups(index, most, labels=None):
    """Reference: walk the labels in order, opening a group when one is full."""
    groups = {}
    for label in range(len(index)) if labels is None else labels.tolist():
        groups.setdefault(index[label], []).append(label)
    most = most or len(index)
    return [
        tuple(labels[i : i + most])
        for _, labels in sorted(groups.items())
        for i in range(0, len(labels), most)
    ]


@pytest.mark.parametrize(
    'labels', [None, SOME, np.arange(0)], ids=['all', 'some', 'none']
)
@pytest.mark.parametrize('most', [None, 1, 3])
def test_groups_in_order_equal_the_slow_reference(most, labels):
    groups = ImageGroups(INDEX, labels, most)
    expected = slow_groups(INDEX, most, labels)
    assert len(groups) == len(expected)
    if expected:
        assert list(groups.plan(len(groups), None)) == expected


@pytest.mark.parametrize('labels', [np.arange(101), SOME], ids=['all', 'some'])
@pytest.mark.parametrize('most', [None, 1, 3])
def test_shuffled_groups_are_of_one_image_and_hold_every_label_once(most, labels):
    groups = ImageGroups(INDEX, labels, most)
    plan = list(groups.plan(len(groups), np.random.default_rng(1)))
    assert sorted(label for group in plan for label in group) == sorted(labels)
    assert all(len(set(INDEX[list(group)])) == 1 for group in plan)
    expected = slow_groups(INDEX, most, labels)
    assert sorted(map(len, plan)) == sorted(map(len, expected))
    assert plan != expected


def test_shuffling_changes_which_labels_of_an_image_come_together():
    groups = ImageGroups(np.zeros(12, np.int32), max_size=3)
    rng = np.random.default_rng(0)
    first, second = ({frozenset(g) for g in groups.plan(4, rng)} for _ in range(2))
    assert first != second


@pytest.mark.parametrize('length', [1, 20, 90])
def test_a_plan_of_any_length_takes_every_group_before_any_comes_again(length):
    groups = ImageGroups(INDEX, None, 4)
    plan = list(groups.plan(length, np.random.default_rng(2)))
    rounds = [plan[i : i + len(groups)] for i in range(0, length, len(groups))]
    assert len(plan) == length
    assert all(len(set(r)) == len(r) for r in rounds)
    assert all({x for g in r for x in g} == set(range(101)) for r in rounds[:-1])


def test_taking_groups_of_a_plan():
    plan = ImageGroups(INDEX, None, 3).plan(30, np.random.default_rng(3))
    assert list(plan.take(slice(1, None, 4))) == list(plan)[1::4]
    assert list(plan.take(np.array([7, 2]))) == [list(plan)[7], list(plan)[2]]


@pytest.mark.parametrize('length', [0, 3, 7, 21, 24])
def test_numbers_are_drawn_in_rounds(length):
    assert draw(7, length, None).tolist() == [i % 7 for i in range(length)]
    drawn = draw(7, length, np.random.default_rng(4)).tolist()
    assert len(drawn) == length
    for i in range(0, length, 7):
        part = drawn[i : i + 7]
        assert len(set(part)) == len(part) and set(part) <= set(range(7))
    assert length < 14 or drawn[:7] != drawn[7:14]  # shuffled anew for each round


@pytest.mark.parametrize(
    ('length', 'weights', 'expected'),
    [
        (10, [1, 1, 1], [4, 3, 3]),
        (10, [0.5, 0, 0.5], [5, 0, 5]),
        (7, [2, 1], [5, 2]),  # 4.67 and 2.33
        (100, [0.1, 0.2, 0.7], [10, 20, 70]),
        # 1.6, 1.4 and 2: from the largest remainder, not from the first
        (5, [1.4, 1.6, 2], [1, 2, 2]),
        (0, [1, 2], [0, 0]),
    ],
)
def test_shares_by_largest_remainder_by_hand(length, weights, expected):
    assert split_by_weight(length, np.array(weights, float)).tolist() == expected


def test_shares_sum_up_and_are_off_by_less_than_one():
    rng = np.random.default_rng(5)
    for _ in range(200):
        length, weights = int(rng.integers(0, 1000)), rng.random(rng.integers(1, 7))
        shares = split_by_weight(length, weights)
        assert shares.sum() == length
        assert (abs(shares - length * weights / weights.sum()) < 1).all()


def ranks(monkeypatch, world_size, **options):
    for rank in range(world_size):
        monkeypatch.setattr(
            image_group_sampler, 'get_dist_info', lambda rank=rank: (rank, world_size)
        )
        yield ImageGroupSampler(DATASET, seed=5, **options)


@pytest.mark.parametrize('world_size', [1, 2, 3, 4])
def test_evaluation_gives_every_label_to_one_rank(monkeypatch, world_size):
    samplers = list(ranks(monkeypatch, world_size, shuffle=False))
    labels = [label for s in samplers for group in s for label in group]
    assert sorted(labels) == list(range(101))
    assert all(len(list(s)) == len(s) for s in samplers)


@pytest.mark.parametrize('world_size', [1, 2, 3, 4])
def test_training_gives_ranks_equally_many_groups(monkeypatch, world_size):
    samplers = list(ranks(monkeypatch, world_size, max_expressions=4))
    groups = [list(s) for s in samplers]
    assert {len(g) for g in groups} == {len(samplers[0])}
    assert {label for rank in groups for g in rank for label in g} == set(range(101))
    # Once, but for what fills the last turn.
    assert 0 <= sum(map(len, groups)) - len(samplers[0].groups) < world_size
    together = [group for rank in groups for group in rank]
    assert len(set(together)) == len(samplers[0].groups)


def test_ranks_agree_on_a_seed_that_is_not_given(monkeypatch):
    monkeypatch.setattr(image_group_sampler, 'sync_random_seed', lambda: 5)
    options = dict(max_expressions=4)
    given = [list(sampler) for sampler in ranks(monkeypatch, 2, **options)]
    drawn = [
        list(ImageGroupSampler(DATASET, **options))
        for _ in ranks(monkeypatch, 2, **options)  # sets the rank
    ]
    assert drawn == given


def test_epochs_differ_in_order_and_not_in_length():
    sampler = ImageGroupSampler(DATASET, seed=5, max_expressions=2)
    first, again = list(sampler), list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert first == again != second
    assert len(first) == len(second) == len(sampler)


def test_another_data_set_is_refused():
    with pytest.raises(ValueError, match='RefExpDataset'):
        ImageGroupSampler([1, 2, 3], seed=0)


def test_groups_of_nothing_are_refused():
    with pytest.raises(ValueError, match='max_expressions must be >= 1, got 0'):
        ImageGroupSampler(DATASET, seed=0, max_expressions=0)


@pytest.mark.parametrize(
    'config, expected',
    [
        (dict(type='ImageGroupSampler'), True),
        (dict(type=ImageGroupSampler), True),
        (dict(type='CurriculumSampler', grouped=True), True),
        (dict(type='CurriculumSampler'), False),
        (dict(type='DefaultSampler', shuffle=True), False),
        ({}, False),
    ],
)
def test_whether_a_config_groups_the_labels_of_an_image(config, expected):
    assert is_grouped(config) is expected


def test_a_sampler_that_is_built_groups_as_its_config():
    assert is_grouped(ImageGroupSampler(DATASET, seed=0)) is True
    assert is_grouped(SequentialSampler(DATASET)) is False
