"""CLIP's towers: open_clip's numbers, and weights that fit or are refused."""

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from projects.clip_vg.models import CLIPTextEncoder, CLIPVisualEncoder

from ..helpers.configs import ARCH
from ..helpers.models import initialised

TEXTS = ['left man', 'the dog behind the red car']


@pytest.fixture
def clip():
    return open_clip.CLIP(**ARCH).eval()


@pytest.fixture
def weights(tmp_path, clip):
    path = tmp_path / 'clip.safetensors'
    save_file({k: v.contiguous() for k, v in clip.state_dict().items()}, path)
    return str(path)


@torch.no_grad()
def test_visual_tokens_are_open_clips_intermediates(clip, weights):
    images = torch.randn(2, 3, 32, 32)
    encoder = initialised(
        CLIPVisualEncoder(ARCH, extract_layers=(0, 1), pretrained=weights)
    )
    out = clip.visual.forward_intermediates(
        images, indices=[0, 1], output_fmt='NLC', output_extra_tokens=True
    )
    expected = [
        torch.cat([cls, patches], 1)
        for cls, patches in zip(
            out['image_intermediates_prefix'], out['image_intermediates'], strict=True
        )
    ]
    torch.testing.assert_close(
        encoder(images), torch.cat(expected, -1), atol=1e-5, rtol=0
    )


@torch.no_grad()
def test_text_tokens_lead_to_open_clips_embedding(clip, weights):
    encoder = initialised(CLIPTextEncoder(ARCH, pretrained=weights))
    ids = encoder.tokenize(TEXTS)
    tokens = encoder(ids)
    pooled = tokens[torch.arange(2), ids.argmax(-1)]
    expected = clip.encode_text(open_clip.tokenize(TEXTS, context_length=12))
    torch.testing.assert_close(pooled, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_cutting_pads_changes_no_token():
    encoder = CLIPTextEncoder(ARCH).eval()
    cut = encoder.tokenize(TEXTS)
    whole = encoder.tokenizer(TEXTS)
    assert cut.shape[1] < whole.shape[1] == 12
    torch.testing.assert_close(
        encoder(cut), encoder(whole)[:, : cut.shape[1]], atol=1e-5, rtol=0
    )


def test_tokens_are_lower_cased_bpe():
    encoder = CLIPTextEncoder(ARCH)
    one, other = encoder.tokenize(['Left MAN', 'left man'])
    assert torch.equal(one, other)


def test_a_long_expression_is_cut_with_one_warning(monkeypatch):
    from projects.clip_vg.models import expression_tokenizer

    said = []
    monkeypatch.setattr(
        expression_tokenizer, 'print_log', lambda text, **_: said.append(text)
    )
    encoder = CLIPTextEncoder(ARCH)
    words = ' '.join(['dog'] * 200)
    for _ in range(3):
        ids = encoder.tokenize([words, 'cat'])
    assert ids.shape == (2, 12) and ids[0, -1] == ids[1].max()
    assert len(said) == 1 and '12 tokens' in said[0]


def test_last_layers_that_nothing_reads_are_not_kept():
    encoder = CLIPVisualEncoder(ARCH, extract_layers=(0,))
    assert len(encoder.vit.transformer.resblocks) == 1
    assert encoder.out_channels == 32


def test_positions_are_interpolated_for_another_image_size(weights):
    encoder = initialised(
        CLIPVisualEncoder(ARCH, (0, 1), pretrained=weights, image_size=48)
    )
    assert encoder.grid_size == (6, 6)
    assert encoder(torch.zeros(1, 3, 48, 48)).shape == (1, 37, 64)
    original = initialised(CLIPVisualEncoder(ARCH, (0, 1), pretrained=weights))
    rows = encoder.vit.positional_embedding[1:].mean(0)
    # Interpolation keeps the mean about where it was, and the class token exactly.
    assert torch.allclose(rows, original.vit.positional_embedding[1:].mean(0), atol=0.1)
    assert torch.equal(
        encoder.vit.positional_embedding[0], original.vit.positional_embedding[0]
    )


def test_unknown_names_and_layers_say_what_there_is():
    with pytest.raises(ValueError, match=r"no model 'ViT-B-17'.*ViT-B-16"):
        CLIPVisualEncoder('ViT-B-17')
    with pytest.raises(ValueError, match='0 to 1'):
        CLIPVisualEncoder(ARCH, extract_layers=(0, 3, 7, 11))


def test_weights_that_are_neither_file_nor_tag():
    with pytest.raises(ValueError, match=r"'openay' is neither a file.*openai"):
        initialised(CLIPTextEncoder('ViT-B-16-quickgelu', pretrained='openay'))


def test_weights_that_cannot_be_downloaded_say_the_way_out(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError('no route to host')

    monkeypatch.setattr(open_clip, 'download_pretrained', offline)
    from projects.clip_vg.checkpoints.clip_weights import resolve_weights

    with pytest.raises(ValueError, match=r'no route.*huggingface.co/.*pretrained=FILE'):
        resolve_weights('ViT-B-16-quickgelu', 'openai')


def test_weights_of_another_architecture_are_refused(weights):
    arch = dict(ARCH, vision_cfg=dict(ARCH['vision_cfg'], width=48))
    with pytest.raises(ValueError, match=r'clip\.safetensors is not the visual tower'):
        initialised(CLIPVisualEncoder(arch, extract_layers=(0, 1), pretrained=weights))


def test_a_damaged_weight_file_is_named(tmp_path):
    path = tmp_path / 'clip.pt'
    path.write_bytes(b'no weights')
    with pytest.raises(ValueError, match=r'clip\.pt cannot be read'):
        initialised(CLIPTextEncoder(ARCH, pretrained=str(path)))


def test_a_template_is_asked_around_the_expression():
    plain = CLIPTextEncoder(ARCH)
    asked = CLIPTextEncoder(ARCH, template='find the {}')
    assert torch.equal(asked.tokenize(['dog']), plain.tokenize(['find the dog']))
    with pytest.raises(ValueError, match='one {}'):
        CLIPTextEncoder(ARCH, template='find')


@torch.no_grad()
def test_a_prompt_that_starts_as_words_is_these_words():
    torch.manual_seed(1)
    plain = CLIPTextEncoder(ARCH).eval()
    prompted = CLIPTextEncoder(ARCH, prompt=dict(init='find the')).eval()
    prompted.load_state_dict(plain.state_dict(), strict=False)
    words = plain.transformer.token_embedding(
        torch.tensor(plain.tokenizer.encode('find the'))
    )
    prompted.prompt.copy_(words)
    torch.testing.assert_close(
        prompted(prompted.tokenize(TEXTS)),
        plain(plain.tokenize([f'find the {text}' for text in TEXTS])),
    )


@pytest.mark.parametrize(
    ('prompt', 'shape'),
    [
        (dict(length=3), (3, 24)),
        (dict(length=3, per_position=False), (1, 24)),
        (dict(init='a photo of'), (3, 24)),
        (dict(init='a photo of', per_position=False), (1, 24)),
    ],
)
def test_a_prompt_learns_through_the_frozen_tower(prompt, shape):
    encoder = CLIPTextEncoder(ARCH, prompt=prompt).train()
    assert encoder.prompt.shape == shape
    assert [n for n, p in encoder.named_parameters() if p.requires_grad] == ['prompt']
    before = encoder.prompt.detach().clone()
    optimizer = torch.optim.SGD([encoder.prompt], lr=0.1)
    for _ in range(2):
        encoder(encoder.tokenize(TEXTS)).square().sum().backward()
        assert encoder.prompt.grad.abs().min() > 0
        optimizer.step()
    assert (encoder.prompt - before).abs().max() > 1e-4


def test_a_prompt_leaves_its_room_to_the_expression():
    encoder = CLIPTextEncoder(ARCH, prompt=dict(length=4))
    ids = encoder.tokenize([' '.join(['dog'] * 50)])
    assert ids.shape == (1, 12)
    assert ids[0, -1] == encoder.tokenizer.eot_token_id
    with pytest.raises(ValueError, match='10 vectors; expected 1 to 9'):
        CLIPTextEncoder(ARCH, prompt=dict(length=10))


@torch.no_grad()
def test_maps_are_the_patches_where_they_lie():
    """As a backbone of MMDetection: a tuple of (B, C, rows, columns)."""
    tokens = CLIPVisualEncoder(ARCH, (0, 1)).eval()
    backbone = CLIPVisualEncoder(ARCH, (0, 1), out_maps=True).eval()
    backbone.load_state_dict(tokens.state_dict())
    images = torch.randn(2, 3, 32, 32)
    maps, rows = backbone(images), tokens(images)[:, 1:]
    assert len(maps) == 2 and backbone.out_channels == 32
    for number, layer in enumerate(maps):
        assert layer.shape == (2, 32, 4, 4)
        channels = slice(32 * number, 32 * (number + 1))
        for row, column in ((0, 0), (1, 3), (3, 2)):
            assert torch.equal(
                layer[:, :, row, column], rows[:, 4 * row + column, channels]
            )
