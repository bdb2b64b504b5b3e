"""Checkpoints without frozen weights: small, strict, and as good as whole ones."""

from types import SimpleNamespace

import open_clip
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.runner.checkpoint import load_state_dict

from projects.clip_vg.checkpoints.frozen_weights import FINGERPRINT, left_out_names
from projects.clip_vg.checkpoints.strict_loading import refuse_other_weights
from projects.clip_vg.compat import load_from_local
from projects.clip_vg.engine import SlimCheckpointHook

from ..helpers.configs import ARCH, model_config, runner_config
from ..helpers.models import initialised


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    """Files of two CLIPs."""
    folder = tmp_path_factory.mktemp('clips')
    for seed in range(2):
        torch.manual_seed(seed)
        torch.save(open_clip.CLIP(**ARCH).state_dict(), folder / f'{seed}.pt')
    return [str(folder / f'{seed}.pt') for seed in range(2)]


def with_clip(clip, **changes):
    """Config of a tiny CLIPVG whose towers begin as a CLIP."""
    towers = dict.fromkeys(('visual_encoder', 'text_encoder'), dict(pretrained=clip))
    return model_config(**towers, **changes)


@pytest.fixture
def trained(shapes, sources, clips):
    """Trains for two epochs, and gives the runner."""

    def trained(*args, **changes):
        return train(shapes, sources, clips[0], *args, **changes)

    return trained


def train(shapes, sources, clip, work_dir, slim=True, ema=False, **changes):
    changes.setdefault('model', with_clip(clip))
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
def test_what_is_left_is_what_was_trained(trained, tmp_path, ema):
    runner = trained(tmp_path, ema=ema)
    checkpoint = load(tmp_path / 'epoch_2.pth')
    frozen = set(left_out_names(runner.model))
    assert any('vit' in name for name in frozen)
    everything = set(runner.model.state_dict())
    assert set(checkpoint['state_dict']) == everything - frozen | {FINGERPRINT}
    if ema:
        names = {n.removeprefix('module.') for n in checkpoint['ema_state_dict']}
        assert not names & frozen


@pytest.mark.parametrize('ema', [False, True])
def test_a_resumed_training_ends_as_with_whole_checkpoints(trained, tmp_path, ema):
    whole = trained(tmp_path / 'whole', slim=False, ema=ema)
    one = dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
    trained(tmp_path / 'slim', ema=ema, train_cfg=one)
    again = trained(tmp_path / 'slim', ema=ema, resume=True)
    assert again.epoch == 2
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(
            again.model.state_dict()[name], value, rtol=0, atol=0
        )


@pytest.fixture(scope='module')
def slim(shapes, sources, clips, tmp_path_factory):
    """A checkpoint without frozen weights, and all weights that it stands for."""
    work_dir = tmp_path_factory.mktemp('slim')
    init_default_scope('mmdet')
    runner = train(shapes, sources, clips[0], work_dir)
    return load(work_dir / 'epoch_2.pth')['state_dict'], runner.model.state_dict()


def test_the_towers_are_loaded_with_the_checkpoint(slim, clips):
    """By nobody else: a test run does not initialise the model."""
    state, whole = slim
    model = MODELS.build(with_clip(clips[0]))
    refuse_other_weights(state, model)
    load_state_dict(model, state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, whole[name]), name


def test_another_clip_is_refused(slim, clips, tmp_path):
    with pytest.raises(ValueError, match='needs those of sha256 .* have .*pretrained'):
        load_state_dict(MODELS.build(with_clip(clips[1])), slim[0])
    gone = str(tmp_path / 'gone.pt')
    with pytest.raises(ValueError, match=r'pretrained=.*gone\.pt'):
        load_state_dict(MODELS.build(with_clip(gone)), slim[0])


def test_another_fusion_is_fine_tuned_from_it(slim, clips):
    state, whole = slim
    model = MODELS.build(with_clip(clips[0], fusion=dict(num_layers=5)))
    load_state_dict(model, state)
    for name, value in whole.items():
        assert torch.equal(model.state_dict()[name], value), name
    with pytest.raises(ValueError, match='32 missing'):
        refuse_other_weights(state, model)


def test_a_lost_trained_weight_is_refused(slim, clips):
    state = dict(slim[0])
    state.pop('fusion.reg_token.weight')
    with pytest.raises(ValueError, match=r'1 missing.*fusion\.reg_token\.weight'):
        refuse_other_weights(state, MODELS.build(with_clip(clips[0])))


@pytest.mark.parametrize('wrap', [lambda model: model, torch.nn.DataParallel])
def test_averaged_weights_and_wrapped_models_are_made_smaller_too(clips, wrap):
    model = initialised(MODELS.build(with_clip(clips[0])))
    whole = model.state_dict()
    checkpoint = dict(
        state_dict=dict(whole),
        ema_state_dict={'steps': 3, **{f'module.{k}': v for k, v in whole.items()}},
    )
    SlimCheckpointHook().before_save_checkpoint(
        SimpleNamespace(model=wrap(model)), checkpoint
    )
    state, averaged = checkpoint['state_dict'], checkpoint['ema_state_dict']
    trained = whole.keys() - set(left_out_names(model))
    assert state.keys() == trained | {FINGERPRINT}
    assert averaged.keys() == {'steps', *(f'module.{name}' for name in state)}
    assert torch.equal(averaged[f'module.{FINGERPRINT}'], state[FINGERPRINT])


def test_below_a_head_that_is_trained_alone_the_detector_stays(clips):
    """And positions that were trained before, though nothing but the head is now."""
    head = dict(type='GroundingConfidenceHead', freeze_detector=True)
    towers = dict(
        visual_encoder=dict(pretrained=clips[0], train_pos_embed=True),
        text_encoder=dict(pretrained=clips[0]),
    )
    cfg = dict(model_config(**towers), confidence_head=head)
    model = initialised(MODELS.build(cfg))
    torch.nn.init.zeros_(model.visual_encoder.vit.positional_embedding)
    checkpoint = dict(state_dict=model.state_dict())
    hook = SlimCheckpointHook()
    hook.before_save_checkpoint(SimpleNamespace(model=model), checkpoint)
    left_out = model.state_dict().keys() - checkpoint['state_dict'].keys()
    assert {name.split('.')[0] for name in left_out} == towers.keys()
    assert 'visual_encoder.vit.conv1.weight' in left_out
    again = MODELS.build(cfg)
    refuse_other_weights(checkpoint['state_dict'], again)
    load_state_dict(again, checkpoint['state_dict'])
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
