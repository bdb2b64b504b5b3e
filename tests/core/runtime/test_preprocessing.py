"""Pixels and padding of the runtime are those of MMDetection's transforms."""

import copy

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope

from projects.clip_vg.models.clip_vg import patch_padding as by_pytorch
from projects.clip_vg.models.data_preprocessor import pixel_padding
from projects.clip_vg.models.fusion import valid_tokens as valid_by_pytorch
from projects.clip_vg_core.runtime.deployment_file import Deployment
from projects.clip_vg_core.runtime.preprocessing import (
    Preprocessing,
    patch_padding,
    valid_tokens,
)

COLORS = dict(
    type='GroundingDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
)
STEPS = [
    dict(type='LoadGroundingImage'),
    dict(type='PILResize', size=48),
    dict(type='Letterbox', size=48),
    dict(type='PackGroundingInputs'),
]
SIZES = [
    (48, 48),
    (480, 640),
    (640, 480),
    (330, 640),
    (9, 300),
    (300, 7),
    (1, 1),
    (47, 48),
]


def deployment(pipeline=STEPS, colors=COLORS, size=48, grid=6):
    return Deployment(
        [size, size], [grid, grid], 8, False, {}, colors, pipeline, {}, {}
    )


def expected_of(image, options):
    init_default_scope('mmdet')
    shape = image.shape[:2]
    given = dict(
        img=image[..., ::-1].copy(), img_shape=shape, ori_shape=shape, text='a'
    )
    steps = [s for s in options.pipeline if not s['type'].startswith('Load')]
    sample = Compose(copy.deepcopy(steps))(given)
    preprocessor = MODELS.build(options.data_preprocessor)
    data = preprocessor(pseudo_collate([sample]))
    padding = by_pytorch(
        pixel_padding(data['data_samples'], data['inputs']), tuple(options.grid_size)
    )
    return data['inputs'][0].numpy(), padding[0].numpy(), data['data_samples'][0]


@pytest.mark.parametrize('grid', [6, 7, 3, 48])
@pytest.mark.parametrize(
    ('pipeline', 'colors'),
    [
        (STEPS, COLORS),
        (STEPS, dict(COLORS, bgr_to_rgb=False)),
        ([dict(type='PILResize', size=[30], side='short'), *STEPS], COLORS),
    ],
)
def test_pixels_are_those_of_mmdetection(tmp_path, pipeline, colors, grid):
    options = deployment(pipeline, colors, grid=grid)
    prepare = Preprocessing(options, tmp_path)
    rng = np.random.default_rng(0)
    for size in SIZES:
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        pixels, padding, sample = expected_of(image, options)
        found = prepare(image)
        np.testing.assert_array_equal(found.pixels, pixels)
        np.testing.assert_array_equal(found.padding, padding)
        assert found.corner == sample.letterbox[:2]
        assert (found.scale,) * 2 == sample.scale_factor
        assert found.shape == size


def test_padding_of_patches_is_that_of_pytorch():
    """Any mask, also those in which a centre is half padding."""
    rng = np.random.default_rng(0)
    for height, width, rows, columns in [
        (224, 224, 14, 14),
        (30, 42, 7, 4),
        (9, 5, 9, 5),
    ]:
        mask = rng.random((3, height, width)) < 0.5
        expected = by_pytorch(torch.from_numpy(mask), (rows, columns)).numpy()
        assert 0 < expected.mean() < 1
        found = patch_padding(mask, (rows, columns))
        np.testing.assert_array_equal(found, expected)
        for class_token in (True, False):
            ours = valid_tokens(found, class_token)
            theirs = valid_by_pytorch(torch.from_numpy(found), class_token=class_token)
            for one, other in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(one, other.numpy())


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        (
            dict(pipeline=[dict(type='TextAwareFlip', prob=0.5), *STEPS]),
            'TextAwareFlip',
        ),
        (dict(pipeline=STEPS[:2]), 'PILResize'),
        (dict(pipeline=STEPS[:1]), 'no transform'),
        (
            dict(pipeline=[dict(type='PILResize', size=[32, 48]), STEPS[2]]),
            r'\[32, 48\]',
        ),
        (dict(pipeline=[dict(STEPS[2], placement='random')]), 'random'),
        (dict(size=32), "'image_size'"),
        (dict(colors=dict(COLORS, pad_size_divisor=32)), 'pad_size_divisor'),
        (dict(colors=dict(COLORS, mean=[1, 2])), 'mean'),
        (dict(colors=dict(COLORS, type='CLIPVG')), 'CLIPVG'),
    ],
)
def test_what_is_not_carried_out_is_refused_by_name(tmp_path, change, named):
    with pytest.raises(ValueError, match=rf'deployment\.json.*{named}'):
        Preprocessing(deployment(**change), tmp_path)


def test_an_image_that_does_not_fit_is_refused(tmp_path):
    prepare = Preprocessing(deployment(STEPS[2:]), tmp_path)
    with pytest.raises(ValueError, match='60 x 20'):
        prepare(np.zeros((20, 60, 3), np.uint8))
