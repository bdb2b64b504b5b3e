"""Released checkpoints of any dimensions: read whole, strictly, and written back."""

import argparse
import re

import open_clip
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import nn

from projects.clip_vg.checkpoints.official_layout import (
    describe_model,
    from_official,
    to_official,
)
from projects.clip_vg.compat import load_from_local
from projects.clip_vg_core.utils.safe_torch import load_torch

from ..helpers import ROOT
from ..helpers.commands import run_script

# Other dimensions than any real model's: 6 blocks seen, 3 read (0, 2, 5); vision
# twice as wide as the text, and the fusion as wide as neither.
WIDTH, TEXT, HIDDEN, GRID, PATCH, CONTEXT = 128, 64, 48, 5, 8, 20


def linear(prefix, rows, columns):
    return {
        f'{prefix}.weight': torch.randn(rows, columns),
        f'{prefix}.bias': torch.randn(rows),
    }


def released(dtype=torch.float16):
    """``model`` of a checkpoint as the release names and stores it."""
    clip = open_clip.CLIP(
        embed_dim=32,
        quick_gelu=True,
        vision_cfg=dict(
            image_size=GRID * PATCH, patch_size=PATCH, width=WIDTH, layers=6
        ),
        text_cfg=dict(
            context_length=CONTEXT, vocab_size=49408, width=TEXT, heads=1, layers=2
        ),
    )
    state = {f'clip.{name}': value for name, value in clip.state_dict().items()}
    for name in list(state):
        if name.startswith('clip.visual.'):
            tower = name.replace('clip.visual.', 'image_encoder_clip_vg.')
        else:
            tower = name.replace('clip.', 'text_encoder_clip_vg.')
        if not name.endswith('logit_scale'):
            state[tower] = state[name]
    state.update(linear('visu_proj', HIDDEN, 32))
    state.update(linear('ml_visu_proj', HIDDEN, 3 * WIDTH))
    state.update(linear('text_proj', HIDDEN, 32))
    state['reg_token.weight'] = torch.randn(1, HIDDEN)
    state['vl_pos_embed.weight'] = torch.randn(2 + CONTEXT + GRID**2, HIDDEN)
    layer = nn.TransformerEncoderLayer(HIDDEN, 4, 56)
    for i in range(2):
        for name, value in layer.state_dict().items():
            state[f'vl_transformer.encoder.layers.{i}.{name}'] = torch.randn_like(value)
    for i, rows in enumerate((HIDDEN, HIDDEN, 4)):
        state.update(linear(f'bbox_embed.layers.{i}', rows, HIDDEN))
    return {name: value.detach().to(dtype) for name, value in state.items()}


def test_every_dimension_is_read_off_the_weights():
    ours, unused = from_official(released())
    model = describe_model(ours, num_heads=4)
    arch = model['visual_encoder']['arch']
    assert arch['vision_cfg']['image_size'] == GRID * PATCH
    assert arch['vision_cfg']['head_width'] == 64
    assert model['visual_encoder']['extract_layers'] == (0, 2, 5)
    assert model['fusion']['embed_dims'] == HIDDEN
    cfg = Config.fromfile(ROOT / 'configs/clip_vg_refcoco.py').model
    for part, options in model.items():
        cfg[part].update(options)
    MODELS.build(cfg).load_state_dict(ours)  # strict
    assert {v.dtype for v in ours.values()} == {torch.float32}
    assert sorted(unused)[:2] == [
        'clip.logit_scale',
        'image_encoder_clip_vg.ln_post.bias',
    ]


@pytest.mark.parametrize(
    ('depth', 'expected'), [(12, (0, 3, 7, 11)), (24, (0, 7, 15, 23))]
)
def test_extracted_layers_are_the_releases(depth, expected):
    """B and L models of the release (method, section 1)."""
    ours, _ = from_official(released())
    block = {k: v for k, v in ours.items() if 'vit.transformer.resblocks.0.' in k}
    for i in range(depth):
        ours.update(
            {k.replace('blocks.0.', f'blocks.{i}.'): v for k, v in block.items()}
        )
    ours['fusion.visual_proj.weight'] = torch.zeros(HIDDEN, 4 * WIDTH)
    assert describe_model(ours)['visual_encoder']['extract_layers'] == expected


@pytest.mark.parametrize('dtype', [torch.float16, torch.float32])
def test_the_round_trip_is_exact(dtype):
    original = released(dtype)
    ours, unused = from_official(original)
    back = to_official(ours, unused, dtype)
    assert set(back) == set(original)
    assert all(torch.equal(back[name], value) for name, value in original.items())


def test_the_prefix_of_distributed_training_is_dropped():
    original = released()
    prefixed = {f'module.{name}': value for name, value in original.items()}
    plain, wrapped = from_official(original)[0], from_official(prefixed)[0]
    assert plain.keys() == wrapped.keys()


def test_an_entry_too_many_is_named():
    with pytest.raises(ValueError, match='1 of .* no counterpart.*surprise'):
        from_official(dict(released(), surprise=torch.zeros(1)))


def test_a_copy_that_is_none_is_named():
    state = released()
    state['clip.visual.conv1.weight'] = state['clip.visual.conv1.weight'] + 1
    with pytest.raises(ValueError, match=r'clip\.visual\.conv1\.weight'):
        from_official(state)


def run_tool(*args):
    return run_script('tools/model_converters/official_clip_vg.py', *args)


def save(tmp_path, model, **extra):
    args = argparse.Namespace(vl_nheads=4, vl_dropout=0.2)
    torch.save(dict(model=model, args=args, epoch=7, **extra), tmp_path / 'src.pth')
    return tmp_path / 'src.pth', tmp_path / 'dst.pth'


def test_the_command_there_and_back(tmp_path):
    original = released()
    src, dst = save(tmp_path, original, optimizer={})
    done = run_tool(src, dst)
    assert done.returncode == 0, done.stderr
    meta = load_from_local(str(dst), 'cpu')['meta']
    cfg = Config.fromstring(meta['cfg'], '.py')
    assert (cfg.model.fusion.num_heads, cfg.model.fusion.dropout) == (4, 0.2)
    sizes = re.findall(r"size=(\d+),\s+type='Letterbox'", meta['cfg'])
    assert set(sizes) == {str(GRID * PATCH)}
    assert run_tool(dst, tmp_path / 'back.pth', '--reverse').returncode == 0
    back = load_torch(tmp_path / 'back.pth')
    assert all(torch.equal(back['model'][n], v) for n, v in original.items())
    assert back['epoch'] == 7
    assert 'FileExistsError' in run_tool(src, dst).stderr


@pytest.mark.parametrize(
    ('change', 'found'),
    [
        (lambda c: c['model'].update({'reg_token.weight': [1.0]}), 'reg_token.weight'),
        (
            lambda c: c['model'].update({'reg_token.weight': torch.ones(1).int()}),
            'int32',
        ),
        (lambda c: c['model'].update({'reg_token.weight': torch.ones(1) / 0}), 'NaN'),
        (lambda c: c['model'].update({3: torch.ones(1)}), '3'),
        (lambda c: c.update(args=argparse.Namespace(vl_nheads='x')), 'vl_nheads'),
        (lambda c: c.update(model=[1]), 'model'),
        (lambda c: c.update(model={}), '0 of 0'),
    ],
)
def test_malformed_parts_are_named(tmp_path, change, found):
    checkpoint = dict(model=released(), args=argparse.Namespace())
    change(checkpoint)
    torch.save(checkpoint, tmp_path / 'src.pth')
    done = run_tool(tmp_path / 'src.pth', tmp_path / 'dst.pth')
    assert done.returncode
    assert f'ValueError: {tmp_path}/src.pth' in done.stderr
    assert found in done.stderr.splitlines()[-1]
    assert not (tmp_path / 'dst.pth').exists()


def drop(pattern):
    return {n: v for n, v in released().items() if not re.search(pattern, n)}


@pytest.mark.parametrize(
    ('model', 'message'),
    [
        (lambda: drop('ml_visu_proj.bias'), 'src.pth does not fit.*visual_proj.bias'),
        (lambda: drop('vl_pos_embed'), 'src.pth: no entry for fusion.pos_embed'),
        (lambda: {'backbone.weight': torch.ones(1)}, 'src.pth: .*official'),
        (lambda: None, 'src.pth .*"model"'),
    ],
)
def test_wrong_files_are_named_and_leave_nothing(tmp_path, model, message):
    src, dst = save(tmp_path, model())
    done = run_tool(src, dst)
    assert done.returncode and re.search(message, done.stderr, re.DOTALL), done.stderr
    assert not dst.exists()
