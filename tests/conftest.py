"""Small models and data that the tests share; all offline, on the CPU."""

import os
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

import projects.clip_vg  # noqa: F401
from projects.clip_vg.datasets.readers import read_annotations, write_odvg
from projects.clip_vg.datasets.synthetic import make_synthetic

from .grounding_dino import tiny_bert

ROOT = Path(__file__).parents[1]
# A CLIP of two layers: width 32 seen, 24 read, fused at 16.
ARCH = dict(
    embed_dim=16,
    quick_gelu=True,
    vision_cfg=dict(image_size=32, patch_size=8, width=32, layers=2, head_width=16),
    text_cfg=dict(context_length=12, vocab_size=49408, width=24, heads=2, layers=2),
)


def pytest_addoption(parser):
    for name, what in (
        ('realdata', 'real RefCOCO annotations and photographs'),
        ('parity', 'recorded answers of the published model'),
    ):
        parser.addoption(
            f'--{name}-dir',
            default=os.environ.get(f'CLIP_VG_{name.upper()}'),
            help=f'folder of {what}; default: $CLIP_VG_{name.upper()}',
        )


@pytest.fixture(autouse=True)
def _mmdet_scope():
    torch.manual_seed(0)
    init_default_scope('mmdet')


@pytest.fixture
def offline(monkeypatch):
    """Nothing is fetched, also not from a cache of downloads."""

    def refuse(*args, **kwargs):
        raise AssertionError('something is to be fetched')

    monkeypatch.setattr(socket.socket, 'connect', refuse)
    monkeypatch.setattr(open_clip, 'download_pretrained', refuse)


@pytest.fixture(scope='session')
def bert(tmp_path_factory):
    """Makes a tiny BERT when asked for its folder, and skips without transformers."""
    made = []

    def folder():
        if not made:
            made.append(tiny_bert(tmp_path_factory.mktemp('bert') / 'bert'))
        return made[0]

    return folder


@pytest.fixture
def realdata(request):
    path = request.config.getoption('--realdata-dir')
    if not path:
        pytest.skip('no --realdata-dir and no CLIP_VG_REALDATA')
    return Path(path)


@pytest.fixture(scope='session')
def shapes(tmp_path_factory):
    """A synthetic data set of 24 training and 6 test pictures."""
    root = tmp_path_factory.mktemp('data') / 'shapes'
    return make_synthetic(root, dict(train=24, val=6, test=6), seed=3)


def model_config(**changes):
    """Config of a tiny CLIPVG without weights."""
    cfg = dict(
        type='CLIPVG',
        data_preprocessor=dict(
            type='GroundingDataPreprocessor',
            mean=[123.675, 116.28, 103.53],
            std=[58.395, 57.12, 57.375],
            bgr_to_rgb=True,
        ),
        visual_encoder=dict(type='CLIPVisualEncoder', arch=ARCH, extract_layers=(0, 1)),
        text_encoder=dict(type='CLIPTextEncoder', arch=ARCH),
        fusion=dict(
            type='VisionLanguageFusion',
            num_layers=3,
            num_heads=4,
            feedforward_channels=32,
        ),
        bbox_head=dict(
            type='GroundingBoxHead',
            loss_bbox=dict(type='L1Loss', loss_weight=1.0),
            loss_iou=dict(type='GIoULoss', loss_weight=1.0),
        ),
    )
    for key, value in changes.items():
        cfg[key] = dict(cfg[key], **value)
    return cfg


def initialised(module):
    """The module with the weights that it begins with."""
    module.init_weights()
    return module


@pytest.fixture
def tiny_model():
    """A tiny CLIPVG with random weights, in eval mode."""
    return initialised(MODELS.build(model_config())).eval()


@pytest.fixture(scope='session')
def sources(shapes, tmp_path_factory):
    """Two label files of the training pictures of ``shapes``: 'one' and 'two'."""
    folder = tmp_path_factory.mktemp('sources')
    labels = read_annotations(
        shapes / 'shapes' / 'instances.json',
        shapes / 'shapes' / 'refs(synthetic).p',
        splits=['train'],
    )
    for offset, name in enumerate(('one', 'two')):
        part = labels.take(np.arange(offset, len(labels), 2))
        part = replace(part, source_names=(name,))
        write_odvg(part, folder / f'{name}.jsonl')
    return folder


def pool_config(shapes, folder, names=('one', 'two'), **changes):
    """Config of the training labels of ``sources``."""
    return dict(
        type='RefExpDataset',
        ann_file=[str(folder / f'{name}.jsonl') for name in names],
        source=list(names),
        data_prefix=dict(img=str(shapes / 'images')),
        pipeline=TRAIN,
        **changes,
    )


TRAIN = [
    dict(type='LoadGroundingImage'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PILResize', size=32),
    dict(type='Letterbox', size=32),
    dict(type='PackGroundingInputs'),
]
TEST = [TRAIN[0], *TRAIN[2:4], TRAIN[1], TRAIN[4]]


def runner_config(shapes, folder, work_dir, **changes):
    """Two epochs of a tiny CLIPVG on ``sources``, validated on ``shapes``."""
    loader = dict(num_workers=0, persistent_workers=False)
    cfg = dict(
        default_scope='mmdet',
        model=model_config(),
        work_dir=str(work_dir),
        experiment_name=f'{work_dir}',
        train_dataloader=dict(
            loader,
            batch_size=8,
            sampler=dict(type='CurriculumSampler', grouped=True),
            dataset=pool_config(shapes, folder),
        ),
        val_dataloader=dict(
            loader,
            batch_size=4,
            sampler=dict(type='ImageGroupSampler', shuffle=False),
            dataset=dict(
                type='RefExpDataset',
                data_root=str(shapes),
                ann_file='shapes/instances.json',
                split_file='shapes/refs(synthetic).p',
                split='val',
                data_prefix=dict(img='images'),
                test_mode=True,
                pipeline=TEST,
            ),
        ),
        val_evaluator=dict(type='GroundingMetric'),
        val_cfg=dict(type='ValLoop'),
        train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=1),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1),
            sampler_seed=dict(type='ExactResumeHook'),
            checkpoint=dict(
                type='CheckpointHook', interval=1, save_best='grounding/acc_0.5'
            ),
        ),
        randomness=dict(seed=0),
        log_level='ERROR',
    )
    cfg.update(changes)
    return Config(cfg)
