"""The converter that merges LoRA: the same boxes, and a checkpoint without it."""

import numpy as np
import open_clip
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from projects.clip_vg.apis import GroundingInferencer
from projects.clip_vg.checkpoints.frozen_weights import (
    FINGERPRINT,
    fingerprint,
    left_out_names,
    without_frozen,
)
from projects.clip_vg.checkpoints.safe_loading import read_checkpoint

from .helpers.commands import call
from .helpers.configs import ARCH, TEST, model_config
from .helpers.models import initialised

SCRIPT = 'model_converters/merge_adapters.py'  # in tools/
LORA = dict(kind='lora', rank=2, alpha=8)


@pytest.fixture
def trained(tmp_path):
    """A slim checkpoint with LoRA in one tower and last blocks in the other."""
    init_default_scope('mmdet')
    torch.manual_seed(0)
    clip = str(tmp_path / 'clip.pt')
    torch.save(open_clip.CLIP(**ARCH).state_dict(), clip)
    cfg = model_config(
        visual_encoder=dict(adapter=LORA, pretrained=clip),
        text_encoder=dict(adapter=dict(kind='last_blocks'), pretrained=clip),
    )
    whole = Config(
        dict(
            model=cfg,
            test_dataloader=dict(dataset=dict(type='RefExpDataset', pipeline=TEST)),
        )
    )
    model = initialised(MODELS.build(cfg))
    for name, parameter in model.named_parameters():
        if 'lora_b' in name or name.startswith('bbox_head'):
            torch.nn.init.normal_(parameter, std=0.5)
    names = left_out_names(model)
    state = without_frozen(model.state_dict(), names)
    state[FINGERPRINT] = fingerprint(model.state_dict(), names)
    config, path = tmp_path / 'config.py', tmp_path / 'lora.pth'
    config.write_text(whole.pretty_text)
    torch.save(dict(state_dict=state, meta=dict(cfg=whole.pretty_text, epoch=3)), path)
    return path, config


def boxes_of(checkpoint, config=None):
    image = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    infer = GroundingInferencer(checkpoint, config, device='cpu')
    predictions = infer(image, ['left man', 'the dog', 'red bus on the right'])
    return np.array(predictions['predictions'][0]['bboxes'])


def test_a_merged_checkpoint_predicts_the_same_boxes(trained, tmp_path):
    path, config = trained
    merged = tmp_path / 'merged.pth'
    call(SCRIPT, path, merged, '--config', config)
    expected = boxes_of(path, config)
    assert expected.std(0).max() > 0.1  # pixels of an image of 32
    np.testing.assert_allclose(boxes_of(merged), expected, atol=32 * 1e-5)
    checkpoint = read_checkpoint(merged)
    assert checkpoint['meta']['epoch'] == 3
    plain = MODELS.build(model_config())
    assert checkpoint['state_dict'].keys() == plain.state_dict().keys()
    with pytest.raises(ValueError, match='no LoRA'):
        call(SCRIPT, merged, tmp_path / 'again.pth')
    with pytest.raises(FileExistsError, match=r'merged\.pth'):
        call(SCRIPT, path, merged, '--config', config)
