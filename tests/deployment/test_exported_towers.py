"""Other families of towers, exported: they predict as PyTorch does."""

import copy

import pytest
import torch
from mmengine.config import Config
from torch import nn

from ..helpers.configs import TEST, model_config
from ..helpers.models import make_sample
from ..helpers.shrink import shrink_timm, small_arch, small_detector

pytest.importorskip('onnxscript')
pytest.importorskip('onnxruntime')

from projects.clip_vg.deployment.export import export_detector  # noqa: E402
from projects.clip_vg.deployment.served_clip_vg import ServedCLIPVG  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    'name',
    [
        'ViT-B-16-SigLIP2',  # no class token, not causal, a vocabulary of its own
        'convnext_base',  # stages
        'RN50-quickgelu',
        'EVA02-B-16',
        'coca_ViT-B-32',
        'roberta-ViT-B-32',
    ],
)
def test_predictions_are_those_of_pytorch(name, folders, tmp_path, monkeypatch):
    shrink_timm(monkeypatch)
    torch.manual_seed(0)
    model = small_detector(small_arch(name, folders)).eval()
    for layer in model.bbox_head.mlp.layers:
        nn.init.normal_(layer.weight, std=0.4)
    data = dict(dataset=dict(pipeline=TEST))
    export_detector(
        model, Config(dict(model=model_config(), test_dataloader=data)), tmp_path
    )
    served = ServedCLIPVG(str(tmp_path), 'onnxruntime')
    height, width = model.visual_encoder.image_size
    images = torch.randn(2, 3, height, width)
    samples = [
        make_sample((0, 0, width, height), ['left man', 'dog']),
        make_sample((0, 8, width, height - 16), ['the big red bus behind the tree']),
    ]
    for sample in samples:
        shape = (height, width)
        sample.set_metainfo(dict(img_shape=shape, batch_input_shape=shape))
    expected, boxes = (
        torch.cat(
            [
                sample.pred_instances.bboxes
                for sample in detector.predict(images, copy.deepcopy(samples))
            ]
        )
        for detector in (model, served)
    )
    assert expected.std(0).max() > 0.1
    torch.testing.assert_close(boxes, expected, atol=1e-4 * width, rtol=0)
