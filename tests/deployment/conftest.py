"""A tiny detector, its checkpoint, and the folder it is exported to."""

import shutil

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from ..helpers.configs import TEST, model_config
from ..helpers.models import make_batch

# All options that change the graphs, and other dimensions.
VARIANT = dict(
    visual_encoder=dict(adapter=dict(kind='lora', rank=2)),
    text_encoder=dict(
        template='find {}',
        prompt=dict(length=2),
        adapter=dict(kind='lora', rank=2, targets=['in_proj']),
    ),
    fusion=dict(embed_dims=24, num_layers=1),
    confidence_head=dict(type='GroundingConfidenceHead'),
    num_queries=5,
    test_cfg=dict(score_thr=0.2),
)


def make_detector(**changes):
    """Random weights whose boxes differ from question to question."""
    init_default_scope('mmdet')
    torch.manual_seed(0)
    own = ('confidence_head', 'num_queries', 'test_cfg')
    options = {key: changes.pop(key) for key in own if key in changes}
    cfg = dict(model_config(**changes), **options)
    model = MODELS.build(cfg)
    model.init_weights()
    for name, weight in model.named_parameters():
        if ('head' in name and weight.dim() == 2) or name.endswith('lora_b'):
            torch.nn.init.normal_(weight, std=0.4)
    whole = dict(model=cfg, test_dataloader=dict(dataset=dict(pipeline=TEST)))
    return model.eval(), Config(whole)


@pytest.fixture(scope='session')
def detector():
    return make_detector()


@pytest.fixture(scope='session')
def checkpoint(detector, tmp_path_factory):
    model, cfg = detector
    path = tmp_path_factory.mktemp('checkpoint') / 'best.pth'
    torch.save(
        dict(meta=dict(cfg=cfg.pretty_text), state_dict=model.state_dict()), path
    )
    return path


@pytest.fixture(scope='session')
def folder(detector, checkpoint, tmp_path_factory):
    return exported(detector, tmp_path_factory, checkpoint)


@pytest.fixture(scope='session')
def variant():
    return make_detector(**VARIANT)


@pytest.fixture(scope='session')
def variant_folder(variant, tmp_path_factory):
    return exported(variant, tmp_path_factory)


@pytest.fixture(scope='session')
def quantized(folder, tmp_path_factory):
    """The folder with graphs in 8 bits, and how far they agree."""
    pytest.importorskip('nncf')
    from projects.clip_vg.deployment.quantize import quantize_deployment

    copied = tmp_path_factory.mktemp('int8') / 'exported'
    shutil.copytree(folder, copied)
    torch.manual_seed(0)
    return copied, quantize_deployment(copied, [make_batch() for _ in range(4)])


def exported(detector, tmp_path_factory, checkpoint=None):
    pytest.importorskip('onnxscript')
    from projects.clip_vg.deployment.export import export_detector

    folder = tmp_path_factory.mktemp('exported')
    export_detector(*detector, folder, checkpoint)
    return folder
