"""Reliability of labels: the IoU with the prediction, in any batches and groups."""

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmdet.structures.bbox import bbox_overlaps
from mmengine.dataset import pseudo_collate

from projects.clip_vg.engine import scoring
from projects.clip_vg.engine.scoring import (
    choose_sources,
    evaluation_view,
    plan_batches,
    score_labels,
    score_sources,
)

from ..helpers.configs import TEST, model_config, pool_config

MEASURER = dict(name='m', sha256='1', config='c')


@pytest.fixture
def pool(shapes, sources):
    return evaluation_view(DATASETS.build(pool_config(shapes, sources)), TEST)


@pytest.fixture
def model():
    model = MODELS.build(model_config())
    model.init_weights()
    return model.train()


def score(model, pool, **options):
    values = np.full(len(pool), np.nan, np.float32)
    boxes = np.full((len(pool), 4), np.nan, np.float32)
    options = dict(dict(batch_size=4, grouped=True), **options)
    batches = plan_batches(pool, labels=np.arange(len(pool)), **options)
    for labels, ious, predicted in score_labels(model, pool, batches):
        assert np.isnan(values[labels]).all()  # every label once
        values[labels], boxes[labels] = ious, predicted
    return values, boxes


def test_equals_the_slow_way_of_one_label_at_a_time(model, pool):
    values, boxes = score(model, pool)
    assert model.training  # as it was before
    model.eval()
    for index in range(0, len(pool), 5):
        with torch.no_grad():
            (prediction,) = model.test_step(pseudo_collate([pool[index]]))
        box = prediction.pred_instances.bboxes
        truth = torch.tensor([pool.table[index]['bbox']])
        assert boxes[index] == pytest.approx(box[0].numpy(), abs=1e-3)
        expected = bbox_overlaps(box, truth, is_aligned=True).item()
        assert values[index] == pytest.approx(expected, abs=1e-5)


def test_does_not_depend_on_batches_or_groups(model, pool):
    reference, _ = score(model, pool)
    for options in (dict(batch_size=7), dict(grouped=False), dict(batch_size=1)):
        values, _ = score(model, pool, **options)
        assert values == pytest.approx(reference, abs=1e-5)


def test_many_boxes_count_by_their_highest_score(pool):
    class Detector(torch.nn.Module):
        def test_step(self, data):
            for sample in data['data_samples']:
                sample.pred_instances = sample.gt_instances.new(
                    bboxes=torch.tensor([[0.0, 0, 1, 1], [2, 2, 9, 9]]),
                    scores=torch.tensor([0.1, 0.7]),
                )
            return data['data_samples']

    _, boxes = score(Detector(), pool, grouped=False)
    assert (boxes == [2, 2, 9, 9]).all()


def test_an_interrupted_scoring_is_resumed_and_ends_with_the_same_bytes(
    model, pool, tmp_path, monkeypatch
):
    files = choose_sources(pool, None)
    paths = score_sources(model, pool, files, tmp_path / 'whole', MEASURER, TEST)
    scored = []

    def interrupted(*args, **kwargs):
        for number, part in enumerate(score_labels(*args, **kwargs)):
            if number == 1:
                raise KeyboardInterrupt
            yield part

    def counting(*args, **kwargs):
        for part in score_labels(*args, **kwargs):
            scored.extend(part[0])
            yield part

    options = dict(batch_size=3)
    monkeypatch.setattr(scoring, 'score_labels', interrupted)
    with pytest.raises(KeyboardInterrupt):
        score_sources(model, pool, files, tmp_path / 'cut', MEASURER, TEST, **options)
    done = np.isfinite(pool.read_reliability(tmp_path / 'cut' / 'm__one.npy'))
    assert 0 < done.sum() < len(pool.indices_of(files[0]))
    monkeypatch.setattr(scoring, 'score_labels', counting)
    cut = score_sources(model, pool, files, tmp_path / 'cut', MEASURER, TEST, **options)
    assert not set(np.flatnonzero(done)) & set(scored)  # nothing is scored twice
    whole = score_sources(
        model, pool, files, tmp_path / 'other', MEASURER, TEST, **options
    )
    for one, other in zip(cut, whole, strict=True):
        assert one.read_bytes() == other.read_bytes()
    # Other batches: the same numbers but for rounding.
    for one, other in zip(cut, paths, strict=True):
        assert np.load(one) == pytest.approx(np.load(other), abs=1e-5)


def test_another_measurer_of_the_same_name_is_refused(model, pool, tmp_path):
    files = choose_sources(pool, ['one'])
    score_sources(model, pool, files, tmp_path, MEASURER, TEST)
    with pytest.raises(ValueError, match='sha256'):
        score_sources(model, pool, files, tmp_path, dict(MEASURER, sha256='2'), TEST)


def test_an_unknown_source_is_named(pool):
    with pytest.raises(ValueError, match=r"'three'.*'one', 'two'"):
        choose_sources(pool, ['three'])
