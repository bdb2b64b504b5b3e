"""CLIP's weights from every kind of file, and never with the wrong activation."""

import json
from contextlib import nullcontext

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from projects.clip_vg.checkpoints import clip_weights
from projects.clip_vg.checkpoints.clip_weights import read_clip_weights
from projects.clip_vg.models import CLIPTextEncoder, CLIPVisualEncoder
from projects.clip_vg.models.clip_tower import load_clip_tower
from projects.clip_vg_core.utils.safe_pickle import UnsafePickleError

from ..helpers.configs import ARCH
from ..helpers.models import initialised


@pytest.fixture
def clip():
    return open_clip.CLIP(**ARCH).eval()


@pytest.fixture
def warned(monkeypatch):
    said = []
    monkeypatch.setattr(clip_weights, 'print_log', lambda text, **_: said.append(text))
    return said


class Archived(torch.nn.Module):
    """The tree of OpenAI's archive: weights, numbers, and code that is not ours."""

    def __init__(self, clip):
        super().__init__()
        for name, child in clip.named_children():
            setattr(self, name, child)
        self.positional_embedding = clip.positional_embedding
        self.text_projection = clip.text_projection
        self.logit_scale = clip.logit_scale
        self.register_buffer('input_resolution', torch.tensor(32))
        self.register_buffer('context_length', torch.tensor(12))
        self.register_buffer('vocab_size', torch.tensor(49408))

    def forward(self, x):
        return self.visual.ln_post(x)


def hugging_face(state):
    """Slow inverse of the conversion: open_clip's names to CLIPModel's."""
    out = {}
    for name, value in state.items():
        tower = 'vision_model' if name.startswith('visual.') else 'text_model'
        rest = name.removeprefix('visual.')
        if 'resblocks' in rest:
            rest = rest.replace('transformer.resblocks.', 'encoder.layers.')
            for ours, theirs in (
                ('ln_1', 'layer_norm1'),
                ('ln_2', 'layer_norm2'),
                ('c_fc', 'fc1'),
                ('c_proj', 'fc2'),
                ('attn.out_proj', 'self_attn.out_proj'),
            ):
                rest = rest.replace(ours, theirs)
            if 'attn.in_proj_' in rest:
                for part, chunk in zip('qkv', value.chunk(3), strict=True):
                    key = rest.replace('attn.in_proj_', f'self_attn.{part}_proj.')
                    out[f'{tower}.{key}'] = chunk.clone()
            else:
                out[f'{tower}.{rest}'] = value.clone()
        elif rest in ('proj', 'text_projection'):
            key = 'visual_projection' if rest == 'proj' else rest
            out[f'{key}.weight'] = value.T.contiguous()
        elif rest == 'logit_scale':
            out[rest] = value.clone()
        else:
            key = {
                'class_embedding': 'embeddings.class_embedding',
                'conv1.weight': 'embeddings.patch_embedding.weight',
                'positional_embedding': 'embeddings.position_embedding.weight',
                'token_embedding.weight': 'embeddings.token_embedding.weight',
                'ln_pre.weight': 'pre_layrnorm.weight',
                'ln_pre.bias': 'pre_layrnorm.bias',
                'ln_post.weight': 'post_layernorm.weight',
                'ln_post.bias': 'post_layernorm.bias',
                'ln_final.weight': 'final_layer_norm.weight',
                'ln_final.bias': 'final_layer_norm.bias',
            }[rest]
            out[f'{tower}.{key}'] = value.clone()
    out['text_model.embeddings.position_ids'] = torch.arange(12)[None]
    return out


def write(clip, kind, folder):
    """The weights of ``clip`` in a file of one kind."""
    state = {key: value.contiguous() for key, value in clip.state_dict().items()}
    path = folder / 'weights.pt'
    if kind == 'archive':
        torch.jit.trace(Archived(clip), torch.zeros(1, 4, 32)).save(str(path))
    elif kind == 'state_dict':
        torch.save(state, path)
    elif kind == 'training':
        torch.save({'state_dict': {f'module.{k}': v for k, v in state.items()}}, path)
    elif kind == 'open_clip':
        path = folder / 'open_clip_model.safetensors'
        save_file(state, path)
        config = dict(model_cfg=dict(quick_gelu=True))
        (folder / 'open_clip_config.json').write_text(json.dumps(config))
    elif kind == 'hugging_face':
        path = folder / 'model.safetensors'
        save_file(hugging_face(state), path)
        config = dict(vision_config=dict(hidden_act='quick_gelu'), text_config={})
        (folder / 'config.json').write_text(json.dumps(config))
    return path


KINDS = ['archive', 'state_dict', 'training', 'open_clip', 'hugging_face']


@pytest.mark.parametrize('kind', KINDS)
@torch.no_grad()
def test_every_kind_of_file_gives_the_same_towers(clip, kind, tmp_path, warned):
    path = str(write(clip, kind, tmp_path))
    images, texts = torch.randn(2, 3, 32, 32), ['left man', 'dog']
    visual = initialised(CLIPVisualEncoder(ARCH, extract_layers=(1,), pretrained=path))
    out = clip.visual.forward_intermediates(images, indices=[1], output_fmt='NLC')
    torch.testing.assert_close(
        visual(images)[:, 1:], out['image_intermediates'][0], atol=1e-5, rtol=0
    )
    text = initialised(CLIPTextEncoder(ARCH, pretrained=path))
    ids = text.tokenize(texts)
    expected = clip.encode_text(open_clip.tokenize(texts, context_length=12))
    pooled = text(ids)[torch.arange(2), ids.argmax(-1)]
    torch.testing.assert_close(pooled, expected, atol=1e-5, rtol=0)
    # A bare state dict does not tell its activation; one warning a tower.
    assert all(path in line and 'QuickGELU' in line for line in warned)
    assert len(warned) == (2 if kind in ('state_dict', 'training') else 0)


def lightning(state):
    """A training checkpoint of a module that keeps CLIP as ``model``, and more."""
    named = {f'model.{key}': value for key, value in state.items()}
    return dict(epoch=3, state_dict=dict(named, **{'loss.scale': torch.ones(1)}))


@pytest.mark.parametrize(
    'wrap',
    [
        lambda state: dict(model=state, epoch=3),
        lambda state: {f'_orig_mod.{key}': value for key, value in state.items()},
        lightning,
        lambda state: dict(
            model={f'module._orig_mod.{k}': v for k, v in state.items()}
        ),
        lambda state: {f'model.{k}': v for k, v in hugging_face(state).items()},
    ],
    ids=['model', 'compiled', 'lightning', 'both', 'hugging_face'],
)
@torch.no_grad()
def test_weights_are_found_in_their_wrapping(clip, wrap, tmp_path, warned):
    path = tmp_path / 'weights.pt'
    torch.save(wrap(clip.state_dict()), path)
    images = torch.randn(2, 3, 32, 32)
    visual = initialised(
        CLIPVisualEncoder(ARCH, extract_layers=(1,), pretrained=str(path))
    )
    out = clip.visual.forward_intermediates(images, indices=[1], output_fmt='NLC')
    torch.testing.assert_close(
        visual(images)[:, 1:], out['image_intermediates'][0], atol=1e-5, rtol=0
    )
    initialised(CLIPTextEncoder(ARCH, pretrained=str(path)))


def test_two_clips_in_one_file_are_refused(clip, tmp_path):
    state = clip.state_dict()
    torch.save({**state, 'model.logit_scale': torch.ones(())}, tmp_path / 'two.pt')
    with pytest.raises(ValueError, match=r"two.pt .*'logit_scale' twice"):
        read_clip_weights(tmp_path / 'two.pt')


@pytest.mark.parametrize('held', [dict(head=torch.ones(1)), {'epoch': 3, 7: 'x'}])
def test_other_weights_are_named_by_their_keys(held, tmp_path, warned):
    torch.save(held, tmp_path / 'other.pt')
    with pytest.raises(ValueError, match=rf'other.pt .*{next(iter(held))!r}'):
        initialised(CLIPTextEncoder(ARCH, pretrained=str(tmp_path / 'other.pt')))


@pytest.mark.parametrize('kind', ['open_clip', 'hugging_face', 'state_dict'])
def test_a_folder_is_looked_into(clip, kind, tmp_path, warned):
    path = write(clip, kind, tmp_path)
    assert clip_weights.resolve_weights(ARCH, str(tmp_path)) == path
    initialised(CLIPTextEncoder(ARCH, pretrained=str(tmp_path)))


def test_a_folder_whose_weights_cannot_be_told(tmp_path, monkeypatch):
    for name in ('a.pt', 'b.pt', 'notes.txt'):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"is a folder.*'a.pt', 'b.pt'"):
        clip_weights.resolve_weights(ARCH, str(tmp_path))
    # A tag is no folder of that name in the working directory.
    (tmp_path / 'openai').mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(clip_weights.open_clip, 'download_pretrained', lambda _: 'got')
    found = clip_weights.resolve_weights('ViT-B-16-quickgelu', 'openai')
    assert found.name == 'got'


@pytest.mark.parametrize('kind', ['archive', 'open_clip', 'hugging_face'])
def test_quick_gelu_weights_are_refused_by_a_gelu_tower(clip, kind, tmp_path):
    path = str(write(clip, kind, tmp_path))
    for encoder in (CLIPVisualEncoder, CLIPTextEncoder):
        options = dict(extract_layers=(1,)) if encoder is CLIPVisualEncoder else {}
        with pytest.raises(ValueError, match='trained with QuickGELU, but .* has GELU'):
            initialised(
                encoder(dict(ARCH, quick_gelu=False), pretrained=path, **options)
            )


def test_gelu_weights_are_refused_by_a_quick_gelu_tower(clip, tmp_path):
    path = write(clip, 'open_clip', tmp_path)
    (tmp_path / 'open_clip_config.json').write_text(json.dumps(dict(model_cfg={})))
    with pytest.raises(ValueError, match='trained with GELU, but .* has QuickGELU'):
        initialised(CLIPTextEncoder(ARCH, pretrained=str(path)))


@pytest.mark.parametrize(
    ('arch', 'tag', 'way_out'),
    [
        ('ViT-B-16', 'openai', "arch='ViT-B-16-quickgelu'"),
        ('ViT-B-16-quickgelu', 'openai', None),
        ('ViT-B-16', 'laion2b_s34b_b88k', None),
    ],
)
def test_tags_say_their_activation(
    clip, arch, tag, way_out, tmp_path, monkeypatch, warned
):
    path = str(write(clip, 'state_dict', tmp_path))
    monkeypatch.setattr(clip_weights.open_clip, 'download_pretrained', lambda _: path)
    tower = open_clip.CLIP(**ARCH).visual
    # Of the architecture of that name only the activation.
    quick_gelu = open_clip.get_model_config(arch).get('quick_gelu', False)
    config = dict(ARCH, quick_gelu=quick_gelu)
    refused = pytest.raises(ValueError, match=way_out) if way_out else nullcontext()
    with refused:
        load_clip_tower(tower, 'visual', arch, config, tag)
    loaded = torch.equal(tower.conv1.weight, clip.visual.conv1.weight)
    assert loaded == (way_out is None)
    assert not warned


def test_numbers_of_the_archive_are_no_weights(clip, tmp_path):
    state, quick_gelu = read_clip_weights(write(clip, 'archive', tmp_path))
    assert quick_gelu is True
    assert set(state) == set(clip.state_dict())


def test_hostile_weights_are_refused(tmp_path):
    class Attack:
        def __reduce__(self):
            return eval, ('1 + 1',)

    torch.save(dict(state_dict=Attack()), tmp_path / 'clip.pt')
    with pytest.raises(UnsafePickleError, match=r'builtins\.eval'):
        initialised(CLIPTextEncoder(ARCH, pretrained=str(tmp_path / 'clip.pt')))


@pytest.mark.parametrize('kind', KINDS)
def test_truncated_files_are_named(clip, kind, tmp_path):
    path = write(clip, kind, tmp_path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=rf'{path.name} cannot be read'):
        read_clip_weights(path)


def test_a_longer_context_and_a_larger_picture_are_interpolated(clip, tmp_path, warned):
    path = str(write(clip, 'archive', tmp_path))
    arch = dict(ARCH, text_cfg=dict(ARCH['text_cfg'], context_length=24))
    assert initialised(CLIPTextEncoder(arch, pretrained=path)).context_length == 24
    larger = initialised(CLIPVisualEncoder(ARCH, (1,), pretrained=path, image_size=64))
    assert larger(torch.zeros(1, 3, 64, 64)).shape == (1, 65, 32)
