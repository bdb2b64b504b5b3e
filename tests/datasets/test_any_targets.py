"""Labels of no target and of several, from the files to the training step."""

from collections import Counter

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

from projects.clip_vg.datasets.samplers import CurriculumSampler, ImageGroupSampler
from projects.clip_vg.engine.scoring import evaluation_view, score_all
from projects.clip_vg.self_paced.agreements import Agreements
from projects.clip_vg_core.curriculum.reliability_file import ReliabilityFile

from ..helpers.configs import TEST, TRAIN, model_config


@pytest.fixture
def dataset(any_shapes):
    dataset = DATASETS.build(
        dict(
            type='RefExpDataset',
            data_root=str(any_shapes),
            ann_file='shapes/instances.json',
            split_file='shapes/grefs(synthetic).json',
            split='train',
            data_prefix=dict(img='images/'),
            targets='any',
            pipeline=[
                *TRAIN[:3],
                dict(type='Letterbox', size=32, placement='random'),
                TRAIN[4],
            ],
        )
    )
    dataset.full_init()
    return dataset


def as_list(value):
    return [value] if isinstance(value, str) else value


@pytest.mark.parametrize(
    'sampler',
    [
        lambda dataset: ImageGroupSampler(dataset, seed=0),
        lambda dataset: ImageGroupSampler(dataset, seed=0, max_expressions=3),
        lambda dataset: CurriculumSampler(dataset, seed=0, grouped=True),
        lambda dataset: CurriculumSampler(dataset, seed=0),
    ],
    ids=['images', 'threes', 'curriculum, images', 'curriculum, labels'],
)
def test_every_label_comes_once_with_all_its_targets(dataset, sampler):
    """Each box, moved back into the original image, is a target of its expression."""
    rows = {dataset.table.sample_ids[i]: i for i in range(len(dataset))}
    seen, counts = [], Counter()
    loader = DataLoader(
        dataset, batch_size=8, sampler=sampler(dataset), collate_fn=pseudo_collate
    )
    for sample in (s for batch in loader for s in batch['data_samples']):
        own = sample.gt_instances
        boxes = own.bboxes.tensor.numpy() - np.tile(sample.letterbox[:2], 2)
        boxes /= np.tile(sample.scale_factor, 2)
        for number, name in enumerate(as_list(sample.sample_id)):
            targets = dataset.table.targets(rows[name])
            mine = boxes[own.labels.numpy() == number]
            np.testing.assert_allclose(mine, targets, atol=1e-3)
            assert as_list(sample.text)[number] == dataset.table.texts[rows[name]]
            seen.append(rows[name])
            counts[len(targets)] += 1
        assert own.label_names == [as_list(sample.text)[i] for i in own.labels]
    assert sorted(seen) == list(range(len(dataset)))
    assert min(counts[n] for n in (0, 1, 2)) > 20


def test_they_are_scored_selected_and_trained_on(dataset, tmp_path):
    torch.manual_seed(0)
    head = dict(type='GroundingConfidenceHead')
    model = MODELS.build(dict(model_config(), num_queries=3, confidence_head=head))
    model.init_weights()
    view = evaluation_view(dataset, TEST)
    values, _ = score_all(model, view, batch_size=8, grouped=True)
    one_by_one, _ = score_all(model, view, batch_size=8, grouped=False)
    np.testing.assert_allclose(values, one_by_one, atol=1e-5)
    assert ((values >= 0) & (values <= 1)).all()
    (file,) = dataset.label_files
    store = ReliabilityFile(tmp_path, dict(name='m'), file)
    store.write(dataset.label_keys(), values)
    store.flush()
    threshold = float(np.median(values))
    path = str(tmp_path / f'm__{file.source}.npy')
    spec = dict(reliability=path, threshold=threshold)
    sampler = CurriculumSampler(
        dataset, seed=0, sources={file.source: spec}, grouped=True
    )
    expected = np.flatnonzero(values > threshold)
    assert sorted({i for group in sampler for i in group}) == expected.tolist()
    batch = pseudo_collate([dataset[group] for group in list(sampler)[:8]])
    prepared = model.data_preprocessor(batch, training=True)
    losses = model.loss(prepared['inputs'], prepared['data_samples'])
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert model.fusion.reg_token.weight.grad.abs().sum(1).min() > 0


def test_a_measurer_agrees_with_labels_of_one_target(dataset, tmp_path):
    """Other labels have no one box; their boxes are candidates all the same."""
    table = dataset.table
    (file,) = dataset.label_files
    counts = table.target_counts()
    predicted = np.full((len(table), 4), [0, 0, 1, 1], np.float32)
    single = np.flatnonzero(counts == 1)
    right = single[::2]
    predicted[right] = table.boxes[table.offsets[right]]
    store = ReliabilityFile(tmp_path, dict(name='m'), file)
    store.write(dataset.label_keys(), np.ones(len(table)), predicted)
    store.flush()
    agreements = Agreements(dataset, tmp_path)
    found = agreements.measure('m', file.source)
    _, images = agreements.candidates
    # Images of one candidate tell nothing.
    known = np.bincount(images)[table.image_index] > 1
    assert found.count == known[single].sum() > 20
    assert found.rate == pytest.approx(known[right].sum() / known[single].sum())
