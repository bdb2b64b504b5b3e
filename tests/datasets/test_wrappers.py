"""MMDetection's and MMEngine's wrappers around our data set and detector."""

import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.runner import Runner

from projects.clip_vg.compat import load_from_local

from ..helpers.configs import pool_config, runner_config


def concat(shapes, sources):
    parts = [pool_config(shapes, sources, [name]) for name in ('one', 'two')]
    return dict(type='ConcatDataset', datasets=parts)


def repeat(shapes, sources):
    return dict(
        type='RepeatDataset', times=2, dataset=pool_config(shapes, sources, ['one'])
    )


def both(shapes, sources):
    return dict(type='RepeatDataset', times=2, dataset=concat(shapes, sources))


def config(dataset, sampler, shapes, sources, work_dir):
    cfg = runner_config(shapes, sources, work_dir)
    cfg.train_dataloader.sampler = sampler
    cfg.train_dataloader.dataset = dataset
    cfg.train_cfg.max_epochs = 1
    return cfg


def same(one, other):
    return one['data_samples'].sample_id == other['data_samples'].sample_id


def test_wrapped_labels_are_those_of_the_files(shapes, sources):
    one, two = (
        DATASETS.build(pool_config(shapes, sources, [name])) for name in ('one', 'two')
    )
    wrapped = DATASETS.build(concat(shapes, sources))
    assert len(wrapped) == len(one) + len(two)
    assert same(wrapped[0], one[0]) and same(wrapped[len(one)], two[0])
    again = DATASETS.build(repeat(shapes, sources))
    assert len(again) == 2 * len(one)
    assert same(again[1], again[1 + len(one)])


@pytest.mark.parametrize('wrapped', [concat, repeat, both])
@pytest.mark.parametrize(
    'sampler',
    [dict(type='DefaultSampler', shuffle=True), dict(type='CurriculumSampler')],
)
def test_wrapped_labels_train(wrapped, sampler, shapes, sources, tmp_path):
    dataset = wrapped(shapes, sources)
    cfg = config(dataset, dict(sampler), shapes, sources, tmp_path)
    cfg.train_dataloader.batch_size = 64
    runner = Runner.from_cfg(cfg)
    runner.train()
    labels = len(runner.train_dataloader.dataset)
    assert runner.iter == -(-labels // 64)


@pytest.mark.parametrize(
    'sampler',
    [
        dict(type='ImageGroupSampler'),
        dict(type='CurriculumSampler', grouped=True),
        dict(type='CurriculumSampler', weights=dict(one=1, two=2)),
    ],
)
@pytest.mark.parametrize('wrapped', [concat, repeat])
def test_what_needs_the_labels_themselves_refuses_a_wrapper(
    wrapped, sampler, shapes, sources, tmp_path
):
    cfg = config(wrapped(shapes, sources), dict(sampler), shapes, sources, tmp_path)
    message = f'{sampler["type"]} needs a RefExpDataset, got .*several `ann_file`'
    with pytest.raises(ValueError, match=message):
        Runner.from_cfg(cfg).train()


def test_the_curriculum_refuses_a_wrapper(shapes, sources, tmp_path):
    sampler = dict(type='CurriculumSampler')
    cfg = config(concat(shapes, sources), sampler, shapes, sources, tmp_path)
    cfg.custom_hooks = [dict(type='PseudoLabelReliabilityHook')]
    with pytest.raises(ValueError, match='needs a RefExpDataset, got ConcatDataset'):
        Runner.from_cfg(cfg).train()


def test_several_validation_sets_are_scored_as_one(shapes, sources, tmp_path):
    """The metric reads splits off the samples: no evaluator for several is needed."""
    cfg = runner_config(shapes, sources, tmp_path)
    cfg.default_hooks.checkpoint.save_best = None
    val = cfg.val_dataloader.dataset
    cfg.val_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[dict(val, split=s) for s in ('val', 'test')]
    )
    cfg.val_dataloader.sampler = dict(type='DefaultSampler', shuffle=False)
    wrapped = Runner.from_cfg(cfg).val()
    cfg.val_dataloader.dataset = dict(val, split=['val', 'test'])
    cfg.val_dataloader.sampler = dict(type='ImageGroupSampler', shuffle=False)
    cfg.experiment_name += ' grouped'
    assert wrapped == pytest.approx(Runner.from_cfg(cfg).val(), abs=1e-5)
    assert 'grounding/test/acc_0.5' in wrapped


def test_the_average_is_what_a_checkpoint_is_tested_with(shapes, sources, tmp_path):
    """MMEngine's EMAHook puts the average in the place of the weights."""
    sampler = dict(type='DefaultSampler', shuffle=True)
    cfg = config(concat(shapes, sources), sampler, shapes, sources, tmp_path)
    cfg.custom_hooks = [dict(type='EMAHook', momentum=0.5)]
    runner = Runner.from_cfg(cfg)
    runner.train()
    kept = load_from_local(str(tmp_path / 'epoch_1.pth'))
    name = 'bbox_head.mlp.layers.0.weight'
    last = dict(runner.model.named_parameters())[name]
    assert torch.equal(kept['ema_state_dict'][f'module.{name}'], last)
    assert not torch.equal(kept['state_dict'][name], last)
