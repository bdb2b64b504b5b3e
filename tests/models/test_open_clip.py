"""What is relied upon of open_clip beside what it documents; see setup.py."""

import inspect

import open_clip
import pytest
import torch
from open_clip import model as source

from projects.clip_vg.models.clip_tower import build_tower, clip_config

from ..helpers.configs import ARCH


@pytest.mark.parametrize(
    ('name', 'config'),
    [('_build_vision_tower', 'vision_cfg'), ('_build_text_tower', 'text_cfg')],
)
def test_builders_take_a_part_of_the_config(name, config):
    parameters = list(inspect.signature(getattr(source, name)).parameters)
    assert parameters[:3] == ['embed_dim', config, 'quick_gelu']


@pytest.mark.parametrize('kind', ['visual', 'text'])
def test_a_tower_is_that_of_a_whole_clip(kind):
    config = clip_config(ARCH)
    whole = getattr(open_clip.CustomTextCLIP(**config), kind)
    tower = build_tower(kind, config)
    assert repr(tower) == repr(whole)
    assert repr(tower) == repr(whole)
    tower.load_state_dict(whole.state_dict())
    blocks = tower.transformer.resblocks
    assert len(blocks) == 2
    for block in blocks:
        assert {'in_proj_weight', 'out_proj.weight'} <= {
            name for name, _ in block.attn.named_parameters()
        }
        assert {'c_fc', 'gelu', 'c_proj'} <= set(dict(block.mlp.named_children()))


@torch.no_grad()
def test_embeds_are_class_token_and_patches_at_their_places():
    vit = build_tower('visual', clip_config(ARCH))
    images = torch.randn(2, 3, 32, 32)
    patches = vit.conv1(images).flatten(2).transpose(1, 2)
    first = vit.class_embedding.expand(2, 1, -1)
    placed = torch.cat([first, patches], 1) + vit.positional_embedding
    torch.testing.assert_close(vit._embeds(images), vit.ln_pre(placed))
    assert vit.grid_size == (4, 4) and vit.image_size == (32, 32)


def test_the_text_tower_has_what_its_forward_is_made_of():
    tower = build_tower('text', clip_config(ARCH))
    assert tower.positional_embedding.shape == (12, 24)
    assert tower.token_embedding.weight.shape == (49408, 24)
    assert tower.attn_mask.shape == (12, 12) and 'attn_mask' not in tower.state_dict()
    assert tower.text_projection.shape == (24, 16) and tower.output_dim == 16
    assert tower.context_length == 12 and tower.vocab_size == 49408
