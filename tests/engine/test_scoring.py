"""Reliability of labels: the IoU with the prediction, in any batches and groups."""

import itertools

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmdet.structures.bbox import bbox_overlaps
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from PIL import Image

from projects.clip_vg.engine import scoring
from projects.clip_vg.engine.scoring import (
    choose_sources,
    evaluation_view,
    plan_batches,
    score_labels,
    score_sources,
    set_reliability,
)
from projects.clip_vg_core.data.readers import write_odvg
from projects.clip_vg_core.data.table_builder import TableBuilder
from projects.clip_vg_core.pseudo_labels.detection import iou

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


def slow_reliability(boxes, targets):
    """By trying every way to pair boxes with targets."""
    if not boxes and not targets:
        return 1.0
    fewer, more = sorted((boxes, targets), key=len)
    best = max(
        sum(iou(*pair) for pair in zip(fewer, order, strict=False))
        for order in itertools.permutations(more)
    )
    return 2 * best / (len(boxes) + len(targets))


@pytest.mark.parametrize('seed', range(20))
def test_the_reliability_of_a_set_equals_the_slow_reference(seed):
    rng = np.random.default_rng(seed)

    def draw(count):
        corners = rng.uniform(0, 40, (count, 2))
        return np.hstack([corners, corners + rng.uniform(5, 40, (count, 2))])

    for boxes in [draw(n) for n in range(4)]:
        for targets in [draw(n) for n in range(5)]:
            expected = slow_reliability(
                *([tuple(box) for box in these.tolist()] for these in (boxes, targets))
            )
            found = set_reliability(*map(torch.from_numpy, (boxes, targets)))
            assert found == pytest.approx(expected, abs=1e-6)


TARGETS = [[0, 0, 10, 10], [20, 0, 30, 10], [20, 20, 30, 30]]


@pytest.fixture
def any_targets(tmp_path):
    """Labels of one image with none, one, two and three targets."""
    builder = TableBuilder(str, 'any')
    for count in range(4):
        name = f't{count}'
        builder.add_targets(
            'a.jpg', TARGETS[:count], name, name, 'train', 'x', (40, 60)
        )
    write_odvg(builder.build('xyxy'), tmp_path / 'a.jsonl')
    Image.new('RGB', (60, 40)).save(tmp_path / 'a.jpg')
    config = dict(
        type='RefExpDataset',
        data_root=str(tmp_path),
        ann_file='a.jsonl',
        targets='any',
    )
    return evaluation_view(DATASETS.build(config), TEST)


class SetDetector(torch.nn.Module):
    """Predicts all targets for each expression, the last one at a low score."""

    def test_step(self, data):
        for sample in data['data_samples']:
            names = [sample.text] if isinstance(sample.text, str) else sample.text
            sample.pred_instances = InstanceData(
                bboxes=torch.tensor(TARGETS * len(names), dtype=torch.float32),
                scores=torch.tensor([0.7, 0.6, 0.2] * len(names)),
                labels=torch.arange(len(names)).repeat_interleave(3),
                label_names=[name for name in names for _ in range(3)],
            )
        return data['data_samples']


@pytest.mark.parametrize('grouped', [True, False])
@pytest.mark.parametrize(
    ('score_thr', 'expected'),
    [
        # None: 1 - 0.7; one: the best box is it; two and three: F1 of the sets.
        (None, [0.3, 1, 1, 4 / 5]),
        (0.65, [0.3, 1, 2 / 3, 2 / 4]),
        (0.0, [0.3, 1, 4 / 5, 1]),
        (0.9, [0.3, 1, 0, 0]),
    ],
)
def test_labels_of_any_number_of_targets_are_scored(
    any_targets, grouped, score_thr, expected
):
    detector = SetDetector()
    if score_thr is not None:
        detector.test_cfg = dict(score_thr=score_thr)
    values, boxes = score(detector, any_targets, grouped=grouped)
    assert values == pytest.approx(expected, abs=1e-6)
    assert (boxes == TARGETS[0]).all()


def test_a_detector_without_scores_confirms_no_label_of_none(any_targets):
    class Sure(SetDetector):
        def test_step(self, data):
            samples = super().test_step(data)
            for sample in samples:
                own = sample.pred_instances
                sample.pred_instances = InstanceData(
                    bboxes=own.bboxes[::3], labels=own.labels[::3]
                )
            return samples

    values, _ = score(Sure(), any_targets)
    assert values == pytest.approx([0, 1, 2 / 3, 1 / 2], abs=1e-6)


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
