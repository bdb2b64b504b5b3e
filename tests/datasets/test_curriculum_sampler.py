"""Curriculum sampler: only what is selected, in epochs of one length."""

import pickle
import types
from collections import Counter

import numpy as np
import pytest
from mmdet.registry import DATASETS
from torch.utils.data import DataLoader, Dataset

from projects.clip_vg.datasets.samplers import CurriculumSampler, curriculum_sampler
from projects.clip_vg_core.curriculum.reliability_file import ReliabilityFile
from projects.clip_vg_core.data.readers import write_odvg
from projects.clip_vg_core.data.table_builder import TableBuilder

RNG = np.random.default_rng(0)
SOME = RNG.choice(101, 30, replace=False)


class Labels(Dataset):
    """Labels of images and sources, and nothing else; a label is its index."""

    def __init__(self, image_index, sources=None, source_names=('human',)):
        sources = np.zeros(len(image_index), int) if sources is None else sources
        self.table = types.SimpleNamespace(
            image_index=image_index, sources=sources, source_names=source_names
        )

    def __len__(self):
        return len(self.table.image_index)

    def __getitem__(self, index):
        return index


DATASET = Labels(
    RNG.integers(0, 17, 101), RNG.integers(0, 3, 101), ('template', 'relation', 'human')
)
INDEX, SOURCES = DATASET.table.image_index, DATASET.table.sources


def make(selection=None, seed=7, dataset=DATASET, **options):
    sampler = CurriculumSampler(dataset, seed=seed, **options)
    if selection is not None:
        sampler.set_selection(selection)
    return sampler


def flat(samples):
    return [x for s in samples for x in (s if isinstance(s, tuple) else [s])]


# How labels become samples.
KINDS = {
    'labels': dict(),
    'images': dict(grouped=True),
    'threes': dict(grouped=True, max_expressions=3),
}
kinds = pytest.mark.parametrize('kind', KINDS)


@kinds
@pytest.mark.parametrize('size', [1, 2, 30, 101])
def test_an_epoch_has_one_length_whatever_is_selected(kind, size):
    sampler = make(**KINDS[kind])
    length = len(sampler)
    assert length == len(list(sampler)) > 1
    sampler.set_selection(SOME[:size])
    assert length == len(sampler) == len(list(sampler)) == len(sampler.plan())
    assert set(flat(sampler)) <= set(SOME[:size])


def test_the_length_is_that_of_the_data_set_or_as_asked():
    assert len(make(SOME)) == 101
    assert len(make(SOME, grouped=True)) == len(set(INDEX))
    threes = -(-np.bincount(INDEX) // 3)  # of each image, rounded up
    assert len(make(SOME, **KINDS['threes'])) == threes.sum()
    assert len(list(make(SOME, epoch_length=250))) == 250


@kinds
def test_every_selected_label_comes_once_before_any_comes_again(kind):
    samples = list(make(SOME, epoch_length=200, **KINDS[kind]))
    shown = np.cumsum([len(flat([sample])) for sample in samples])
    in_a_round = int(np.searchsorted(shown, len(SOME))) + 1
    rounds = [samples[i : i + in_a_round] for i in range(0, 200, in_a_round)]
    assert len(rounds) > 3
    assert all(sorted(flat(r)) == sorted(SOME) for r in rounds[:-1])
    assert len(set(flat(rounds[-1]))) == len(flat(rounds[-1]))
    assert rounds[0] != rounds[1]  # reshuffled


@pytest.mark.parametrize('most', [None, 3])
def test_grouped_samples_are_selected_labels_of_one_image(most):
    groups = list(make(SOME, grouped=True, max_expressions=most))
    for group in groups:
        assert len(set(INDEX[list(group)])) == 1 and set(group) <= set(SOME)
    counts = np.bincount(INDEX[SOME])
    assert max(map(len, groups)) == min(counts.max(), most or 101)


@kinds
@pytest.mark.parametrize('weights', [None, dict(template=2, human=1)])
@pytest.mark.parametrize('world_size', [1, 2, 3, 4])
def test_ranks_take_turns_in_one_plan(monkeypatch, world_size, weights, kind):
    samplers = []
    for rank in range(world_size):
        monkeypatch.setattr(
            curriculum_sampler, 'get_dist_info', lambda rank=rank: (rank, world_size)
        )
        samplers.append(make(weights=weights, epoch_length=50, **KINDS[kind]))
    plans = [[s if kind != 'labels' else s[0] for s in x.plan()] for x in samplers]
    assert all(plan == plans[0] for plan in plans)
    shares = [list(sampler) for sampler in samplers]
    assert [len(s) for s in samplers] == [-(-50 // world_size)] * world_size
    taken = [x for turn in zip(*shares, strict=True) for x in turn]
    assert taken == plans[0] and len(taken) >= 50


@kinds
@pytest.mark.parametrize('world_size', [2, 3, 4])
def test_all_ranks_together_show_every_label_once(monkeypatch, world_size, kind):
    """Once, but for what fills the last turn."""
    monkeypatch.setattr(curriculum_sampler, 'sync_random_seed', lambda: 7)
    shares = []
    for rank in range(world_size):
        monkeypatch.setattr(
            curriculum_sampler, 'get_dist_info', lambda rank=rank: (rank, world_size)
        )
        shares.append(list(make(seed=None, **KINDS[kind])))
    assert len({len(share) for share in shares}) == 1
    turns = [sample for turn in zip(*shares, strict=True) for sample in turn]
    monkeypatch.undo()
    length = len(make(**KINDS[kind]))
    assert sorted(flat(turns[:length])) == list(range(101))
    assert 0 <= len(turns) - length < world_size


@kinds
def test_epochs_and_seeds_differ_and_repeat(kind):
    sampler = make(SOME, **KINDS[kind])
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first == list(make(SOME, **KINDS[kind]))
    sampler.set_epoch(0)
    assert list(sampler) == first != list(make(SOME, seed=8, **KINDS[kind]))


@kinds
@pytest.mark.parametrize(
    ('weights', 'length', 'expected'),
    [
        (dict(template=0.5, human=0.5), 90, dict(template=45, human=45)),
        # 66.67, 22.22, 11.11: the largest remainder gets the one that is left
        (dict(template=6, relation=2, human=1), 100, [67, 22, 11]),
        (dict(relation=1, template=0), 30, dict(relation=30)),
    ],
)
def test_weights_give_the_shares_exactly(weights, length, expected, kind):
    if isinstance(expected, list):
        expected = dict(zip(weights, expected, strict=True))
    samples = list(make(weights=weights, epoch_length=length, **KINDS[kind]))
    names = DATASET.table.source_names
    of_each = [{names[SOURCES[label]] for label in flat([s])} for s in samples]
    assert all(len(sources) == 1 for sources in of_each)
    assert Counter(source for [source] in of_each) == expected


def test_weighted_sources_are_mixed_and_each_is_drawn_evenly():
    weights = dict(template=3, human=1)
    labels = list(make(weights=weights, epoch_length=400))
    assert {SOURCES[label] for label in labels[:40]} == {0, 2}
    counts = np.bincount(labels, minlength=101)
    for code in (0, 2):
        times = counts[code == SOURCES]
        assert times.max() - times.min() <= 1 <= times.min()


def test_workers_that_stay_draw_the_new_selection_in_the_next_epoch():
    sampler = make()
    loader = DataLoader(
        DATASET, 4, sampler=sampler, num_workers=1, persistent_workers=True
    )
    epochs = []
    for selection in (np.arange(101), SOME, SOME[:3]):
        sampler.set_selection(selection)
        sampler.set_epoch(len(epochs))
        epochs.append([int(label) for batch in loader for label in batch])
        assert set(epochs[-1]) == set(selection)
    assert {len(epoch) for epoch in epochs} == {101}


def test_an_epoch_that_has_begun_keeps_its_selection():
    sampler = make(SOME)
    drawn = iter(sampler)
    first = [next(drawn) for _ in range(5)]
    others = np.setdiff1d(np.arange(101), SOME)
    sampler.set_selection(others)
    assert set(first + list(drawn)) == set(SOME)
    assert set(sampler) <= set(others)


@kinds
def test_its_state_goes_into_a_checkpoint_and_back(kind):
    sampler = make(SOME, **KINDS[kind])
    sampler.set_epoch(3)
    other = make(seed=99, **KINDS[kind])
    other.load_state_dict(pickle.loads(pickle.dumps(sampler.state_dict())))
    assert list(other) == list(sampler)
    assert np.array_equal(other.selection, np.sort(SOME))
    for each in (sampler, other):
        each.set_epoch(4)
    assert list(other) == list(sampler)


def test_a_selection_of_other_labels_does_not_come_back(monkeypatch):
    sampler = make(SOME)
    data = sampler.dataset
    monkeypatch.setattr(data, 'ann_file', 'x.jsonl', raising=False)
    monkeypatch.setattr(data, 'fingerprint', lambda: 'a', raising=False)
    state = sampler.state_dict()
    sampler.load_state_dict(state)
    monkeypatch.setattr(data, 'fingerprint', lambda: 'b', raising=False)
    with pytest.raises(ValueError, match=r'x\.jsonl'):
        sampler.load_state_dict(state)
    del state['labels_sha256']  # of an earlier version
    sampler.load_state_dict(state)


def test_a_selection_has_no_order():
    assert list(make(SOME)) == list(make(np.sort(SOME)))


@pytest.mark.parametrize(
    ('selection', 'options', 'said'),
    [
        ([], {}, r'^0 of 101 labels passed .*at least 1 '),
        (SOME[:7], dict(min_labels=8), r'^7 of 101 labels passed .*at least 8 '),
        ([1, 2, 1], {}, 'doubled'),
        ([5, 101], {}, '5 to 101; the data set has 101'),
        ([-1, 5], {}, '-1 to 5; the data set has 101'),
    ],
)
def test_a_selection_that_cannot_be_drawn_from_is_an_error(selection, options, said):
    with pytest.raises(ValueError, match=said):
        make(np.array(selection, int), **options)


def test_what_a_batch_needs_is_asked_of_later_selections_too():
    sampler = make(SOME)
    sampler.require(30)
    sampler.require(2)  # a lower need does not undo a higher one
    with pytest.raises(ValueError, match='^29 of 101 labels .*at least 30 '):
        sampler.set_selection(SOME[:29])
    with pytest.raises(ValueError, match='^30 of 101 labels .*at least 31 '):
        make(SOME).require(31)


@pytest.mark.parametrize('argument', ['sources', 'weights'])
def test_an_unknown_source_is_named_with_the_known_ones(argument):
    given = dict(template={}, caption={}) if argument == 'sources' else dict(caption=1)
    with pytest.raises(ValueError, match=r"no source \['caption'\].*'relation'"):
        make(**{argument: given})


def test_a_weighted_source_without_labels_is_an_error():
    with pytest.raises(ValueError, match="0 labels of the source 'human'.*weight is 2"):
        make(
            np.flatnonzero(SOURCES == 0), weights=dict(template=1, relation=0, human=2)
        )


@pytest.mark.parametrize('options', [dict(grouped=True), dict(sources={'a': {}})])
def test_a_data_set_without_images_and_sources_serves_for_labels_alone(options):
    assert sorted(make(dataset=range(9))) == list(range(9))
    with pytest.raises(ValueError, match='needs a RefExpDataset, got range'):
        make(dataset=range(9), **options)


def test_a_random_subset_is_the_control():
    chosen = [
        set(make(subset=dict(size=20, seed=seed), seed=9).selection)
        for seed in (0, 0, 1)
    ]
    assert chosen[0] == chosen[1] != chosen[2]
    assert [len(c) for c in chosen] == [20] * 3
    of_one = make(sources=dict(human={}), subset=dict(size=5)).selection
    assert len(of_one) == 5 and (SOURCES[of_one] == 2).all()
    assert len(make(subset=dict(size=1000)).selection) == 101


@pytest.fixture
def two_sources(tmp_path):
    """Files of 6 and 5 labels; the second of the first has an invalid box."""
    for name, count in (('template', 6), ('relation', 5)):
        builder = TableBuilder(str)
        for i in range(count):
            box = [9, 9, 3, 3] if (name, i) == ('template', 1) else [1, 1, 9, 9]
            image = f'{i % 3}.jpg'
            builder.add(image, box, f'{i}', f'{name}{i}', 'train', name, (20, 20))
        write_odvg(builder.build('xyxy'), tmp_path / f'{name}.jsonl')
    return DATASETS.build(
        dict(
            type='RefExpDataset',
            data_root=str(tmp_path),
            ann_file=['template.jsonl', 'relation.jsonl'],
        )
    )


def score(dataset, folder, measurer, **values):
    """Write reliability files; a value for each label of the file."""
    for file in dataset.label_files:
        if file.source in values:
            store = ReliabilityFile(folder, dict(name=measurer), file)
            reliability = np.array(values[file.source])
            store.write(file.keys, reliability, np.zeros((file.count, 4)))
    return str(folder / f'{measurer}__')


def drawn(dataset, **options):
    sampler = CurriculumSampler(dataset, seed=0, **options)
    assert len(list(sampler)) == len(dataset)
    return {dataset.table.sample_ids[i] for i in sampler}


def test_sources_contribute_what_their_files_say(two_sources, tmp_path):
    dataset, nan = two_sources, np.nan
    dataset.full_init()
    m = score(
        dataset,
        tmp_path,
        'm',
        template=[0.9, 1, 0.2, nan, 0.6, 0.5],
        relation=[0.1, 0.8, 0.7, 1, 0],
    )
    n = score(dataset, tmp_path, 'n', template=[0.0, 1, 1.0, 0.9, 0.6, 0.7])
    half = dict(reliability=f'{m}template.npy', threshold=0.5)
    high = dict(reliability=f'{m}relation.npy', threshold=0.75)
    # template1 has no valid box, however reliable it is said to be.
    assert drawn(dataset, sources=dict(template=half)) == {'template0', 'template4'}
    assert drawn(dataset, sources=dict(template=half, relation=high)) == {
        'template0',
        'template4',
        'relation1',
        'relation3',
    }
    assert drawn(dataset, sources=dict(relation=dict(high, threshold=1.0))) == {
        'relation3'
    }
    assert drawn(dataset, sources=dict(relation={})) == {
        f'relation{i}' for i in range(5)
    }
    # Of several files the mean: 0.45, 0.6, none, 0.6, 0.6.
    both = dict(half, reliability=[f'{m}template.npy', f'{n}template.npy'])
    assert drawn(dataset, sources=dict(template=both)) == {
        'template2',
        'template4',
        'template5',
    }


def test_too_high_a_threshold_says_which(two_sources, tmp_path):
    two_sources.full_init()
    name = score(two_sources, tmp_path, 'm', relation=[0.5] * 5) + 'relation.npy'
    strict = dict(relation=dict(reliability=name, threshold=0.5))
    with pytest.raises(ValueError, match=r'^0 of 10 .*relation > 0\.5 of .*m__relat'):
        CurriculumSampler(two_sources, seed=0, sources=strict)


@pytest.mark.parametrize('grouped', [False, True])
def test_ten_million_labels_are_planned_as_arrays(grouped):
    count = 10_000_000
    dataset = Labels(np.arange(count, dtype=np.int32) // 10, np.zeros(1, np.int16))
    sampler = make(
        dataset=dataset, grouped=grouped, max_expressions=4 if grouped else None
    )
    # 10 labels of an image are groups of 4, 4 and 2.
    samples = 3_000_000 if grouped else count
    plan = sampler.plan()
    assert len(plan) == len(sampler) == samples
    assert all(isinstance(a, np.ndarray) for a in (plan.order, plan.starts, plan.sizes))
    assert plan.sizes.sum() == count


@pytest.mark.parametrize(
    'options, said',
    [
        (dict(max_expressions=0, grouped=True), 'max_expressions'),
        (dict(weights={'a': 0, 'b': 0, 'c': 0}), 'weights'),
        (dict(weights={'a': -1, 'b': 2, 'c': 0}), 'weights'),
        (dict(subset=dict(seed=1)), 'no size'),
        (dict(sources=dict(a=dict(reliability='m__a.npy'))), 'no threshold'),
        (dict(sources=dict(a={}, b={}), weights=dict(a=1)), "leave out \\['b'\\]"),
    ],
)
def test_wrong_arguments_are_named(options, said):
    with pytest.raises(ValueError, match=said):
        make(**options)


def test_a_selection_that_fails_changes_nothing():
    sampler = make(min_labels=3)
    before = sampler.selection
    with pytest.raises(ValueError):
        sampler.set_selection([1])
    assert sampler.selection is before


def test_a_source_of_weight_zero_may_be_empty():
    dataset = DATASET
    codes = dataset.table.sources
    first, second = (np.flatnonzero(codes == code) for code in (0, 1))
    names = dataset.table.source_names
    sampler = make(dataset=dataset, grouped=True, weights={names[0]: 1, names[1]: 0})
    sampler.set_selection(first)
    assert set(flat(sampler)) <= set(first.tolist())
    assert len(second)


@kinds
def test_an_epoch_may_be_as_long_as_the_first_selection(kind):
    subset = dict(subset=dict(size=12, seed=0))
    sampler = make(epoch_length='selected', **subset, **KINDS[kind])
    samples = list(sampler)
    assert len(samples) == len(sampler) < len(make(**KINDS[kind]))
    # Every selected label once.
    assert sorted(flat(samples)) == sampler.selection.tolist()
    sampler.set_selection(SOME[:9])
    assert len(sampler) == len(samples)  # MMEngine has counted the steps by now
    with pytest.raises(ValueError, match='all'):
        make(epoch_length='all')
