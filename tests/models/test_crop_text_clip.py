"""CLIP on crops: the same as open_clip called by hand."""

import numpy as np
import open_clip
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from torch.nn.functional import normalize

from projects.clip_vg.checkpoints.clip_weights import read_clip_weights, resolve_weights
from projects.clip_vg.engine.clip_matching import agreement_config
from projects.clip_vg.models import CropTextCLIP
from projects.clip_vg.models.crop_text_clip import square_around

from ..helpers import ROOT
from ..helpers.models import initialised, symbol_texts


@pytest.fixture(scope='module')
def options():
    cfg = Config.fromfile(ROOT / 'configs/clip_vg_synthetic.py')
    config = agreement_config(cfg)
    assert config.pop('type') == 'CropTextCLIP'
    return config


def test_squares_hold_their_box():
    for box in ((3, 4, 10, 30), (0, 0, 5, 5), (7.4, 2.2, 7.9, 2.6), (5, 5, 5, 5)):
        top, left, side = square_around(box, 1.5)
        assert left <= box[0] + 0.5 and left + side >= box[2] - 0.5
        assert top <= box[1] + 0.5 and top + side >= box[3] - 0.5
        assert side == max(1, round(1.5 * max(box[2] - box[0], box[3] - box[1])))


def test_as_open_clip_by_hand(options):
    clip = initialised(CropTextCLIP(**options))
    state, _ = read_clip_weights(
        resolve_weights(options['arch'], options['pretrained'])
    )
    plain = open_clip.CLIP(**options['arch'], init_logit_bias=0.0)
    plain.load_state_dict({k: v.float() for k, v in state.items()})
    plain.eval()
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (50, 70, 3), np.uint8)
    boxes = torch.tensor([[10.0, 10.0, 30.0, 26.0], [55.0, 30.0, 70.0, 50.0]])
    texts = ['red star', 'small blue circle', 'red star']
    crops = []
    for left, top, right, bottom in boxes.tolist():
        side = round(1.5 * max(right - left, bottom - top))
        x, y = round((left + right - side) / 2), round((top + bottom - side) / 2)
        cut = Image.fromarray(image).crop((x, y, x + side, y + side))
        pixels = np.asarray(cut.resize((64, 64), Image.BICUBIC), np.float32)
        crops.append((pixels - options['mean']) / options['std'])
    images = torch.tensor(np.stack(crops), dtype=torch.float32).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = (
            plain.logit_scale.exp()
            * normalize(plain.encode_text(open_clip.tokenize(texts)), dim=-1)
            @ normalize(plain.encode_image(images), dim=-1).T
        )
    (logits,) = clip([torch.from_numpy(image).permute(2, 0, 1)], [boxes], [texts])
    assert logits.shape == (3, 2)
    # PIL rounds after each direction, torchvision once: a grey level here and there.
    assert torch.allclose(logits, expected, atol=0.15)
    assert torch.equal(logits[0], logits[2])
    assert not any(weight.requires_grad for weight in clip.parameters())


def test_images_do_not_depend_on_each_other(options):
    clip = initialised(CropTextCLIP(**options))
    rng = torch.Generator().manual_seed(1)
    images = [
        torch.randint(0, 256, (3, h, w), dtype=torch.uint8, generator=rng)
        for h, w in ((40, 60), (80, 30))
    ]
    boxes = [
        torch.tensor([[1.0, 2.0, 20.0, 30.0]]),
        torch.tensor([[0.0, 0.0, 9.0, 9.0], [5.0, 40.0, 29.0, 79.0]]),
    ]
    texts = [['red star', 'circle'], ['cross']]
    together = clip(images, boxes, texts)
    for i in range(2):
        (alone,) = clip(images[i : i + 1], boxes[i : i + 1], texts[i : i + 1])
        assert torch.allclose(alone, together[i], atol=1e-4)


def test_symbols_match_as_alone(options):
    clip = initialised(CropTextCLIP(**options))
    image = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8)
    boxes = torch.tensor([[1.0, 2.0, 20.0, 30.0]])
    texts = symbol_texts(30)
    (together,) = clip([image], [boxes], [texts])
    for text, logits in zip(texts, together, strict=True):
        (alone,) = clip([image], [boxes], [[text]])
        assert torch.allclose(alone[0], logits, atol=1e-4), text


def test_a_config_without_clip_is_told_what_to_give():
    cfg = Config(dict(model=dict(type='GroundingDINO')))
    with pytest.raises(ValueError, match='agreement.arch=ViT-B-16-quickgelu'):
        agreement_config(cfg)
    cfg.agreement = dict(arch='ViT-B-32-quickgelu', pretrained='openai', context=2.0)
    assert agreement_config(cfg) == dict(
        type='CropTextCLIP',
        arch='ViT-B-32-quickgelu',
        pretrained='openai',
        context=2.0,
    )


RESNET = dict(image_size=32, layers=[1, 1, 1, 1], width=8, patch_size=None)
POOLED = dict(
    image_size=32, layers=1, width=64, patch_size=8, attentional_pool=True,
    attn_pooler_heads=2, output_tokens=True,
)  # fmt: skip
TEXT = dict(context_length=16, vocab_size=49408, width=32, heads=2, layers=1)


@pytest.mark.parametrize('vision', [RESNET, POOLED], ids=['resnet', 'pooled'])
@pytest.mark.parametrize('text', [{}, dict(embed_cls=True), dict(no_causal_mask=True)])
def test_towers_that_no_detector_takes_embed_as_open_clip_does(vision, text, tmp_path):
    arch = dict(embed_dim=32, vision_cfg=vision, text_cfg=dict(TEXT, **text))
    torch.manual_seed(0)
    plain = dict(vision, output_tokens=False)
    net = open_clip.CustomTextCLIP(32, plain, arch['text_cfg']).eval()
    torch.save(net.state_dict(), tmp_path / 'clip.pt')
    clip = CropTextCLIP(arch, str(tmp_path / 'clip.pt'), context=None, template='{}')
    clip.init_weights()
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    image = Image.fromarray(image)
    (crops,) = clip.encode_crops([image], [torch.tensor([[0.0, 0.0, 50.0, 40.0]])])
    prepare = open_clip.image_transform(
        32, is_train=False, mean=[m / 255 for m in clip.mean],
        std=[s / 255 for s in clip.std],
    )  # fmt: skip
    tokens = open_clip.tokenize(['a cup'], context_length=16)
    with torch.no_grad():
        expected = net.encode_image(prepare(image)[None], normalize=True)
        texts = net.encode_text(tokens, normalize=True)
    torch.testing.assert_close(crops, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(clip.encode_texts(['a cup']), texts)


def test_an_image_is_sharp_in_the_box_alone(options):
    clip = CropTextCLIP(**options, blur=0.05)
    rng = torch.Generator().manual_seed(0)
    # 128 x 64: half of the tower's 64 pixels a side, and a border above and below.
    image = torch.randint(0, 256, (3, 64, 128), dtype=torch.uint8, generator=rng)
    boxes = torch.tensor([[16.0, 8, 48, 40], [0, 0, 128, 64]])
    part, whole = clip.blurs(image, boxes)
    sharp = (part == whole).all(0)
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[20:36, 8:24] = True  # the box in the square
    assert sharp[inside].all()
    assert not sharp[16:48][~inside[16:48]].float().mean() > 0.1
    assert part[:, 40].std() < whole[:, 40].std() / 2
    clip.context = 1
    (crop,) = clip.crops(image, boxes[1:])
    assert torch.equal(crop[:, 16:48], whole[:, 16:48])


def test_patches_are_covered_by_their_share_of_a_box(options):
    clip = initialised(CropTextCLIP(**options))
    image = torch.zeros(3, 32, 64, dtype=torch.uint8)
    # Patches of 8 pixels of 64; the image begins at row 16.
    boxes = torch.tensor([[0.0, 0, 8, 8], [4, 0, 12, 8], [0, 0, 64, 32], [8, 8, 8, 8]])
    shares = clip.patch_coverage(boxes, 32, 64).unflatten(1, (8, 8))
    assert shares[0, 2, 0] == 1 and shares[0].sum() == 1
    assert shares[1, 2, :2].tolist() == [0.5, 0.5]
    assert torch.allclose(shares[2, 2:6], torch.tensor(1 / 32))
    assert shares[3].sum() == 1  # also of a box without an area
    patches = clip.encode_patches(image)
    assert patches.shape == (64, 64)
    assert torch.allclose(patches.norm(dim=-1), torch.ones(64))


def test_a_tower_without_patches_has_no_heat_map():
    clip = CropTextCLIP('RN50', None)
    assert not clip.has_patches
    with pytest.raises(ValueError, match='RN50'):
        clip.encode_patches(torch.zeros(3, 8, 8, dtype=torch.uint8))
