"""Adapters of the towers: what is trained, what it computes, and that it merges."""

import copy
import multiprocessing
import os

import open_clip
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.model import MMDistributedDataParallel
from torch import nn

from projects.clip_vg.models import CLIPTextEncoder, CLIPVisualEncoder
from projects.clip_vg.models.adapters import (
    LoRA,
    adapt,
    find_blocks,
    is_adapter_weight,
    merge_adapters,
)
from projects.clip_vg_core.utils.safe_torch import load_torch

from ..helpers.configs import ARCH, model_config
from ..helpers.models import initialised, make_batch, prepared

KINDS = {
    'lora': dict(kind='lora', rank=2, alpha=6),
    'lora of parts': dict(kind='lora', rank=2, targets=['in_proj'], indices=[-1]),
    'bias': dict(kind='bias'),
    'last_blocks': dict(kind='last_blocks', number=1),
}
EACH = pytest.mark.parametrize('adapter', KINDS.values(), ids=KINDS)
TOWERS = [CLIPVisualEncoder, CLIPTextEncoder]
BOTH = pytest.mark.parametrize('tower', TOWERS)


def make_tower(tower, adapter=None, **changes):
    if tower is CLIPVisualEncoder:
        changes['extract_layers'] = (0, 1)
    torch.manual_seed(0)
    return tower(ARCH, adapter=adapter, **changes)


def make_input(tower):
    if tower is CLIPVisualEncoder:
        return torch.randn(2, 3, 32, 32)
    ids = torch.randint(1, 400, (3, 7))
    ids[0, 4:] = 0
    return ids


def make_model(visual, text=None, **changes):
    """A tiny CLIPVG whose towers have an adapter that does something."""
    cfg = model_config(
        visual_encoder=dict(adapter=visual), text_encoder=dict(adapter=text), **changes
    )
    torch.manual_seed(0)
    model = initialised(MODELS.build(cfg))
    return learnt(model)


def learnt(module):
    """With adapters as after some steps: they begin as nothing."""
    for name, parameter in module.named_parameters():
        if name.endswith('lora_b'):
            nn.init.normal_(parameter, std=0.3)
    return module


def trained_names(tower):
    return {name for name, p in tower.named_parameters() if p.requires_grad}


@BOTH
@EACH
def test_a_tower_begins_as_without_an_adapter(tower, adapter):
    plain, adapted = make_tower(tower), make_tower(tower, adapter)
    missing, unexpected = adapted.load_state_dict(plain.state_dict(), strict=False)
    assert unexpected == []
    assert all(is_adapter_weight(name) for name in missing)
    given = make_input(tower)
    assert torch.equal(adapted.train()(given), plain(given))


@BOTH
def test_what_each_kind_trains(tower):
    plain = make_tower(tower)
    names = {name for name, _ in plain.named_parameters()}
    assert trained_names(plain) == set()
    biases = {n for n in names if n.endswith('bias')}
    assert len(biases) > 8
    assert trained_names(make_tower(tower, KINDS['bias'])) == biases
    last = {n for n in names if '.resblocks.1.' in n}
    assert trained_names(make_tower(tower, KINDS['last_blocks'])) == last
    whole = make_tower(tower, KINDS['lora'])
    # Four linear maps in each of two blocks.
    assert len(trained_names(whole)) == 2 * 4 * 2
    assert trained_names(whole) == {n for n in whole.state_dict() if '.lora_' in n}
    part = make_tower(tower, KINDS['lora of parts'])
    (block,) = {n.rpartition('.attn.')[0] for n in trained_names(part)}
    assert block.endswith('resblocks.1')
    width = 32 if tower is CLIPVisualEncoder else 24
    count = sum(p.numel() for p in part.parameters() if p.requires_grad)
    assert count == 2 * (width + 3 * width)


@torch.no_grad()
@BOTH
def test_lora_is_the_sum_of_both_maps(tower):
    """Against a tower whose weights are the sums."""
    adapted = learnt(make_tower(tower, KINDS['lora']))
    state = dict(adapted.state_dict())
    for name in [n for n in state if n.endswith('lora_a')]:
        path, _ = name.rsplit('.', 1)
        a, b = state.pop(name), state.pop(f'{path}.lora_b')
        weight = f'{path}.in_proj_weight' if path.endswith('attn') else f'{path}.weight'
        state[weight] = state[weight] + 6 / 2 * b @ a
    summed = make_tower(tower)
    summed.load_state_dict(state)
    given = make_input(tower)
    expected, features = summed(given), adapted(given)
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)
    assert (features - make_tower(tower)(given)).abs().max() > 0.1


@torch.no_grad()
def test_a_merged_detector_predicts_the_same_with_the_weights_of_a_plain_one():
    model = make_model(KINDS['lora'], KINDS['lora of parts']).eval()
    batch = prepared(model, make_batch())
    before = model.predict(*copy.deepcopy(batch))
    merged = copy.deepcopy(model)
    merge_adapters(merged)
    assert not any(isinstance(module, LoRA) for module in merged.modules())
    plain = MODELS.build(model_config())
    plain.load_state_dict(merged.state_dict())
    for net in (merged, plain.eval()):
        for one, other in zip(before, net.predict(*copy.deepcopy(batch)), strict=True):
            torch.testing.assert_close(
                one.pred_instances.bboxes,
                other.pred_instances.bboxes,
                atol=32 * 1e-5,  # pixels of a padded input of 32
                rtol=0,
            )


def gradients(model, batch, seed=1):
    model.zero_grad()
    torch.manual_seed(seed)
    sum(model.train().loss(*copy.deepcopy(batch)).values()).backward()
    return {n: p.grad for n, p in model.named_parameters() if p.requires_grad}


NO_GRADIENT_ENTERS = KINDS['last_blocks'], KINDS['lora of parts']
DROPPING = dict(KINDS['lora'], dropout=0.5)


@pytest.mark.parametrize('adapter', [*KINDS.values(), DROPPING])
def test_every_trained_weight_has_a_gradient_also_where_it_is_recomputed(adapter):
    model = make_model(adapter, adapter)
    batch = prepared(model, make_batch(), training=True)
    stored = gradients(model, batch)
    assert {n.split('.')[0] for n in stored} >= {'visual_encoder', 'text_encoder'}
    assert all(grad is not None for grad in stored.values())
    recomputed = []
    for tower in (model.visual_encoder, model.text_encoder):
        tower.with_cp = True
        for block in find_blocks(tower):
            block.register_forward_pre_hook(lambda *_: recomputed.append(1))
    for name, grad in gradients(model, batch).items():
        torch.testing.assert_close(grad, stored[name], atol=1e-6, rtol=1e-5)
    # Each of four blocks runs once, and once more where its input has a gradient: the
    # second ones, and the visual first one behind the bias of `ln_pre`.
    more = 0 if adapter in NO_GRADIENT_ENTERS else 2 + (adapter is KINDS['bias'])
    assert len(recomputed) == 4 + more


def test_dropout_is_of_training_and_of_the_adapter_alone():
    model = make_model(DROPPING)
    images = torch.randn(2, 3, 32, 32)
    tower = model.train().visual_encoder
    assert not torch.equal(tower(images), tower(images))
    tower = model.eval().visual_encoder
    assert torch.equal(tower(images), tower(images))
    # What is frozen keeps its statistics: it stays in eval mode.
    tower.vit.ln_pre = nn.BatchNorm1d(17).requires_grad_(False)
    assert not model.train().visual_encoder.vit.ln_pre.training
    assert tower.vit.transformer.resblocks[0].mlp.c_fc.training


@EACH
def test_bfloat16_trains_in_float32(adapter):
    model = make_model(adapter, adapter)
    batch = prepared(model, make_batch(), training=True)
    exact = gradients(model, batch)
    with torch.autocast('cpu', torch.bfloat16):
        rounded = gradients(model, batch)
    assert {grad.dtype for grad in rounded.values()} == {torch.float32}
    of_towers = [name for name in exact if 'encoder' in name]
    whole, near = (
        torch.cat([grads[name].flatten() for name in of_towers])
        for grads in (exact, rounded)
    )
    assert 0 < (near - whole).norm() < 0.3 * whole.norm()


def _steps_of(rank, folder):
    """One of two processes: two steps of each kind with DDP, which finds no unused."""
    torch.set_num_threads(1)  # OpenMP's threads are not there after a fork
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2')
    torch.distributed.init_process_group(
        'gloo', f'file://{folder}/rendezvous', rank=rank, world_size=2
    )
    weights = {}
    for name, adapter in KINDS.items():
        model = make_model(adapter, adapter, fusion=dict(dropout=0.0))
        wrapped = MMDistributedDataParallel(model, find_unused_parameters=False)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=0.1)
        torch.manual_seed(0)
        batch = make_batch()
        own = {key: items[rank::2] for key, items in batch.items()}
        for _ in range(2):  # the second waits for the gradients of all
            losses = wrapped(*prepared(model, own, training=True), mode='loss')
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
        weights[name] = torch.cat([p.detach().flatten() for p in trained])
    torch.save(weights, folder / f'{rank}.pt')
    torch.distributed.destroy_process_group()


def test_two_processes_end_with_the_same_weights(tmp_path):
    context = multiprocessing.get_context('fork')
    processes = [
        context.Process(target=_steps_of, args=(rank, tmp_path)) for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]
    one, other = (load_torch(tmp_path / f'{rank}.pt') for rank in (0, 1))
    for name, adapter in KINDS.items():
        assert torch.equal(one[name], other[name])
        model = make_model(adapter, adapter)
        first = [p.detach().flatten() for p in model.parameters() if p.requires_grad]
        assert not torch.equal(one[name], torch.cat(first))


@BOTH
def test_clip_is_loaded_strictly_below_an_adapter(tower, tmp_path):
    torch.manual_seed(1)
    clip = open_clip.CLIP(**ARCH)
    path = tmp_path / 'clip.pt'
    torch.save(clip.state_dict(), path)
    adapted = initialised(make_tower(tower, KINDS['lora'], pretrained=str(path)))
    own = clip.visual if tower is CLIPVisualEncoder else clip.transformer
    first = own.transformer if tower is CLIPVisualEncoder else own
    torch.testing.assert_close(
        find_blocks(adapted)[0].attn.in_proj_weight,
        first.resblocks[0].attn.in_proj_weight,
    )
    state = clip.state_dict()
    prefix = 'visual.transformer' if tower is CLIPVisualEncoder else 'transformer'
    state.pop(f'{prefix}.resblocks.0.mlp.c_fc.weight')
    torch.save(state, path)
    with pytest.raises(ValueError, match=r'c_fc\.weight'):
        initialised(make_tower(tower, KINDS['lora'], pretrained=str(path)))


@pytest.mark.parametrize(
    'adapter, found',
    [
        (dict(kind='dora'), "'dora'.*lora.*bias.*last_blocks"),
        (dict(rank=2), "kind=''"),
        (dict(kind='lora', rank=0), 'rank=0'),
        (dict(kind='lora', dropout=1.0), r'dropout=1\.0'),
        (dict(kind='lora', indices=[2]), r'\[2\].*0 to 1'),
        (dict(kind='lora', indices=[]), r'\[\].*0 to 1'),
        (dict(kind='lora', targets=['q_proj']), 'q_proj.*c_fc.*in_proj.*out_proj'),
        (dict(kind='last_blocks', number=3), 'number=3.*2 blocks'),
        (dict(kind='last_blocks', number=0), 'number=0.*2 blocks'),
    ],
)
def test_what_does_not_fit_the_tower_is_named(adapter, found):
    with pytest.raises(ValueError, match=found):
        CLIPTextEncoder(ARCH, adapter=adapter)


def test_a_tower_that_is_trained_whole_needs_no_adapter():
    with pytest.raises(ValueError, match='frozen=False'):
        CLIPTextEncoder(ARCH, adapter=KINDS['bias'], frozen=False)


def test_maps_that_are_read_and_not_called_get_no_lora():
    """nn.MultiheadAttention reads the weight of its output projection."""
    block = open_clip.transformer.ResidualAttentionBlock(16, 2).requires_grad_(False)
    adapt(nn.Sequential(block), kind='lora', rank=2)
    adapted = {
        name for name, module in block.named_modules() if isinstance(module, LoRA)
    }
    assert adapted == {'mlp.c_fc', 'mlp.c_proj'}


@pytest.mark.parametrize(
    'name, count, kind',
    [
        ('vit_tiny_patch16_224', 12, 'Block'),
        ('eva02_tiny_patch14_224', 12, 'EvaBlock'),
        ('convnext_atto', 4, 'ConvNeXtStage'),
    ],
)
def test_blocks_of_other_towers(name, count, kind):
    import timm

    with torch.device('meta'):
        blocks = find_blocks(timm.create_model(name))
    assert [type(block).__name__ for block in blocks] == [kind] * count


def test_blocks_of_a_tower_of_one_layer():
    arch = dict(ARCH, text_cfg=dict(ARCH['text_cfg'], layers=1))
    (block,) = find_blocks(CLIPTextEncoder(arch))
    assert sum(p.numel() for p in block.parameters()) > 1000
