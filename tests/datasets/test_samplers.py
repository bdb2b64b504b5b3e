"""Grouping sampler: every label once, whatever the ranks and the order."""

import types

import numpy as np
import pytest

from projects.clip_vg.datasets.samplers import image_group_sampler
from projects.clip_vg.datasets.samplers.image_group_sampler import (
    ImageGroupSampler,
    group_by_image,
)

INDEX = np.random.default_rng(0).integers(0, 17, 101)
DATASET = types.SimpleNamespace(table=types.SimpleNamespace(image_index=INDEX))


def slow_groups(index, most):
    """Reference: walk the labels in order, opening a group when one is full."""
    groups = {}
    for label, image in enumerate(index.tolist()):
        groups.setdefault(image, []).append(label)
    most = most or len(index)
    return [
        tuple(labels[i : i + most])
        for _, labels in sorted(groups.items())
        for i in range(0, len(labels), most)
    ]


@pytest.mark.parametrize('most', [None, 1, 3])
def test_groups_in_order_equal_the_slow_reference(most):
    assert group_by_image(INDEX, most, None) == slow_groups(INDEX, most)


@pytest.mark.parametrize('most', [None, 1, 3])
def test_shuffled_groups_are_of_one_image_and_hold_every_label_once(most):
    groups = group_by_image(INDEX, most, np.random.default_rng(1))
    assert len(groups) == len(slow_groups(INDEX, most))
    assert sorted(label for group in groups for label in group) == list(range(101))
    assert all(len(set(INDEX[list(group)])) == 1 for group in groups)
    assert groups != slow_groups(INDEX, most)


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
