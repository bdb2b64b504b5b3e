"""The fusion's two ways through its last layer, and what may be read."""

import pytest
import torch
from mmdet.registry import MODELS
from open_clip.pos_embed import get_2d_sincos_pos_embed

from projects.clip_vg.models.fusion import FusionLayer, gather_tokens, valid_tokens

E, B, GRID, LENGTH, D = 5, 3, (3, 3), 4, 16


@pytest.fixture(params=[1, 3])
def fusion(request):
    fusion = MODELS.build(
        dict(
            type='VisionLanguageFusion',
            visual_channels=24,
            text_channels=12,
            grid_size=GRID,
            context_length=7,
            embed_dims=D,
            num_layers=request.param,
            num_heads=4,
            feedforward_channels=32,
            dropout=0.0,
        )
    )
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return fusion.eval()


@pytest.fixture(params=['both', 'text', 'patches', 'equal patches', 'none'])
def asked(request):
    """What is padded; of an equal number of patches none is left that is."""
    patch_padding = torch.zeros(B, 9, dtype=torch.bool)
    text_padding = torch.zeros(E, LENGTH, dtype=torch.bool)
    if request.param in ('both', 'patches'):
        patch_padding = torch.rand(B, 9) < torch.tensor([[0.2], [0.8], [0.4]])
    if request.param == 'equal patches':
        patch_padding = torch.rand(B, 9).argsort(1) < 4
    if request.param in ('both', 'text'):
        text_padding = torch.arange(LENGTH) >= torch.tensor([4, 3, 2, 4, 2])[:, None]
    index = torch.tensor([0, 0, 1, 2, 2])
    return (
        torch.randn(B, 10, 24),
        patch_padding,
        torch.randn(E, LENGTH, 12),
        text_padding,
        index,
    )


def test_evaluation_answers_as_training_without_dropout(fusion, asked):
    torch.testing.assert_close(
        fusion(*asked), fusion.train()(*asked), atol=1e-5, rtol=1e-5
    )


@torch.no_grad()
def test_what_may_be_read_can_be_added_to_logits(fusion, asked):
    visual, patch_padding, text, text_padding, index = asked
    kept, filling = valid_tokens(patch_padding)
    image = fusion.image_part(gather_tokens(visual, kept), kept)
    masked = torch.cat(
        [torch.zeros(E, 1, dtype=torch.bool), text_padding, filling[index]], 1
    )[:, None, None]
    added = fusion.expression_part(image, text, masked * -1e9, index)
    torch.testing.assert_close(added, fusion(*asked), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_is_masked_changes_nothing(fusion, asked):
    visual, patch_padding, text, text_padding, index = asked
    other_visual, other_text = visual.clone(), text.clone()
    other_visual[:, 1:][patch_padding] = 9.0
    other_text[text_padding] = 9.0
    torch.testing.assert_close(
        fusion(other_visual, patch_padding, other_text, text_padding, index),
        fusion(*asked),
        atol=1e-5,
        rtol=1e-5,
    )


@pytest.fixture
def layer():
    """A layer of which training drops everything that it may."""
    layer = FusionLayer(D, 4, 32, dropout=1.0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return layer.train()


def test_training_drops_both_branches(layer):
    tokens, q, k, v = torch.randn(4, E, LENGTH, D)
    torch.testing.assert_close(
        layer(tokens, q, k, v, None), layer.norm2(layer.norm1(tokens))
    )


def test_training_drops_weights_of_attention(layer, monkeypatch):
    monkeypatch.setattr(torch.nn.functional, 'dropout', lambda x, *_: x)
    tokens, q, k, v = torch.randn(4, E, LENGTH, D)
    torch.testing.assert_close(
        layer(tokens, q, k, v, None), layer(tokens, q, k, v + 1, None)
    )
    layer.eval()
    assert not torch.allclose(
        layer(tokens, q, k, v, None), layer(tokens, q, k, v + 1, None)
    )


def test_projections_start_as_parts_of_one_matrix():
    """Xavier of a (3D, D) matrix, as in the official code, not of a (D, D) one."""
    layer = FusionLayer(64, 4, 32, dropout=0.0)
    layer.init_weights()
    for projection in (layer.q_proj, layer.k_proj, layer.v_proj):
        bound = (6 / (64 + 3 * 64)) ** 0.5
        assert 0.95 * bound < projection.weight.abs().max() <= bound


def test_positions_that_start_as_waves_are_those_of_the_patches():
    fusion = MODELS.build(
        dict(
            type='VisionLanguageFusion',
            visual_channels=24,
            text_channels=64,
            grid_size=(5, 5),
            context_length=7,
            num_layers=1,
            pos_embed_init='sin_cos_2d',
        )
    )
    fusion.init_weights()
    patches = fusion.pos_embed.weight.detach()[-25:]
    waves = torch.from_numpy(get_2d_sincos_pos_embed(64, 5)).float()
    assert (patches - waves).std() < 0.03  # as the rest starts
    assert fusion.pos_embed.weight[:-25].std() < 0.03 < waves.std()


def test_valid_tokens_are_the_class_token_and_the_image_in_order():
    padding = torch.tensor([[1, 0, 0, 1], [0, 1, 1, 1]], dtype=torch.bool)
    kept, filling = valid_tokens(padding)
    assert kept[0].tolist() == [0, 2, 3] and kept[1, :2].tolist() == [0, 1]
    assert filling.tolist() == [[False] * 3, [False, False, True]]
    tokens = torch.arange(10).view(2, 5, 1)
    assert gather_tokens(tokens, kept)[0, :, 0].tolist() == [0, 2, 3]
    assert gather_tokens(tokens, kept)[1, 0, 0] == 5


def test_autocast_keeps_the_residual_stream_in_float32():
    layer = FusionLayer(16, num_heads=2, feedforward_channels=32, dropout=0.1).eval()
    for linear in (layer.out_proj, layer.linear2):
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
    tokens = torch.randn(2, 5, 16)
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        answer = layer(tokens, *layer.project(tokens, tokens), None)
    expected = layer.norm2(layer.norm1(tokens))
    torch.testing.assert_close(answer, expected, rtol=1e-5, atol=1e-5)
