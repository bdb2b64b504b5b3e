"""Checkpoints without frozen weights: small, strict, and as good as whole ones."""

import pytest
import torch
from mmengine.runner import Runner

from projects.clip_vg.compat import load_from_local
from projects.clip_vg.models.frozen_weights import FINGERPRINT, frozen_names, is_slim

from ..helpers.configs import model_config, runner_config


def trained(shapes, sources, work_dir, slim=True, ema=False, **changes):
    cfg = runner_config(shapes, sources, work_dir, **changes)
    if slim:
        cfg.default_hooks['slim'] = dict(type='SlimCheckpointHook')
    if ema:
        cfg.custom_hooks = [dict(type='EMAHook')]
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def load(path):
    return load_from_local(str(path))


@pytest.mark.parametrize('ema', [False, True])
def test_what_is_left_is_what_was_trained(shapes, sources, tmp_path, ema):
    runner = trained(shapes, sources, tmp_path, ema=ema)
    checkpoint = load(tmp_path / 'epoch_2.pth')
    frozen = set(frozen_names(runner.model))
    assert any('vit' in name for name in frozen)
    everything = set(runner.model.state_dict())
    assert set(checkpoint['state_dict']) == everything - frozen | {FINGERPRINT}
    assert is_slim(tmp_path / 'epoch_2.pth')
    if ema:
        names = {n.removeprefix('module.') for n in checkpoint['ema_state_dict']}
        assert not names & frozen


@pytest.mark.parametrize('ema', [False, True])
def test_a_resumed_training_ends_as_with_whole_checkpoints(
    shapes, sources, tmp_path, ema
):
    whole = trained(shapes, sources, tmp_path / 'whole', slim=False, ema=ema)
    assert not is_slim(tmp_path / 'whole' / 'epoch_2.pth')
    one = dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
    trained(shapes, sources, tmp_path / 'slim', ema=ema, train_cfg=one)
    again = trained(shapes, sources, tmp_path / 'slim', ema=ema, resume=True)
    assert again.epoch == 2
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(
            again.model.state_dict()[name], value, rtol=0, atol=0
        )


def test_another_clip_is_refused(shapes, sources, tmp_path):
    trained(shapes, sources, tmp_path)
    cfg = runner_config(shapes, sources, tmp_path / 'other', model=model_config())
    cfg.randomness = dict(seed=1)  # other random towers
    cfg.load_from = str(tmp_path / 'epoch_2.pth')
    with pytest.raises(ValueError, match='needs those of sha256 .* have .*pretrained'):
        Runner.from_cfg(cfg).train()


def test_a_lost_trained_weight_is_refused_too(shapes, sources, tmp_path):
    runner = trained(shapes, sources, tmp_path)
    state = load(tmp_path / 'epoch_2.pth')['state_dict']
    state.pop('fusion.reg_token.weight')
    with pytest.raises(ValueError, match='frozen weights'):
        runner.model.load_state_dict(state)
