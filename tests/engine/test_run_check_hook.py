"""What a run checks before its first step: steps, data, names of metrics."""

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmdet.datasets import ConcatDataset
from mmdet.registry import DATASETS, MODELS
from mmengine.config import ConfigDict
from mmengine.hooks import CheckpointHook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from projects.clip_vg.engine import run_check_hook
from projects.clip_vg.engine.run_check_hook import (
    RunCheckHook,
    check_run,
    describe_data,
    refuse_late_boxes,
    refuse_unknown_best,
)
from projects.clip_vg.evaluation import GeneralizedGroundingMetric

from ..helpers.commands import run_script
from ..helpers.configs import TEST, model_config, pool_config, runner_config

SAMPLERS = [
    dict(type='DefaultSampler', shuffle=True),
    dict(type='ImageGroupSampler'),
    dict(type='CurriculumSampler', grouped=True),
]


def checked(cfg):
    cfg.default_hooks.run_check = dict(type='RunCheckHook')
    return cfg


@pytest.mark.parametrize('sampler', SAMPLERS, ids=lambda s: s['type'])
def test_a_run_without_a_step_is_an_error(sampler, shapes, sources, tmp_path):
    cfg = checked(runner_config(shapes, sources, tmp_path))
    cfg.train_dataloader.update(batch_size=1000, drop_last=True)
    cfg.train_dataloader.sampler = ConfigDict(sampler)
    runner = Runner.from_cfg(cfg)
    count = len(runner.train_loop.dataloader.sampler)
    assert count > 0
    with pytest.raises(ValueError, match=rf'{count} samples .*\b1000\b.*drop_last'):
        runner.train()
    assert not list(tmp_path.glob('*.pth'))


def test_a_batch_sampler_that_drops_is_seen_through(shapes, sources, tmp_path):
    cfg = checked(runner_config(shapes, sources, tmp_path))
    cfg.train_dataloader.update(
        batch_size=1000,
        batch_sampler=dict(type='AspectRatioBatchSampler', drop_last=True),
    )
    cfg.train_dataloader.sampler = ConfigDict(type='DefaultSampler')
    with pytest.raises(ValueError, match=r'batch of 1000, with drop_last=True'):
        Runner.from_cfg(cfg).train()


def test_no_epochs_are_an_error(shapes, sources, tmp_path):
    cfg = checked(runner_config(shapes, sources, tmp_path))
    cfg.train_cfg.max_epochs = 0
    with pytest.raises(ValueError, match='0 epochs .*max_epochs'):
        Runner.from_cfg(cfg).train()


def test_a_test_pipeline_in_training_is_an_error(shapes, sources, tmp_path):
    """Boxes stayed in pixels of the original image, and the accuracy was 0."""
    cfg = checked(runner_config(shapes, sources, tmp_path))
    cfg.train_dataloader.dataset.pipeline = TEST
    with pytest.raises(ValueError, match=r'LoadAnnotations after PILResize, Letterbox'):
        Runner.from_cfg(cfg).train()
    assert not list(tmp_path.glob('*.pth'))


LOAD, BOXES, PACK = TEST[0], TEST[3], TEST[4]


@pytest.mark.parametrize(
    'early, refused',
    [
        (dict(type='Resize', scale=(32, 32), keep_ratio=True), True),
        (dict(type='RandomFlip', prob=0.01), True),
        (dict(type='Letterbox', size=512), True),
        (dict(type='PILColorJitter'), False),
        (dict(type='PILResize', size=160), False),  # the size that they have
    ],
    ids=lambda value: value['type'] if isinstance(value, dict) else '',
)
def test_steps_before_the_boxes_are_refused_if_they_move_them(
    early, refused, shapes, sources
):
    late = DATASETS.build(
        dict(pool_config(shapes, sources), pipeline=[LOAD, early, BOXES, PACK])
    )
    right = dict(pool_config(shapes, sources), pipeline=[LOAD, BOXES, early, PACK])
    refuse_late_boxes(DATASETS.build(right))
    twice = dict(type='RepeatDataset', dataset=late, times=2)
    for dataset in (late, DATASETS.build(twice), ConcatDataset([twice, late])):
        if refused:
            with pytest.raises(ValueError, match=rf'after {early["type"]}: .*\.jpg'):
                refuse_late_boxes(dataset)
        else:
            refuse_late_boxes(dataset)


def test_data_without_a_pipeline_is_not_looked_into():
    refuse_late_boxes([1, 2, 3])


def test_an_endless_sampler_fills_any_batch(shapes, sources, tmp_path):
    cfg = checked(runner_config(shapes, sources, tmp_path))
    cfg.train_dataloader.update(batch_size=400, drop_last=True)
    cfg.train_dataloader.sampler = ConfigDict(type='InfiniteSampler')
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=1, val_interval=5)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False)
    del cfg.default_hooks.sampler_seed
    runner = Runner.from_cfg(cfg)
    assert len(runner.train_loop.dataloader) == 0
    runner.train()
    assert runner.iter == 1


def test_the_tool_checks_configs_without_the_hook(shapes, sources, tmp_path):
    """And before a schedule by iterations fails, which asks for a length."""
    cfg = runner_config(shapes, sources, tmp_path / 'run')
    del cfg.default_hooks.sampler_seed
    cfg.train_dataloader.update(batch_size=1000, drop_last=True)
    cfg.train_dataloader.sampler = ConfigDict(type='DefaultSampler')
    cfg.param_scheduler = dict(
        type='OneCycleLR', eta_max=1e-3, total_steps=2, convert_to_iter_based=True
    )
    cfg.custom_imports = dict(imports=['projects.clip_vg'])
    cfg.dump(str(tmp_path / 'cfg.py'))
    done = run_script('tools/train.py', tmp_path / 'cfg.py')
    assert done.returncode
    assert 'do not fill a batch of 1000' in done.stderr
    assert not list((tmp_path / 'run').glob('*.pth'))


def test_data_is_counted_by_split(shapes, sources):
    files = [json.loads(line) for line in (sources / 'one.jsonl').open()]
    images = {entry['filename'] for entry in files}
    dataset = DATASETS.build(pool_config(shapes, sources, names=('one',)))
    expected = f'train: {len(files)} labels of {len(images)} images'
    assert describe_data(dataset) == expected
    assert describe_data([1, 2, 3]) == '3 samples'


def test_the_log_of_a_run_counts_its_data(shapes, sources, tmp_path):
    cfg = checked(runner_config(shapes, sources, tmp_path, log_level='INFO'))
    Runner.from_cfg(cfg).train()
    (log,) = tmp_path.glob('*/*.log')
    text = log.read_text()
    assert 'training data: train: 144 labels of 24 images' in text
    assert 'validation data: val: ' in text


def test_the_log_of_a_test_counts_its_data(monkeypatch):
    lines = []
    monkeypatch.setattr(
        run_check_hook, 'print_log', lambda text, **_: lines.append(text)
    )
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=range(3)))
    RunCheckHook().before_test(SimpleNamespace(test_loop=loop))
    assert lines == ['test data: 3 samples']


def test_a_runner_is_checked_once(shapes, sources, tmp_path):
    runner = Runner.from_cfg(checked(runner_config(shapes, sources, tmp_path)))
    check_run(runner)
    assert sum(isinstance(hook, RunCheckHook) for hook in runner.hooks) == 1


def test_a_runner_that_is_checked_strictly_stays_so():
    hooks = []
    runner = SimpleNamespace(hooks=hooks, register_hook=hooks.append)
    check_run(runner)
    assert not hooks[0].strict
    check_run(runner, strict=True)
    check_run(runner)
    assert len(hooks) == 1
    assert hooks[0].strict


@pytest.mark.parametrize(
    'strict, resumed, refused',
    [(False, False, False), (True, False, True), (False, True, True)],
)
def test_weights_of_another_model_are_refused(strict, resumed, refused, tmp_path):
    init_default_scope('mmdet')
    model = MODELS.build(model_config())
    runner = SimpleNamespace(hooks=[], model=model, work_dir=tmp_path, _resume=resumed)
    hook = RunCheckHook(strict=strict)
    hook.after_load_checkpoint(runner, dict(state_dict=model.state_dict()))
    # Of MMEngine's published models, a file may be the state dict itself.
    for other in (dict(state_dict=dict(x=torch.zeros(1))), dict(x=torch.zeros(1))):
        if refused:
            with pytest.raises(ValueError, match=r"unexpected, e\.g\. \['x'\]"):
                hook.after_load_checkpoint(runner, other)
        else:
            hook.after_load_checkpoint(runner, other)


@pytest.mark.parametrize('elsewhere', [None, '/shared/checkpoints'])
def test_in_a_copied_work_dir_the_best_checkpoint_is_its_own(elsewhere, tmp_path):
    """MMEngine deletes the best one when a better comes: not the original's."""
    hooks = [CheckpointHook(out_dir=elsewhere)]
    runner = SimpleNamespace(hooks=hooks, work_dir=str(tmp_path), _resume=False)
    names = ('best_ckpt', 'best_ckpt_grounding/miou')
    info = dict({name: f'/old/run/{name[5:9]}_3.pth' for name in names}, best_score=0.5)
    checkpoint = dict(
        state_dict={}, message_hub=dict(runtime_info=info, resumed_keys={})
    )
    RunCheckHook().after_load_checkpoint(runner, checkpoint)
    folder = tmp_path if elsewhere is None else Path('/old/run')
    assert [info[name] for name in names] == [str(folder / 'ckpt_3.pth')] * 2
    assert info['best_score'] == 0.5


@pytest.mark.parametrize('separate', [False, True])
def test_schedules_watch_the_metric_by_its_new_name(separate):
    """A runner of several optimizers has its schedules by their names."""
    watching, plain = SimpleNamespace(monitor='grounding/acc@0.5'), SimpleNamespace()
    schedules = [watching, plain]
    runner = SimpleNamespace(
        hooks=[], param_schedulers=dict(model=schedules) if separate else schedules
    )
    RunCheckHook().before_run(runner)
    assert watching.monitor == 'grounding/acc_0.5'
    assert not hasattr(plain, 'monitor')
    RunCheckHook().before_run(SimpleNamespace(hooks=[], param_schedulers=None))


@pytest.mark.parametrize(
    ('best', 'is_known'),
    [
        ('grounding/acc_0.5', False),
        ('grounding/f1_acc', True),
        ('grounding/testA/f1_acc', True),
        (['grounding/n_acc', 'grounding/nothing'], False),
        ('auto', True),
    ],
)
def test_a_best_checkpoint_by_a_number_that_is_not_there(best, is_known):
    names = [best] if isinstance(best, str) else best
    hook = CheckpointHook(save_best=best, rule=None if best == 'auto' else 'greater')
    hook.key_indicators = names
    metric = GeneralizedGroundingMetric()
    loop = SimpleNamespace(evaluator=SimpleNamespace(metrics=[metric]))
    runner = SimpleNamespace(hooks=[hook], val_loop=loop)
    if is_known:
        refuse_unknown_best(runner)
    else:
        with pytest.raises(ValueError, match=rf"'{names[-1]}'.*grounding/f1_acc"):
            refuse_unknown_best(runner)


@pytest.mark.parametrize('several', [False, True])
def test_metrics_that_are_named_as_before(several, shapes, sources, tmp_path):
    """In a config, and in the best scores of a checkpoint that is resumed."""

    def config(metric, epochs):
        cfg = checked(runner_config(shapes, sources, tmp_path))
        names = [metric, 'grounding/miou'] if several else metric
        cfg.default_hooks.checkpoint.update(save_best=names, rule='greater')
        cfg.default_hooks.stop = dict(
            type='EarlyStoppingHook', monitor=metric, rule='greater', patience=9
        )
        cfg.train_cfg.max_epochs = epochs
        return cfg

    Runner.from_cfg(config('grounding/acc@0.5', 1)).train()
    old, new = ('_grounding/acc@0.5', '_grounding/acc_0.5') if several else ('', '')
    path = tmp_path / 'epoch_1.pth'
    checkpoint = torch.load(path, weights_only=False)
    info = checkpoint['message_hub']['runtime_info']
    assert info[f'best_ckpt{new}'].endswith('best_grounding_acc_0.5_epoch_1.pth')
    # As an earlier version wrote it: a best that is never reached again.
    for part in ('runtime_info', 'resumed_keys'):
        kept = checkpoint['message_hub'][part]
        for key in ('best_score', 'best_ckpt'):
            kept[f'{key}{old}'] = kept.pop(f'{key}{new}')
    info[f'best_score{old}'] = 2.0
    torch.save(checkpoint, path)
    cfg = config('grounding/acc_0.5', 2)
    cfg.update(resume=True, load_from=str(path))
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.message_hub.runtime_info[f'best_score{new}'] == 2.0
    again = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)
    assert again['message_hub']['runtime_info'][f'best_score{new}'] == 2.0


def texts_of(monkeypatch):
    """What the hook logs from here on."""
    texts = []
    monkeypatch.setattr(
        run_check_hook, 'print_log', lambda text, **_: texts.append(text)
    )
    return texts


def test_training_images_that_are_tested_on_are_counted(
    shapes, sources, tmp_path, monkeypatch
):
    texts = texts_of(monkeypatch)
    cfg = checked(runner_config(shapes, sources, tmp_path))
    cfg.train_cfg.max_epochs = 1
    cfg.test_dataloader = copy.deepcopy(cfg.val_dataloader)
    cfg.test_dataloader.dataset.update(split='train', data_prefix=dict(img='none'))
    cfg.test_cfg, cfg.test_evaluator = dict(type='TestLoop'), cfg.val_evaluator
    runner = Runner.from_cfg(cfg)
    runner.train()
    # Images of that name are in another folder.
    assert not [text for text in texts if 'held out' in text]
    cfg.test_dataloader.dataset.data_prefix = dict(img='images')
    cfg.work_dir = str(tmp_path / 'second')
    runner = Runner.from_cfg(cfg)
    runner.train()
    (text,) = [text for text in texts if 'held out' in text]
    count = len(runner.train_loop.dataloader.dataset)
    assert f'{count} of {count} training labels are of 24 images' in text
    assert 'the test data' in text and 'the validation data' not in text


def test_test_data_that_is_not_there_yet_stops_no_training(
    shapes, sources, tmp_path, monkeypatch
):
    texts = texts_of(monkeypatch)
    cfg = checked(runner_config(shapes, sources, tmp_path))
    cfg.train_cfg.max_epochs = 1
    cfg.test_dataloader = copy.deepcopy(cfg.val_dataloader)
    cfg.test_dataloader.dataset.ann_file = 'shapes/later.json'
    cfg.test_cfg, cfg.test_evaluator = dict(type='TestLoop'), cfg.val_evaluator
    Runner.from_cfg(cfg).train()
    assert len([text for text in texts if 'later.json' in text]) == 1
    assert list(tmp_path.glob('epoch_1.pth'))


def test_an_unknown_reaction_to_leaks_is_refused():
    with pytest.raises(ValueError, match=r"on_leak='drop'.*'ignore'"):
        RunCheckHook(on_leak='drop')
