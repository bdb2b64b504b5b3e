"""Families of CLIP's towers: open_clip's features, and every architecture it has."""

import json
import logging
import re
import string
import sys
from collections import Counter

import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from projects.clip_vg.checkpoints.clip_weights import trained_normalization
from projects.clip_vg.models import (
    CLIPTextEncoder,
    CLIPVisualEncoder,
    GroundingDataPreprocessor,
    clip_encoders,
)
from projects.clip_vg_core.runtime.tokenizer import load_tokenizer

from ..helpers.configs import ARCH
from ..helpers.models import initialised, make_sample
from ..helpers.shrink import shrink_timm, small_arch, small_detector

# One architecture of each family: its towers differ from those of all others.
VISUAL = {
    'ViT': 'ViT-M-16-alt',
    'CLIPA': 'ViT-L-14-CLIPA',
    'CoCa': 'coca_ViT-B-32',
    'ModifiedResNet': 'RN50x4-quickgelu',
    'SigLIP': 'ViT-SO400M-14-SigLIP',
    'EVA01': 'EVA01-g-14',
    'EVA02': 'EVA02-B-16',
    'PE-Core': 'PE-Core-B-16',
    'PE-Core without a class token': 'PE-Core-bigG-14-448',
    'MobileCLIP-B': 'MobileCLIP-B',
    'MobileCLIP-S, four stages': 'MobileCLIP-S1',
    'MobileCLIP-S, five stages': 'MobileCLIP2-S3',
    'ConvNeXt': 'convnext_large_d',
    'Swin': 'swin_base_patch4_window7_224',
    'ViTamin': 'ViTamin-L-336',
    'relative positions': 'vit_relpos_medium_patch16_cls_224',
    'average pooling': 'vit_medium_patch16_gap_256',
}
TEXT = {
    'causal': 'ViT-B-16-quickgelu',
    'causal, another vocabulary': 'ViT-L-14-worldwide',
    'CoCa': 'coca_ViT-B-32',
    'not causal': 'MobileCLIP2-S0',
    'not causal, another vocabulary': 'ViT-B-16-SigLIP2',
    'CLIPA': 'ViT-L-14-CLIPA',
    'without a projection': 'ViT-SO400M-16-SigLIP-i18n-256',
    'RoBERTa': 'coca_roberta-ViT-B-32',
    'XLM-RoBERTa': 'xlm-roberta-base-ViT-B-32',
    'mT5': 'mt5-base-ViT-B-32',
    'NLLB': 'nllb-clip-base',
}
TEXTS = ['left man', 'the dog behind the red car', 'a']


@pytest.fixture(autouse=True)
def small(monkeypatch):
    shrink_timm(monkeypatch)


def open_clip_of(arch, tmp_path):
    """A CLIP of open_clip, and the file of its weights, none of which is 0."""
    vision = dict(arch['vision_cfg'], output_tokens=False)
    text = dict(arch['text_cfg'], output_tokens=False, hf_model_pretrained=False)
    clip = open_clip.CustomTextCLIP(
        arch['embed_dim'], vision, text, arch.get('quick_gelu', False)
    ).eval()
    if vision.get('timm_model_name') and hasattr(clip.visual.trunk, 'set_input_size'):
        clip.visual.set_input_size(vision['image_size'])
    generator = torch.Generator().manual_seed(0)
    for name, value in clip.state_dict().items():
        if value.is_floating_point():
            noise = 0.02 * torch.randn(value.shape, generator=generator)
            value += noise.abs() if name.endswith('running_var') else noise
    path = tmp_path / 'clip.safetensors'
    save_file({k: v.contiguous() for k, v in clip.state_dict().items()}, path)
    return clip, str(path)


@pytest.mark.parametrize('family', VISUAL)
def test_visual_tokens_are_those_of_open_clips_forward(family, folders, tmp_path):
    arch = small_arch(VISUAL[family], folders)
    clip, path = open_clip_of(arch, tmp_path)
    encoder = initialised(CLIPVisualEncoder(arch, pretrained=path)).eval()
    images = torch.randn(2, 3, *encoder.image_size)
    layers = list(encoder.extract_layers)
    with torch.no_grad():
        tokens = encoder(images)
        kind = dict(output_extra_tokens=True) if encoder.class_token != 'none' else {}
        expected = clip.visual.forward_intermediates(images, layers, **kind)
        # The intermediate features are of the pass that the embedding is of.
        embedding = clip.visual(images)
        alone = torch.cat([encoder(image[None]) for image in images])
    torch.testing.assert_close(expected['image_features'], embedding)
    torch.testing.assert_close(tokens, alone, atol=1e-5, rtol=1e-5)
    rows, columns = encoder.grid_size
    classes = int(encoder.class_token != 'none')
    assert tokens.shape == (2, classes + rows * columns, encoder.out_channels)
    channels = 0
    for number, level in enumerate(expected['image_intermediates']):
        part = tokens[..., channels : channels + level.shape[1]]
        channels += level.shape[1]
        patches = part[:, classes:].transpose(1, 2).unflatten(2, encoder.grid_size)
        upsampled = nn.functional.interpolate(level, (rows, columns), mode='bilinear')
        torch.testing.assert_close(patches, upsampled, atol=1e-5, rtol=1e-5)
        if classes:
            prefix = expected['image_intermediates_prefix'][number]
            torch.testing.assert_close(part[:, :1], prefix[:, :1])
    assert channels == encoder.out_channels


def pooled_of(clip, text, tokens, ids):
    """What open_clip makes of all tokens of a text: its embedding."""
    if text.get('hf_pooler_type') == 'cls_pooler':
        return tokens[:, 0]
    if text.get('hf_model_name'):
        mask = (ids >= 0)[..., None]
        return (tokens * mask).sum(1) / mask.sum(1)
    if text.get('pool_type') == 'last':
        return tokens[:, -1]
    if text.get('pool_type') == 'eos':
        end = (ids == text['eos_id']).int().argmax(-1)
    else:
        end = ids.argmax(-1)
    return tokens[torch.arange(len(ids)), end]


@pytest.mark.parametrize('family', [family for family in TEXT if family != 'CoCa'])
def test_text_tokens_lead_to_open_clips_embedding(family, folders, tmp_path):
    arch = small_arch(TEXT[family], folders)
    text = arch['text_cfg']
    if 'eos_id' in text:
        text['eos_id'] = 1  # of the tiny tokenizer
    if text.get('hf_model_name'):
        # Then the projection of a mean is the mean of projections.
        text['hf_proj_type'] = 'linear'
    clip, path = open_clip_of(arch, tmp_path)
    encoder = initialised(CLIPTextEncoder(arch, pretrained=path)).eval()
    ids = encoder.tokenize(TEXTS)
    length = text.get('context_length', 77)
    filled = nn.functional.pad(ids, (0, length - ids.shape[1]), value=encoder.fill_id)
    if 'hf_tokenizer_name' in text:
        options = text.get('tokenizer_kwargs', {})
        theirs = open_clip.tokenizer.HFTokenizer(
            text['hf_tokenizer_name'], length, **options
        )(TEXTS)
    else:
        theirs = open_clip.tokenize(TEXTS, length)
    assert torch.equal(theirs, filled.clamp(min=0))  # 0 is what the tiny one fills with
    with torch.no_grad():
        tokens = encoder(filled)
        pooled = pooled_of(clip, text, tokens, filled)
        torch.testing.assert_close(pooled, clip.encode_text(theirs))
        # Neither cutting nor other texts of a batch change a token.
        cut = tokens[:, : ids.shape[1]]
        torch.testing.assert_close(encoder(ids), cut, atol=1e-5, rtol=1e-5)
        for row, own in enumerate(TEXTS):
            alone = encoder(encoder.tokenize([own]))[0]
            torch.testing.assert_close(
                alone, cut[row, : len(alone)], atol=1e-5, rtol=1e-5
            )


@torch.no_grad()
def test_cocas_text_tokens_are_those_of_its_own_forward(folders, tmp_path):
    arch = small_arch(TEXT['CoCa'], folders)
    clip, path = open_clip_of(arch, tmp_path)
    encoder = initialised(CLIPTextEncoder(arch, pretrained=path)).eval()
    texts = [*TEXTS, 'red !"! box']  # "!" may have the id of the filling
    theirs = open_clip.tokenize(texts, 76)
    clip.text.output_tokens = True
    _, hidden = clip.text(theirs)
    ids = encoder.tokenize(texts)
    expected = clip.text.ln_final(hidden) @ clip.text.text_projection
    tokens = encoder(ids)
    for row, length in enumerate((ids != 0).sum(1).tolist()):
        torch.testing.assert_close(tokens[row, :length], expected[row, :length])


def trains_and_predicts(model):
    """Make a training and a prediction step; whether both are finite."""
    height, width = model.visual_encoder.image_size
    images = torch.randn(2, 3, height, width)
    samples = [
        make_sample((0, 0, width, height), ['left man', 'dog']),
        make_sample((0, 4, width, height - 8), 'the big red bus behind the tree'),
    ]
    for sample in samples:
        shape = (height, width)
        sample.set_metainfo(dict(img_shape=shape, batch_input_shape=shape))
    losses = model.train().loss(images, samples)
    sum(losses.values()).backward()
    gradients = [
        parameter.grad.isfinite().all() for parameter in model.fusion.parameters()
    ]
    with torch.no_grad():
        predicted = model.eval().predict(images, samples)
    boxes = [sample.pred_instances.bboxes for sample in predicted]
    assert [len(own) for own in boxes] == [2, 1]
    return all(gradients) and all(own.isfinite().all() for own in boxes)


def test_every_architecture_of_open_clip_trains_and_predicts(folders):
    """By its config alone, narrow and shallow; those that become equal, once."""
    logging.disable(logging.WARNING)
    done, families = {}, Counter()
    try:
        for name in open_clip.list_models():
            arch = small_arch(name, folders)
            key = json.dumps(arch, sort_keys=True)
            if key not in done:
                done[key] = trains_and_predicts(small_detector(arch))
            families[done[key]] += 1
    finally:
        logging.disable(logging.NOTSET)
    assert families[False] == 0
    # open_clip 3.3.0 has 144; at least 120 must do.
    assert families[True] == len(open_clip.list_models()) >= 120


@pytest.mark.parametrize(
    ('encoder_class', 'name'),
    [(CLIPVisualEncoder, name) for name in VISUAL.values()]
    + [(CLIPTextEncoder, name) for name in TEXT.values()],
)
def test_a_tower_that_is_trained_has_no_weight_without_a_gradient(
    encoder_class, name, folders
):
    """As DistributedDataParallel needs it; and recomputed, gradients are the same."""
    arch = small_arch(name, folders)
    gradients = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        encoder = encoder_class(arch, frozen=False, with_cp=with_cp).train()
        if encoder_class is CLIPVisualEncoder:
            inputs = torch.randn(2, 3, *encoder.image_size)
        else:
            inputs = encoder.tokenize([' '.join(string.ascii_lowercase), 'a'])
        tokens = encoder(inputs)
        (tokens * torch.randn(tokens.shape)).sum().backward()
        trained = {n: p.grad for n, p in encoder.named_parameters() if p.requires_grad}
        assert [n for n, gradient in trained.items() if gradient is None] == []
        gradients.append(trained)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize('family', ['ViT', 'SigLIP', 'EVA02', 'ModifiedResNet', 'Swin'])
@torch.no_grad()
def test_positions_of_a_file_and_of_a_checkpoint_fit_another_size(
    family, folders, tmp_path
):
    """A size that is no square, too."""
    arch = small_arch(VISUAL[family], folders)
    _, path = open_clip_of(arch, tmp_path)
    own = initialised(CLIPVisualEncoder(arch, pretrained=path)).eval()
    height, width = own.image_size
    size = (2 * height, 3 * width)
    wide = initialised(CLIPVisualEncoder(arch, pretrained=path, image_size=size))
    rows, columns = own.grid_size
    assert wide.grid_size == (2 * rows, 3 * columns)
    images = torch.randn(1, 3, *size)
    tokens = wide.eval()(images)
    assert tokens.shape[1] == 6 * rows * columns + (own.class_token != 'none')
    loaded = CLIPVisualEncoder(arch, image_size=size).eval()
    loaded.load_state_dict(own.state_dict())
    torch.testing.assert_close(loaded(images), tokens)


@torch.no_grad()
def test_a_class_token_can_be_pooled_or_left_out(folders):
    arch = small_arch(VISUAL['ViT'], folders)
    encoders = {
        kind: CLIPVisualEncoder(arch, class_token=kind).eval()
        for kind in ('prefix', 'pooled', 'none')
    }
    for encoder in encoders.values():
        encoder.load_state_dict(encoders['prefix'].state_dict())
    images = torch.randn(2, 3, *encoders['none'].image_size)
    tokens = {kind: encoder(images) for kind, encoder in encoders.items()}
    patches = tokens['none']
    assert torch.equal(tokens['prefix'][:, 1:], patches)
    torch.testing.assert_close(
        tokens['pooled'], torch.cat([patches.mean(1, keepdim=True), patches], 1)
    )


@torch.no_grad()
def test_positions_of_the_fusion_fit_another_size_without_a_class_token(folders):
    arch = small_arch(VISUAL['SigLIP'], folders)
    small, large = small_detector(arch), small_detector(arch, image_size=112)
    large.load_state_dict(small.state_dict())
    before, after = small.fusion.pos_embed.weight, large.fusion.pos_embed.weight
    count = 1 + small.text_encoder.context_length
    assert torch.equal(before[:count], after[:count])
    rows = before[count:].T.unflatten(1, small.visual_encoder.grid_size)[None]
    expected = nn.functional.interpolate(
        rows, (8, 8), mode='bicubic', antialias=True, align_corners=False
    )
    torch.testing.assert_close(after[count:].T, expected[0].flatten(1))


DINO = {
    'vit_small_patch14_reg4_dinov2': 56,
    'vit_small_patch16_dinov3': 64,
}


@pytest.mark.parametrize('name', DINO)
@torch.no_grad()
def test_a_model_of_timm_is_a_visual_tower(name, tmp_path):
    """With a file of timm's own; and registers are no tokens of the fusion."""
    trunk = timm.create_model(name, num_classes=0).eval()
    save_file(trunk.state_dict(), tmp_path / 'model.safetensors')
    size = DINO[name]
    vision = dict(timm_model_name=name, timm_pool='token', timm_proj='none')
    arch = dict(embed_dim=32, vision_cfg=dict(vision, image_size=size), text_cfg={})
    path = str(tmp_path / 'model.safetensors')
    encoder = initialised(CLIPVisualEncoder(arch, (0, 2), path)).eval()
    assert encoder.grid_size == (4, 4) and encoder.out_channels == 64
    trunk.set_input_size((size, size))
    images = torch.randn(2, 3, size, size)
    levels = trunk.forward_intermediates(
        images,
        [0, 2],
        intermediates_only=True,
        output_fmt='NLC',
        return_prefix_tokens=True,
    )
    assert levels[0][1].shape[1] == 5
    expected = [torch.cat([prefix[:, :1], rows], 1) for rows, prefix in levels]
    torch.testing.assert_close(encoder(images), torch.cat(expected, -1))


@pytest.mark.parametrize(
    ('family', 'options', 'value'),
    [
        ('SigLIP', dict(class_token='prefix'), "'prefix'"),
        ('ModifiedResNet', dict(train_pos_embed=True), 'train_pos_embed'),
        ('ModifiedResNet', dict(image_size=80), '[16, 32]'),
    ],
)
def test_what_a_visual_tower_cannot_do_is_named(family, options, value, folders):
    arch = small_arch(VISUAL[family], folders)
    with pytest.raises(ValueError, match=re.escape(value)):
        CLIPVisualEncoder(arch, **options)


def test_what_a_text_tower_needs_is_named(folders, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match='hf download roberta-base'):
        CLIPTextEncoder('roberta-ViT-B-32')
    folder = folders('roberta-base')
    encoder = CLIPTextEncoder('roberta-ViT-B-32', hf_folder=folder)
    assert len(encoder.tokenize(['man'])[0]) == 4
    with pytest.raises(ValueError, match='template'):
        CLIPTextEncoder(small_arch('ViT-B-16-SigLIP', folders), prompt=dict(length=2))
    monkeypatch.setitem(sys.modules, 'transformers', None)
    with pytest.raises(ImportError, match=re.escape("'.[towers]'")):
        CLIPTextEncoder('roberta-ViT-B-32', hf_folder=folder)
    arch = dict(VISUAL_ONLY, vision_cfg=dict(timm_model_name='vit_of_tomorrow'))
    with pytest.raises(ValueError, match='vit_of_tomorrow'):
        CLIPVisualEncoder(arch)


VISUAL_ONLY = dict(embed_dim=16, text_cfg={})


@pytest.mark.parametrize('arch', ['ViT-B-16-SigLIP2', 'ViT-L-14-CLIPA'])
def test_a_saved_vocabulary_needs_no_package_but_tokenizers(
    arch, folders, tmp_path, monkeypatch
):
    tokenizer = CLIPTextEncoder(small_arch(arch, folders)).expression_tokenizer
    expected = tokenizer(TEXTS)
    options = json.loads(json.dumps(tokenizer.save(tmp_path)))
    monkeypatch.setitem(sys.modules, 'transformers', None)
    loaded = load_tokenizer(options, tmp_path)
    assert loaded.token_ids(TEXTS).tolist() == expected.tolist()
    lengths = loaded.lengths(expected.numpy())
    assert lengths.tolist() == tokenizer.lengths(expected.numpy()).tolist()
    with pytest.raises(ValueError, match='secret'):
        load_tokenizer(dict(options, source='../secret.json'), tmp_path)
    (tmp_path / 'tokenizer.json').unlink()
    with pytest.raises(FileNotFoundError, match=re.escape('tokenizer.json')):
        load_tokenizer(options, tmp_path)


def test_another_normalisation_than_that_of_the_weights_is_logged(monkeypatch):
    assert trained_normalization('ViT-B-16-SigLIP2', 'webli') == ([127.5] * 3,) * 2
    assert trained_normalization('MobileCLIP2-S2', 'a.pt') == ([0.0] * 3, [255.0] * 3)
    imagenet = [123.675, 116.28, 103.53]
    dino = dict(vision_cfg=dict(timm_model_name='vit_base_patch14_dinov2'))
    assert trained_normalization(dino, 'lvd142m')[0] == pytest.approx(imagenet)
    assert trained_normalization(dino, 'a.pt') is None
    lines = []
    monkeypatch.setattr(
        clip_encoders, 'print_log', lambda text, **_: lines.append(text)
    )
    encoder = CLIPVisualEncoder(ARCH)
    for arch, tag, expected in (
        ('ViT-B-16-quickgelu', 'openai', 1),
        (dino, 'lvd142m', 0),
        ('ViT-B-16-SigLIP2', 'webli', 1),
        ('ViT-B-16-SigLIP2', None, 0),
    ):
        encoder.arch, encoder.pretrained = arch, tag
        preprocessor = GroundingDataPreprocessor(imagenet, [58.395, 57.12, 57.375])
        lines.clear()
        encoder.log_normalization(preprocessor)
        assert len(lines) == expected
