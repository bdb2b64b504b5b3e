"""The published model's recorded predictions, by the converter and a config alone."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps, bbox_xyxy_to_cxcywh
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from PIL import Image

from projects.clip_vg.compat import load_from_local
from projects.clip_vg.models.data_preprocessor import pixel_padding
from projects.clip_vg_core.utils.safe_torch import load_torch

from .helpers.commands import ended_well, run_script

pytestmark = pytest.mark.parity


@pytest.fixture(scope='module')
def parity(request):
    path = request.config.getoption('--parity-dir')
    if not path:
        pytest.skip('no --parity-dir and no CLIP_VG_PARITY')
    return Path(path)


def converter(*args):
    ended_well(run_script('tools/model_converters/official_clip_vg.py', *args))


@pytest.fixture(scope='module')
def converted(parity, tmp_path_factory):
    dst = tmp_path_factory.mktemp('converted') / 'clip_vg.pth'
    converter(parity / 'clip_vg_tiny.pth', dst)
    return dst


@pytest.fixture(scope='module')
def recorded(parity):
    with np.load(parity / 'clip_vg_tiny_io.npz', allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


@pytest.fixture
def computed(converted, recorded, tmp_path):
    """What our model, pipeline and losses give for the recorded input."""
    checkpoint = load_from_local(str(converted), 'cpu')
    cfg = Config.fromstring(checkpoint['meta']['cfg'], '.py')
    model = MODELS.build(cfg.model)
    model.load_state_dict(checkpoint['state_dict'])
    model.eval()
    steps = list(cfg.val_dataloader.dataset.pipeline)
    # Boxes are compared in the frame of the input, so they are loaded first.
    loading = next(step for step in steps if step['type'] == 'LoadAnnotations')
    steps.remove(loading)
    pipeline = Compose([*steps[:1], loading, *steps[1:]])
    samples = []
    for i, (text, box) in enumerate(
        zip(recorded['texts'], recorded['boxes_xyxy'], strict=True)
    ):
        path = tmp_path / f'{i}.png'
        Image.fromarray(recorded[f'image_{i}']).save(path)
        instance = dict(bbox=box.tolist(), bbox_label=0, ignore_flag=0)
        samples.append(
            pipeline(dict(img_path=str(path), text=str(text), instances=[instance]))
        )
    data = model.data_preprocessor(pseudo_collate(samples), False)
    inputs, samples = data['inputs'], data['data_samples']
    with torch.no_grad():
        losses = model(inputs, samples, mode='loss')
        predictions = model.predict(inputs, samples, rescale=False)
    size = inputs.shape[-1]
    target = torch.cat([s.gt_instances.bboxes for s in samples]) / size
    clamped = torch.cat([s.pred_instances.bboxes for s in predictions]) / size
    with torch.no_grad():
        pred = model.bbox_head(model(inputs, samples, mode='tensor'))
    return dict(
        input_tensor=inputs,
        pad_mask=pixel_padding(samples, inputs),
        target_cxcywh=bbox_xyxy_to_cxcywh(target),
        token_ids=model.text_encoder.tokenizer([s.text for s in samples]),
        pred_cxcywh=pred,
        loss_bbox=losses['loss_bbox'],
        loss_giou=losses['loss_iou'],
        iou=bbox_overlaps(clamped, target, is_aligned=True),
    )


def test_input_and_predictions_match(recorded, computed):
    """Bounds of the data's README: 2e-6 for the input, 1e-5 for the predictions."""
    bounds = dict.fromkeys(computed, 1e-5)
    bounds.update(input_tensor=2e-6, target_cxcywh=2e-6, pad_mask=0, token_ids=0)
    found = {
        key: float(np.abs(np.asarray(value, np.float64) - recorded[key]).max())
        for key, value in computed.items()
    }
    sys.stdout.write(''.join(f'\n{key}: {value:.1e}' for key, value in found.items()))
    assert {k: v for k, v in found.items() if v > bounds[k]} == {}


def test_the_way_back_is_exact(parity, converted, tmp_path):
    converter(converted, tmp_path / 'back.pth', '--reverse')
    original = load_torch(parity / 'clip_vg_tiny.pth')
    back = load_torch(tmp_path / 'back.pth')
    assert set(back['model']) == set(original['model'])
    for name, value in original['model'].items():
        assert back['model'][name].dtype == value.dtype
        assert torch.equal(back['model'][name], value), name
    assert isinstance(back['args'], argparse.Namespace)
    assert back['args'] == original['args']
