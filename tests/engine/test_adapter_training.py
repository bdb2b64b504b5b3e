"""Training runs with adapters: checkpoints, averaged weights, resuming, fine-tuning."""

import subprocess
import sys
import time
from types import SimpleNamespace

import open_clip
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.runner.checkpoint import load_state_dict

from projects.clip_vg.checkpoints.frozen_weights import (
    FINGERPRINT,
    fingerprint,
    frozen_names,
    without_frozen,
)
from projects.clip_vg.checkpoints.official_layout import from_official, to_official
from projects.clip_vg.checkpoints.strict_loading import refuse_other_weights
from projects.clip_vg.compat import load_from_local
from projects.clip_vg.engine import SlimCheckpointHook

from ..helpers import ROOT
from ..helpers.commands import run
from ..helpers.configs import ARCH, CONFIG, model_config, runner_config
from ..helpers.models import initialised

LORA = dict(kind='lora', rank=2, dropout=0.2)
BIAS = dict(kind='bias')
LAST = dict(kind='last_blocks', number=1)
ONE_EPOCH = dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('clip') / 'clip.pt'
    torch.save(open_clip.CLIP(**ARCH).state_dict(), path)
    return str(path)


def with_adapters(clip, visual=None, text=None, **changes):
    return model_config(
        visual_encoder=dict(pretrained=clip, adapter=visual, **changes),
        text_encoder=dict(pretrained=clip, adapter=text),
    )


def train(shapes, sources, work_dir, model, **changes):
    cfg = runner_config(shapes, sources, work_dir, model=model, **changes)
    cfg.default_hooks['slim'] = dict(type='SlimCheckpointHook')
    cfg.custom_hooks = [dict(type='EMAHook')]
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def averaged(runner):
    hook = next(h for h in runner.hooks if type(h).__name__ == 'EMAHook')
    return hook.ema_model.state_dict()


@pytest.mark.parametrize(
    'visual, text', [(LORA, BIAS), (LAST, LORA)], ids=['lora', 'last_blocks']
)
def test_a_resumed_run_ends_alike_from_checkpoints_of_what_is_trained(
    shapes, sources, clip, tmp_path, visual, text
):
    model = with_adapters(clip, visual, text, with_cp=True)
    optimizer = dict(type='BFloat16OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2))
    whole = train(shapes, sources, tmp_path / 'a', model, optim_wrapper=optimizer)
    options = dict(model=model, optim_wrapper=optimizer)
    train(shapes, sources, tmp_path / 'b', train_cfg=ONE_EPOCH, **options)
    again = train(shapes, sources, tmp_path / 'b', resume=True, **options)
    assert again.epoch == 2
    for one, other in (
        (whole.model.state_dict(), again.model.state_dict()),
        (averaged(whole), averaged(again)),
    ):
        assert all(torch.equal(value, other[name]) for name, value in one.items())
    # Trained: the average lags behind.
    trained = {n for n, p in whole.model.named_parameters() if p.requires_grad}
    for tower in ('visual_encoder', 'text_encoder'):
        assert any(
            not torch.equal(
                whole.model.state_dict()[name], averaged(whole)[f'module.{name}']
            )
            for name in trained
            if name.startswith(tower)
        )
    saved = load_from_local(str(tmp_path / 'a/epoch_2.pth'))
    positions = {n for n in saved['state_dict'] if 'positional_embedding' in n}
    assert len(positions) == 2
    held = {n for n in saved['state_dict'] if 'encoder' in n}
    assert held == {n for n in trained if 'encoder' in n} | positions
    # Into a model that has loaded nothing yet, as a test run has it.
    fresh = MODELS.build(model)
    refuse_other_weights(saved['state_dict'], fresh)
    load_state_dict(fresh, saved['state_dict'])
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, averaged(whole)[f'module.{name}']), name


def slim_state(model):
    """What a slim checkpoint of a model has."""
    checkpoint = dict(state_dict=model.state_dict())
    SlimCheckpointHook().before_save_checkpoint(
        SimpleNamespace(model=model), checkpoint
    )
    return checkpoint['state_dict']


def built(cfg, seed=0):
    torch.manual_seed(seed)
    return initialised(MODELS.build(cfg))


KINDS = pytest.mark.parametrize('adapter', [LORA, BIAS, LAST, None], ids=str)


@KINDS
def test_what_was_frozen_may_be_trained_next(clip, adapter):
    init_default_scope('mmdet')
    before = built(with_adapters(clip))
    after = built(with_adapters(clip, adapter, adapter), seed=1)
    load_state_dict(after, slim_state(before))
    state = after.state_dict()
    for name, value in before.state_dict().items():
        assert torch.equal(state[name], value), name


@KINDS
def test_what_was_trained_may_be_frozen_next(clip, adapter):
    """Weights of CLIP that were trained are the checkpoint's, not the file's."""
    before = built(with_adapters(clip, adapter, adapter))
    with torch.no_grad():
        for parameter in before.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    after = MODELS.build(with_adapters(clip))
    slim = slim_state(before)
    load_state_dict(after, slim)
    state = before.state_dict()
    for name, value in after.state_dict().items():
        assert torch.equal(state[name], value), name
    if adapter is LORA:  # it would be lost
        with pytest.raises(ValueError, match=r'32 unexpected.*lora_a'):
            refuse_other_weights(slim, after)


def old_slim_state(model):
    """What it had when positions were left out as well."""
    names = frozen_names(model)
    state = without_frozen(model.state_dict(), names)
    return {**state, FINGERPRINT: fingerprint(model.state_dict(), names)}


@pytest.mark.parametrize(
    'adapter, slim', [(LORA, slim_state), (None, slim_state), (BIAS, old_slim_state)]
)
def test_positions_of_a_slim_checkpoint_fit_another_image_size(clip, adapter, slim):
    before = built(with_adapters(clip, adapter))
    with torch.no_grad():
        before.fusion.pos_embed.weight.add_(1.0)
    after = built(with_adapters(clip, adapter, image_size=64), seed=1)
    load_state_dict(after, slim(before))
    whole = built(with_adapters(clip, adapter, image_size=64), seed=2)
    load_state_dict(whole, before.state_dict())
    assert after.visual_encoder.vit.positional_embedding.shape == (1 + 8 * 8, 32)
    assert after.fusion.pos_embed.weight.mean() > 0.5
    state = after.state_dict()
    for name, value in whole.state_dict().items():
        assert torch.equal(state[name], value), name


@KINDS
def test_another_clip_is_refused(clip, adapter, tmp_path):
    torch.manual_seed(1)
    other = str(tmp_path / 'other.pt')
    torch.save(open_clip.CLIP(**ARCH).state_dict(), other)
    slim = slim_state(built(with_adapters(clip, adapter, adapter)))
    with pytest.raises(ValueError, match='needs those of sha256 .* have .*pretrained'):
        load_state_dict(MODELS.build(with_adapters(other, adapter, adapter)), slim)


def test_an_official_checkpoint_is_fine_tuned_with_an_adapter(clip):
    """Names of CLIP's weights are those of a tower without one."""
    before = built(with_adapters(clip))
    official = to_official(before.state_dict(), {})
    converted, _ = from_official(official)
    after = built(with_adapters(clip, LORA, LORA), seed=1)
    missing, unexpected = after.load_state_dict(converted, strict=False)
    assert unexpected == []
    assert {name.rpartition('.')[2] for name in missing} == {'lora_a', 'lora_b'}
    for name, value in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], value), name


ADAPTED = """
weights = {weights!r}
for tower, adapter in (
    ('visual_encoder', dict(kind='lora', rank=4, dropout=0.2)),
    ('text_encoder', dict(kind='last_blocks', number=1)),
):
    model[tower].update(pretrained=weights, adapter=adapter, with_cp=True)
train_cfg = dict(max_epochs=8, val_interval=4)
param_scheduler = [dict(
    type='OneCycleLR', eta_max=1e-2, total_steps=8, pct_start=0.2,
    convert_to_iter_based=True)]
default_hooks = dict(
    logger=dict(interval=1), checkpoint=dict(interval=1, max_keep_ckpts=-1),
    slim=dict(type='SlimCheckpointHook'))
custom_hooks = [dict(type='EMAHook')]
del tower, adapter, weights
"""


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_weights(shapes, tmp_path):
    """Killed by the system (-9) in a process of its own, and resumed."""
    config, weights = tmp_path / 'adapted.py', tmp_path / 'clip.pt'
    text = CONFIG.format(root=ROOT, data=shapes)
    names = {}
    exec(text[text.index('arch = ') : text.index('model = ')], names)
    torch.manual_seed(0)
    clip = open_clip.CLIP(**dict(names['arch']))
    clip.visual.positional_embedding.data.normal_(std=0.1)
    torch.save(clip.state_dict(), weights)
    config.write_text(text + ADAPTED.format(weights=str(weights)))
    command = (sys.executable, 'tools/train.py', config, '--work-dir')
    run(*command, tmp_path / 'whole')
    killed = tmp_path / 'killed'
    process = subprocess.Popen(
        [str(part) for part in (*command, killed)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while not (killed / 'epoch_3.pth').exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -9
    assert not (killed / 'epoch_8.pth').exists()
    run(*command, killed, '--resume')
    one, other = (
        load_from_local(str(folder / 'epoch_8.pth'))
        for folder in (tmp_path / 'whole', killed)
    )
    for key in ('state_dict', 'ema_state_dict'):
        assert one[key].keys() == other[key].keys()
        adapted = {n for n in one[key] if 'lora_b' in n or 'resblocks.1.' in n}
        assert len(adapted) > 10
        for name, value in one[key].items():
            assert torch.equal(
                torch.as_tensor(value), torch.as_tensor(other[key][name])
            )
    trained = [n for n in one['state_dict'] if n.endswith('lora_b')]
    assert all(one['state_dict'][name].abs().max() > 0 for name in trained)
