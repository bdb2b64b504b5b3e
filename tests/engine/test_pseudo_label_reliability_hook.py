"""The curriculum within one training run, with our detector and MMDetection's."""

import json

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.hub import get_config
from mmengine.runner import Runner

from projects.clip_vg.engine import PseudoLabelReliabilityHook
from projects.clip_vg.engine.pseudo_label_reliability_hook import select_by_source
from projects.clip_vg_core.curriculum.correction import DROPPED, KEPT, MOVED
from projects.clip_vg_core.curriculum.reliability_file import (
    ReliabilityFile,
    read_outcomes,
)

from ..helpers.configs import pool_config, runner_config
from ..helpers.shrink import shrink_model


def hooked(cfg, **options):
    cfg.custom_hooks = [dict(type='PseudoLabelReliabilityHook', **options)]
    return cfg


def hook_of(runner):
    return next(h for h in runner.hooks if isinstance(h, PseudoLabelReliabilityHook))


def train(cfg):
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


@pytest.fixture
def snapshots(monkeypatch):
    """Scores of every snapshot."""
    scores = []
    score = PseudoLabelReliabilityHook.score

    def keep(self, model):
        scores.append(score(self, model))
        return scores[-1]

    monkeypatch.setattr(PseudoLabelReliabilityHook, 'score', keep)
    return scores


class Draws(Hook):
    """Records which labels each epoch trained on."""

    priority = 'LOWEST'

    def __init__(self):
        self.epochs = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        seen = self.epochs.setdefault(runner.epoch, set())
        for sample in data_batch['data_samples']:
            seen.update(sample.sample_id)


def test_trains_on_what_it_selects(shapes, sources, tmp_path):
    cfg = hooked(
        runner_config(shapes, sources, tmp_path), threshold='otsu', min_share=0.05
    )
    cfg.train_cfg.max_epochs = 3
    runner = Runner.from_cfg(cfg)
    draws = Draws()
    runner.register_hook(draws)
    runner.train()
    hook, sampler = hook_of(runner), runner.train_dataloader.sampler
    assert hook.count == 2  # after epochs 1 and 2, not after the last
    everything = set(sampler.dataset.table.sample_ids)
    assert draws.epochs[0] == everything
    selected = {sampler.dataset.table.sample_ids[i] for i in sampler.selection}
    assert draws.epochs[2] == selected < everything


def test_the_mean_is_over_all_snapshots(shapes, sources, tmp_path, snapshots):
    for running in (True, False):
        snapshots.clear()
        cfg = hooked(
            runner_config(shapes, sources, tmp_path / str(running)),
            threshold=-1.0,
            running_mean=running,
            out_dir=str(tmp_path / str(running) / 'reliability'),
        )
        cfg.train_cfg.max_epochs = 4
        runner = train(cfg)
        assert len(snapshots) == 3
        expected = np.mean(snapshots, 0) if running else snapshots[-1]
        assert hook_of(runner).mean == pytest.approx(expected, abs=1e-6)
        # The files hold it too, each source in its own order.
        data = runner.train_dataloader.sampler.dataset
        for file in data.label_files:
            path = tmp_path / str(running) / 'reliability' / f'online__{file.source}'
            indices = data.indices_of(file)
            written = data.read_reliability(path.with_suffix('.npy'))
            assert written[indices] == pytest.approx(expected[indices], abs=1e-6)


def test_resume_keeps_reliability_and_selection(shapes, sources, tmp_path):
    def config(name, epochs):
        cfg = runner_config(shapes, sources, tmp_path / name)
        cfg.train_cfg.max_epochs = epochs
        return hooked(cfg, threshold='otsu', end=3, min_share=0.05)

    whole = train(config('whole', 4))
    cfg = config('cut', 4)

    class Stop(Hook):
        priority = 'LOWEST'

        def before_train_epoch(self, runner):
            if runner.epoch == 2:
                raise KeyboardInterrupt

    runner = Runner.from_cfg(cfg)
    runner.register_hook(Stop())
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    cfg.resume = True
    cfg.experiment_name += ' again'
    resumed = train(cfg)
    assert hook_of(resumed).count == hook_of(whole).count == 3
    np.testing.assert_array_equal(hook_of(resumed).mean, hook_of(whole).mean)
    np.testing.assert_array_equal(
        *(r.train_dataloader.sampler.selection for r in (resumed, whole))
    )


def write_prior(data, folder, values):
    """Reliability files of another measurer, one for each source."""
    paths = []
    for file in data.label_files:
        indices = data.indices_of(file)
        store = ReliabilityFile(folder, dict(name='before'), file)
        store.write(data.label_keys()[indices], values[indices])
        store.flush()
        paths.append(str(folder / f'before__{file.source}.npy'))
    return paths


@pytest.mark.parametrize('running', [True, False])
def test_a_prior_selects_first_and_counts_as_a_snapshot(
    shapes, sources, tmp_path, snapshots, running
):
    cfg = runner_config(shapes, sources, tmp_path / 'run')
    data = DATASETS.build(cfg.train_dataloader.dataset)
    data.full_init()
    before = np.random.default_rng(0).random(len(data)).astype(np.float32)
    prior = write_prior(data, tmp_path / 'before', before)
    cfg = hooked(
        cfg, prior=prior, threshold=0.4, min_share=0.1, running_mean=running, end=1
    )
    runner = Runner.from_cfg(cfg)
    draws = Draws()
    runner.register_hook(draws)
    runner.train()
    names = data.table.sample_ids
    assert draws.epochs[0] == {names[i] for i in np.flatnonzero(before > 0.4)}
    (snapshot,) = snapshots
    expected = (before + snapshot) / 2 if running else snapshot
    assert hook_of(runner).mean == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match=r"nothing of the labels of \['two'\]"):
        train(hooked(runner_config(shapes, sources, tmp_path / 'no'), prior=prior[:1]))


def test_the_averaged_model_scores(shapes, sources, tmp_path, monkeypatch):
    used = []
    monkeypatch.setattr(
        PseudoLabelReliabilityHook,
        'score',
        lambda self, model: used.append(model) or np.ones(len(self.view), np.float32),
    )
    cfg = hooked(runner_config(shapes, sources, tmp_path))
    cfg.custom_hooks.append(dict(type='EMAHook', momentum=0.5))
    runner = train(cfg)
    (model,) = used
    assert model is not runner.model
    assert type(model) is type(runner.model)


def test_never_fewer_than_the_least_share(shapes, sources, tmp_path):
    cfg = hooked(
        runner_config(shapes, sources, tmp_path), threshold=1.0, min_share=0.25
    )
    sampler = train(cfg).train_dataloader.sampler
    codes = sampler.dataset.table.sources
    for code in (0, 1):
        selected = (codes[sampler.selection] == code).sum()
        assert selected == int(0.25 * (codes == code).sum())


def test_thresholds_and_shares_are_logged(shapes, sources, tmp_path):
    train(hooked(runner_config(shapes, sources, tmp_path), threshold=0.0))
    (file,) = tmp_path.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    (line,) = (entry for entry in lines if 'curriculum/one/kept_share' in entry)
    assert 0 < line['curriculum/one/kept_share'] <= 1
    assert line['curriculum/two/threshold'] == 0.0
    assert sum(line[f'curriculum/one/histogram/{i}'] for i in range(10)) > 0


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(begin=0), 'begin=0'),
        (dict(threshold='gap'), "'gap'"),
        (dict(threshold=dict(start=0.5, end=0.4, shape='wavy')), 'wavy'),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        PseudoLabelReliabilityHook(**options)


def test_another_sampler_is_refused(shapes, sources, tmp_path):
    cfg = hooked(runner_config(shapes, sources, tmp_path))
    cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)
    with pytest.raises(ValueError, match='CurriculumSampler.*DefaultSampler'):
        train(cfg)


def grounding_dino(bert):
    """MMDetection's own config, shrunk."""
    cfg = get_config(
        'mmdet::mm_grounding_dino/grounding_dino_swin-t_pretrain_obj365.py'
    )
    cfg.model.encoder.num_cp = 0  # MMDetection's wants fairscale
    return shrink_model(cfg.model, bert)


def test_works_with_mmdetections_grounding_dino(shapes, sources, bert, tmp_path):
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'text')
    test = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(64, 64), keep_ratio=True),
        dict(
            type='PackDetInputs',
            meta_keys=(*keys, 'sample_id', 'tokens_positive'),
        ),
    ]
    train_pipeline = [
        test[0],
        dict(type='LoadAnnotations', with_bbox=True),
        test[1],
        dict(type='PackGroundingInputs', meta_keys=(*keys, 'sample_id')),
    ]
    cfg = runner_config(
        shapes,
        sources,
        tmp_path / 'run',
        model=grounding_dino(bert()),
        val_dataloader=None,
        val_evaluator=None,
        val_cfg=None,
    )
    cfg.default_hooks.checkpoint.save_best = None
    loader = cfg.train_dataloader
    loader.sampler = dict(type='CurriculumSampler', epoch_length=16)
    loader.dataset = Config(pool_config(shapes, sources, names=['one']))._cfg_dict
    loader.dataset.pipeline = train_pipeline
    hooked(
        cfg,
        pipeline=test,
        grouped=False,
        threshold='otsu',
        min_share=0.2,
        batch_size=8,
    )
    runner = train(cfg)
    hook, sampler = hook_of(runner), runner.train_dataloader.sampler
    assert type(runner.model).__name__ == 'GroundingDINO'
    assert np.isfinite(hook.mean).all()
    assert len(hook.mean) == len(sampler.dataset)
    assert 0 < len(sampler.selection) < len(sampler.dataset)
    # One expression at a time, by its best box: as the slow way.
    runner.model.eval()
    with torch.no_grad():
        answer = runner.model.test_step(
            dict(
                inputs=[hook.view[3]['inputs']],
                data_samples=[hook.view[3]['data_samples']],
            )
        )[0].pred_instances
    assert len(answer.bboxes) == 5  # max_per_img: many boxes, one counts
    best = answer.bboxes[answer.scores.argmax()].numpy()
    truth = hook.view.table.boxes[3:4]
    expected = bbox_overlaps(torch.tensor(best)[None], torch.tensor(truth)).item()
    again = hook.score(runner.model)
    assert again[3] == pytest.approx(expected, abs=1e-4)


def test_each_source_is_selected_on_its_own_as_label_by_label():
    rng = np.random.default_rng(0)
    values = rng.random(60).astype(np.float32)
    values[::7] = np.nan
    sources = rng.integers(0, 2, 60)
    names = ['a', 'none of these', 'b']
    codes = np.where(sources == 0, 0, 2)  # no label is of the second source
    threshold = dict(start=0.8, end=0.4)
    selections = select_by_source(values, codes, names, threshold, 0.5, 0.1)
    assert [one.name for one in selections] == ['a', 'b']
    for one, code in zip(selections, (0, 2), strict=True):
        expected = [i for i in range(60) if codes[i] == code and values[i] > 0.6]
        assert one.labels.tolist() == expected
        assert one.exceeding == len(expected)
        assert one.threshold == pytest.approx(0.6)
        assert one.count == (codes == code).sum()
        # NaN is in no tenth.
        scored = values[(codes == code) & ~np.isnan(values)]
        assert one.histogram.sum() == len(scored)
        assert one.mean == pytest.approx(scored.mean())


def test_of_too_few_labels_the_best_are_selected_and_unscored_ones_last():
    values = np.array([0.1, np.nan, 0.3, 0.2], np.float32)
    (one,) = select_by_source(values, np.zeros(4, int), ['a'], 0.25, min_share=0.75)
    assert one.labels.tolist() == [2, 3, 0]
    assert one.exceeding == 1


@pytest.fixture
def two_boxes(shapes, sources, tmp_path):
    """A config with a prior that points to another box for every third label."""
    cfg = runner_config(shapes, sources, tmp_path / 'run')
    data = DATASETS.build(cfg.train_dataloader.dataset)
    data.full_init()
    table = data.table
    votes = table.boxes.copy()
    for label in range(0, len(table), 3):
        own = table.boxes[table.image_index == table.image_index[label]]
        ious = bbox_overlaps(torch.tensor(table.boxes[[label]]), torch.tensor(own))
        votes[label] = own[ious.argmin()]
    paths = []
    for file in data.label_files:
        indices = data.indices_of(file)
        store = ReliabilityFile(tmp_path / 'before', dict(name='before'), file)
        store.write(data.label_keys()[indices], np.ones(len(indices)), votes[indices])
        store.flush()
        paths.append(str(tmp_path / f'before/before__{file.source}.npy'))
    return cfg, data, votes, paths


class Boxes(Hook):
    """Records the boxes that each epoch trained on, as a fraction of the input."""

    priority = 'LOWEST'

    def __init__(self):
        self.epochs = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        seen = self.epochs.setdefault(runner.epoch, {})
        for sample in data_batch['data_samples']:
            boxes = sample.gt_instances.bboxes.reshape(-1, 4).numpy()
            for name, box in zip(sample.sample_id, boxes, strict=True):
                seen[name] = box


def agreeing(monkeypatch, votes, skip=5):
    """A model that votes as the prior, but for one label in ``skip``."""

    def score(self, model):
        self._predicted = votes.copy()
        self._predicted[::skip] = (0, 0, 1, 1)
        return np.full(len(votes), 0.5, np.float32)

    monkeypatch.setattr(PseudoLabelReliabilityHook, 'score', score)


@pytest.mark.parametrize('persistent', [None, True])
def test_labels_are_moved_in_training(monkeypatch, two_boxes, tmp_path, persistent):
    """Also in workers that persist, which have a copy of the labels."""
    cfg, data, votes, prior = two_boxes
    agreeing(monkeypatch, votes)
    if persistent:
        cfg.train_dataloader.update(num_workers=1, persistent_workers=True)
    out = tmp_path / 'reliability'
    options = dict(correct=True, prior=prior, end=1, threshold=0.0, out_dir=str(out))
    cfg = hooked(cfg, **options)
    runner = Runner.from_cfg(cfg)
    boxes = Boxes()
    runner.register_hook(boxes)
    runner.train()
    hook, sampler = hook_of(runner), runner.train_dataloader.sampler
    table, names = data.table, list(data.table.sample_ids)
    differs = (votes != table.boxes).any(1)
    agrees = np.arange(len(table)) % 5 != 0
    moved = np.flatnonzero(differs & agrees)
    assert len(moved) > 10
    # Where the two differ nothing is confirmed.
    np.testing.assert_array_equal(sampler.selection, np.flatnonzero(agrees))
    np.testing.assert_array_equal(hook.correction.boxes[moved], votes[moved])
    first, second = boxes.epochs[0], boxes.epochs[1]
    assert set(second) == {names[i] for i in np.flatnonzero(agrees)}
    for index in np.flatnonzero(agrees):
        is_moved = not np.allclose(first[names[index]], second[names[index]])
        assert is_moved == (index in moved)
    # The files have the outcome of every label; scores are still of the old ones.
    for file in data.label_files:
        path = out / f'online_correction__{file.source}.npy'
        outcomes = read_outcomes(path, file)
        indices = data.indices_of(file)
        expected = np.where(agrees, np.where(differs, MOVED, KEPT), DROPPED)
        np.testing.assert_array_equal(outcomes, expected[indices])
    np.testing.assert_array_equal(hook.view.table.boxes, table.boxes)


def test_resume_keeps_the_moved_labels(monkeypatch, two_boxes):
    cfg, data, votes, prior = two_boxes
    agreeing(monkeypatch, votes)
    cfg = hooked(cfg, correct=True, prior=prior, end=1)
    cfg.train_cfg.max_epochs = 3

    class Stop(Boxes):
        def before_train_epoch(self, runner):
            if runner.epoch == 2:
                raise KeyboardInterrupt

    runner = Runner.from_cfg(cfg)
    runner.register_hook(Stop())
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    before = hook_of(runner)
    cfg.resume = True
    cfg.experiment_name += ' again'
    runner = Runner.from_cfg(cfg)
    boxes = Boxes()
    runner.register_hook(boxes)
    runner.train()
    after, dataset = hook_of(runner), runner.train_dataloader.dataset
    np.testing.assert_array_equal(after.correction.outcome, before.correction.outcome)
    np.testing.assert_array_equal(dataset.table.boxes, before.correction.boxes)
    np.testing.assert_array_equal(after.view.table.boxes, data.table.boxes)
    assert list(boxes.epochs) == [2]
    left = np.flatnonzero(before.correction.outcome != DROPPED)
    assert set(boxes.epochs[2]) == {data.table.sample_ids[i] for i in left}


def test_one_vote_corrects_nothing():
    with pytest.raises(ValueError, match='prior=None'):
        PseudoLabelReliabilityHook(correct=True)


def test_too_few_corrected_labels_are_joined_by_the_best_others():
    values = np.array([0.1, 0.9, 0.3, 0.2], np.float32)
    left = np.array([True, False, False, False])
    (one,) = select_by_source(
        *(values, np.zeros(4, int), ['a'], 0.5), min_share=0.5, is_selected=left
    )
    assert one.labels.tolist() == [0, 1] and one.exceeding == 1
