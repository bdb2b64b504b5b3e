"""Weights: loaded when a model begins, and never asked of a file that nobody needs."""

import open_clip
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.runner import Runner
from mmengine.runner.checkpoint import load_state_dict
from torch.nn.functional import interpolate

from projects.clip_vg.checkpoints import clip_weights
from projects.clip_vg.checkpoints.strict_loading import refuse_other_weights
from projects.clip_vg.models import CLIPTextEncoder, CropTextCLIP, clip_tower

from ..helpers.configs import ARCH, model_config, runner_config
from ..helpers.models import initialised

LONGER = dict(ARCH, text_cfg=dict(ARCH['text_cfg'], context_length=20))
OTHERS = dict(
    depth=dict(fusion=dict(num_layers=5)),
    shallower=dict(fusion=dict(num_layers=2)),
    context=dict(text_encoder=dict(arch=LONGER)),
    resolution=dict(visual_encoder=dict(image_size=48)),
)
VISUAL = 'visual_encoder.vit.positional_embedding'
TEXT = 'text_encoder.transformer.positional_embedding'
FUSED = 'fusion.pos_embed.weight'


@pytest.fixture
def clip(tmp_path):
    """A file of CLIP, and its weights."""
    torch.manual_seed(7)
    net = open_clip.CLIP(**ARCH)
    torch.save(net.state_dict(), tmp_path / 'clip.pt')
    return str(tmp_path / 'clip.pt'), net.state_dict()


def on_grid(positions, side):
    """Class token and patches on another grid, as PyTorch resizes images."""
    grid = positions[1:].T.reshape(1, positions.shape[1], 4, 4)
    grid = interpolate(grid, (side, side), mode='bicubic', antialias=True)
    return torch.cat([positions[:1], grid.flatten(2)[0].T])


def along_text(positions, length):
    """Positions between two others, by hand; the ends are not passed."""
    rows = []
    for place in range(length):
        at = (place + 0.5) * len(positions) / length - 0.5
        at = min(max(at, 0), len(positions) - 1)
        low = min(int(at), len(positions) - 2)
        rows.append(positions[low].lerp(positions[low + 1], at - low))
    return torch.stack(rows)


def fitted(state, other):
    """What a model of ``OTHERS`` should have of a checkpoint."""
    state = dict(state)
    fused = state[FUSED]
    if other == 'resolution':
        state[VISUAL] = on_grid(state[VISUAL], 6)
        state[FUSED] = torch.cat([fused[:13], on_grid(fused[13:], 6)])
    elif other == 'context':
        state[TEXT] = along_text(state[TEXT], 20)
        words = along_text(fused[1:13], 20)
        state[FUSED] = torch.cat([fused[:1], words, fused[13:]])
    return state


@pytest.mark.parametrize('other', OTHERS)
def test_fine_tuning_begins_with_what_fits(
    other, tiny_model, shapes, sources, tmp_path
):
    path = tmp_path / 'other.pth'
    torch.save(dict(state_dict=tiny_model.state_dict(), meta={}), path)
    cfg = runner_config(
        shapes,
        sources,
        tmp_path,
        model=model_config(**OTHERS[other]),
        load_from=str(path),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=2),
        # Nothing changes, so that the end tells the beginning.
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
        val_dataloader=None,
        val_evaluator=None,
        val_cfg=None,
    )
    cfg.default_hooks.checkpoint = None
    cfg.default_hooks.run_check = dict(type='RunCheckHook')
    if other == 'resolution':
        for step in cfg.train_dataloader.dataset.pipeline:
            if 'size' in step:
                step['size'] = 48
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 2
    expected = fitted(tiny_model.state_dict(), other)
    got = runner.model.state_dict()
    common = got.keys() & expected.keys()
    assert len(common) == min(len(got), len(expected))
    for name in common:
        torch.testing.assert_close(got[name], expected[name], atol=1e-5, rtol=0)


@pytest.mark.parametrize('other', OTHERS)
@pytest.mark.parametrize('wrapped', [False, True])
def test_our_tools_refuse_the_same_checkpoints(other, wrapped, tiny_model):
    model = MODELS.build(model_config(**OTHERS[other]))
    state = tiny_model.state_dict()
    if wrapped:
        model = MODELS.build(dict(type='GroundingTTAModel', module=model))
        state = {f'module.{name}': value for name, value in state.items()}
    with pytest.raises(ValueError, match='not of this model') as caught:
        refuse_other_weights(state, model)
    changed = dict(depth='32 missing', shallower='16 unexpected')
    assert changed.get(other, FUSED) in str(caught.value)


def test_the_same_model_is_not_refused(tiny_model):
    with torch.device('meta'):
        model = MODELS.build(model_config())
    refuse_other_weights(tiny_model.state_dict(), model)


def test_resuming_another_model_is_refused(tiny_model, shapes, sources, tmp_path):
    path = tmp_path / 'other.pth'
    torch.save(dict(state_dict=tiny_model.state_dict(), meta={}), path)
    cfg = runner_config(
        shapes, sources, tmp_path, model=model_config(**OTHERS['depth'])
    )
    cfg.default_hooks.run_check = dict(type='RunCheckHook')
    cfg.update(resume=True, load_from=str(path))
    with pytest.raises(ValueError, match='32 missing'):
        Runner.from_cfg(cfg).train()


def test_another_width_keeps_its_own_positions(tiny_model):
    arch = dict(ARCH, vision_cfg=dict(ARCH['vision_cfg'], width=48, image_size=48))
    model = MODELS.build(model_config(visual_encoder=dict(arch=arch)))
    before = model.state_dict()[VISUAL].clone()
    load_state_dict(model, tiny_model.state_dict())
    assert torch.equal(model.state_dict()[VISUAL], before)


@pytest.mark.parametrize('broken', [float('nan'), 'int'])
def test_broken_weights_are_refused_by_every_load(broken, tiny_model):
    state = dict(tiny_model.state_dict())
    name = 'bbox_head.mlp.layers.0.weight'
    state[name] = state[name].int() if broken == 'int' else state[name] * broken
    for load in (
        lambda: load_state_dict(tiny_model, state),
        lambda: tiny_model.load_state_dict(state, strict=False),
    ):
        with pytest.raises(ValueError, match=name):
            load()


def test_a_whole_checkpoint_needs_no_clip(
    offline, tiny_model, shapes, sources, tmp_path
):
    gone = dict(pretrained=str(tmp_path / 'gone.pt'))
    path = tmp_path / 'whole.pth'
    torch.save(dict(state_dict=tiny_model.state_dict(), meta={}), path)
    model = model_config(visual_encoder=gone, text_encoder=gone)
    cfg = runner_config(shapes, sources, tmp_path, model=model, load_from=str(path))
    cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator
    cfg.test_cfg = dict(type='TestLoop')
    runner = Runner.from_cfg(cfg)
    runner.test()
    for name, value in tiny_model.state_dict().items():
        assert torch.equal(runner.model.state_dict()[name], value)
    with pytest.raises(ValueError, match=r'pretrained=.*gone\.pt'):
        runner.model.init_weights()


def test_weights_are_loaded_once_and_not_by_the_constructor(clip, monkeypatch):
    path, state = clip
    loaded, load = [], clip_tower.load_clip_tower
    monkeypatch.setattr(
        clip_tower,
        'load_clip_tower',
        lambda *a, **k: (loaded.append(a[1]), load(*a, **k)),
    )
    tower = dict(pretrained=path)
    model = MODELS.build(model_config(visual_encoder=tower, text_encoder=tower))
    assert loaded == []
    weight = model.text_encoder.transformer.positional_embedding
    assert not torch.equal(weight, state['positional_embedding'])
    model.init_weights()
    model.init_weights()
    model.text_encoder.init_weights()
    model.visual_encoder.load_pretrained()
    assert loaded == ['visual', 'text']
    assert torch.equal(weight, state['positional_embedding'])


@pytest.fixture
def readings(monkeypatch):
    """Paths of the files of CLIP that are read."""
    paths, read = [], clip_weights.read_clip_weights
    monkeypatch.setattr(
        clip_weights,
        'read_clip_weights',
        lambda path: (paths.append(str(path)), read(path))[1],
    )
    return paths


def test_both_towers_come_from_one_reading(clip, readings):
    path, state = clip
    tower = dict(pretrained=path)
    model = MODELS.build(model_config(visual_encoder=tower, text_encoder=tower))
    model.init_weights()
    assert readings == [path]
    assert torch.equal(
        model.visual_encoder.vit.conv1.weight, state['visual.conv1.weight']
    )
    assert torch.equal(
        model.text_encoder.transformer.text_projection, state['text_projection']
    )
    # Nothing of the file stays in memory, and another model reads it anew.
    assert model.visual_encoder.clip_files is model.text_encoder.clip_files is None
    initialised(MODELS.build(model_config(visual_encoder=tower)))
    assert readings == [path, path]


def test_matching_reads_its_file_once(clip, readings):
    path, state = clip
    matching = CropTextCLIP(ARCH, pretrained=path)
    matching.init_weights()
    assert readings == [path]
    assert torch.equal(matching.net.logit_scale, state['logit_scale'])


@pytest.mark.parametrize('source', ['pretrained', 'init_cfg'])
@pytest.mark.parametrize('per_position', [True, False])
def test_a_prompt_begins_as_words_of_the_weights(clip, source, per_position, tmp_path):
    path, state = clip
    plain = initialised(CLIPTextEncoder(ARCH, pretrained=path))
    if source == 'init_cfg':
        torch.save(dict(state_dict=plain.state_dict()), tmp_path / 'text.pth')
        checkpoint = str(tmp_path / 'text.pth')
        weights = dict(init_cfg=dict(type='Pretrained', checkpoint=checkpoint))
    else:
        weights = dict(pretrained=path)
    prompt = dict(init='a photo', per_position=per_position)
    encoder = initialised(CLIPTextEncoder(ARCH, prompt=prompt, **weights))
    words = state['token_embedding.weight'][encoder.tokenizer.encode('a photo')]
    expected = words if per_position else words.mean(0, keepdim=True)
    torch.testing.assert_close(encoder.prompt.detach(), expected)
    with torch.no_grad():
        encoder.prompt.fill_(3.0)
    learnt = tmp_path / 'learnt.pth'
    torch.save(dict(state_dict=encoder.state_dict()), learnt)
    init_cfg = dict(type='Pretrained', checkpoint=str(learnt))
    again = initialised(CLIPTextEncoder(ARCH, prompt=prompt, init_cfg=init_cfg))
    assert (again.prompt == 3).all()


PARTS = dict(
    visual_encoder={},
    text_encoder=dict(prompt=dict(init='a photo')),
    # Positions that are set by hand are not set over those that are loaded.
    fusion=dict(pos_embed_init='sin_cos_2d'),
    bbox_head={},
    confidence_head=dict(type='GroundingConfidenceHead'),
)


def test_parts_are_initialised_from_a_checkpoint(tmp_path):
    """By MMEngine's ``init_cfg``, each with its prefix."""

    def build(**init):
        cfg = dict(model_config(), confidence_head={})
        for name, options in PARTS.items():
            cfg[name] = dict(cfg[name], **options, **init.get(name, {}))
        return initialised(MODELS.build(cfg))

    torch.manual_seed(1)
    source = build()
    path = str(tmp_path / 'source.pth')
    torch.save(dict(state_dict=source.state_dict()), path)
    for name in PARTS:
        init_cfg = dict(type='Pretrained', checkpoint=path, prefix=f'{name}.')
        torch.manual_seed(2)
        state = build(**{name: dict(init_cfg=init_cfg)}).state_dict()
        torch.manual_seed(2)
        own = build().state_dict()
        for key, value in source.state_dict().items():
            expected = value if key.startswith(f'{name}.') else own[key]
            assert torch.equal(state[key], expected), (name, key)
