"""The cache of visual tokens: same boxes, fewer passes of the tower, bounded memory."""

import copy
import pickle

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from torch import nn

from projects.clip_vg.apis import GroundingInferencer
from projects.clip_vg.models.visual_token_cache import VisualTokenCache, is_fixed

from ..helpers.configs import model_config
from ..helpers.models import initialised, make_batch, prepared, save_tiny
from ..helpers.threads import predict_in_threads

TEXTS = ['left man', 'dog', 'the red bus']


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp('cached') / 'a.pth', 0, spread=20)


@pytest.fixture(scope='module')
def plain(checkpoint):
    return GroundingInferencer(checkpoint, device='cpu', cache_mib=0)


@pytest.fixture
def cached(checkpoint):
    return GroundingInferencer(checkpoint, device='cpu')


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (24, 32, 3), np.uint8) for _ in range(5)]


def boxes(predictions):
    return [p['bboxes'] for p in predictions['predictions']]


def count_passes(model):
    """The numbers of images that the tower encodes from now on."""
    passes = []
    model.visual_encoder.register_forward_hook(
        lambda _, images, __: passes.append(len(images[0]))
    )
    return passes


def test_a_second_call_encodes_no_image_and_gives_the_same_boxes(cached, plain, images):
    passes = count_passes(cached.model)
    for text in TEXTS:
        assert boxes(cached(images[0], text)) == boxes(plain(images[0], text))
    assert passes == [1]
    assert (cached.visual_cache.hits, cached.visual_cache.misses) == (2, 1)
    assert plain.visual_cache is None


def test_only_new_images_of_a_batch_are_encoded(cached, plain, images):
    cached(images[1], TEXTS)
    passes = count_passes(cached.model)
    batch = [images[0], images[1], images[2], images[0]]
    found = boxes(cached(batch, [TEXTS] * 4))
    np.testing.assert_allclose(found, boxes(plain(batch, [TEXTS] * 4)), atol=1e-4)
    assert passes == [2]
    assert (cached.visual_cache.hits, cached.visual_cache.misses) == (1, 3)


def test_another_pixel_is_another_image(cached, plain, images):
    cached(images[0], 'dog')
    changed = images[0].copy()
    changed[3, 4] = 255 - changed[3, 4]
    assert boxes(cached(changed, 'dog')) == boxes(plain(changed, 'dog'))
    assert cached.visual_cache.hits == 0


def test_other_borders_are_another_input_of_the_same_pixels():
    model = initialised(MODELS.build(model_config())).eval()
    model.cache_visual_tokens(VisualTokenCache(1 << 20))
    batch = make_batch([((0, 4, 32, 24), ['dog']), ((0, 0, 32, 32), ['dog'])])
    batch['inputs'][1] = batch['inputs'][0]
    _, samples = prepared(model, batch)
    assert samples[0].content_key != samples[1].content_key


def test_weights_that_change_are_not_mixed_with_old_tokens(cached, checkpoint, images):
    cached(images[0], 'dog')
    with torch.no_grad():
        cached.model.visual_encoder.vit.conv1.weight.mul_(1.5)
    fresh = GroundingInferencer(checkpoint, device='cpu', cache_mib=0)
    fresh.model.load_state_dict(cached.model.state_dict())
    assert boxes(cached(images[0], 'dog')) == boxes(fresh(images[0], 'dog'))
    assert cached.visual_cache.misses == 2


def test_a_tower_that_is_trained_is_not_cached():
    cfg = model_config(visual_encoder=dict(frozen=False))
    model = initialised(MODELS.build(cfg)).train()
    cache = VisualTokenCache(1 << 20)
    model.cache_visual_tokens(cache)
    inputs, samples = prepared(model, make_batch(), training=True)
    sum(model.loss(inputs, samples).values()).backward()
    assert model.visual_encoder.vit.conv1.weight.grad.abs().sum() > 0
    assert (cache.hits, cache.misses) == (0, 0)
    assert not is_fixed(model.visual_encoder.eval())
    with torch.no_grad():
        assert is_fixed(model.visual_encoder)


def test_a_frozen_tower_trains_the_rest_alike_with_tokens_of_inference():
    losses = []
    for cached in (False, True):
        torch.manual_seed(0)
        model = initialised(MODELS.build(model_config())).train()
        if cached:
            model.cache_visual_tokens(VisualTokenCache(1 << 20))
        torch.manual_seed(1)
        batch = make_batch()
        with torch.inference_mode():
            model.predict(*prepared(model, batch))
        torch.manual_seed(2)  # dropout
        loss = sum(model.loss(*prepared(model, batch, training=True)).values())
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == losses[1]
    assert model.visual_cache.hits == len(batch['inputs'])


def encode_numbers(cache, *numbers):
    """Tokens of images that are a number each, and the numbers that were encoded."""
    encoded = []

    def encode(images):
        encoded.extend(images[:, 0].int().tolist())
        return images[:, None].expand(-1, 2, -1)

    rows = torch.tensor(numbers, dtype=torch.float32)[:, None].expand(-1, 4)
    samples = [
        DetDataSample(metainfo=dict(content_key=str(number).encode()))
        for number in numbers
    ]
    tokens = cache.encode(rows, samples, encode, nn.Identity().eval())
    assert tokens[:, 0, 0].tolist() == list(numbers)
    return encoded


def test_the_least_recently_used_leave_first():
    cache = VisualTokenCache(3 * 32)  # 2 x 4 floats an image
    assert encode_numbers(cache, 1, 2, 3) == [1, 2, 3]
    assert encode_numbers(cache, 1) == []
    assert encode_numbers(cache, 4) == [4]
    assert encode_numbers(cache, 2) == [2]
    assert encode_numbers(cache, 1, 4) == []
    assert cache.bytes == 3 * 32


def test_what_is_larger_than_the_cache_is_not_stored():
    cache = VisualTokenCache(31)
    assert encode_numbers(cache, 1) == encode_numbers(cache, 1) == [1]
    assert cache.bytes == 0


@pytest.mark.parametrize(
    'copied', [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))]
)
def test_a_copy_is_an_empty_cache(copied):
    cache = VisualTokenCache(96)
    encode_numbers(cache, 1, 2)
    other = copied(cache)
    assert (other.max_bytes, other.bytes, other.misses) == (96, 0, 0)
    assert encode_numbers(other, 1) == [1]


def test_threads_share_a_small_cache_and_get_their_own_boxes(checkpoint, plain, images):
    infer = GroundingInferencer(checkpoint, device='cpu', cache_mib=0.005)
    alone = [boxes(plain(image, TEXTS)) for image in images]
    for found in predict_in_threads(lambda i: boxes(infer(i, TEXTS)), images * 3):
        assert found == alone * 3
    cache = infer.visual_cache
    assert cache.hits + cache.misses == 4 * 15
    assert 0 < cache.bytes <= cache.max_bytes < 5 * 17 * 64 * 4
