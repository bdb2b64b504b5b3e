"""Images as MMDetection normalises them, and what is transferred with them."""

import copy

import pytest
import torch
from mmdet.models import DetDataPreprocessor
from mmdet.registry import MODELS
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from torch.utils.data._utils.pin_memory import pin_memory

from projects.clip_vg.models.data_preprocessor import pixel_padding

from ..helpers.configs import model_config
from ..helpers.models import IMAGES, make_batch, make_sample
from ..helpers.stand_in_device import DEVICE, stand_in_device

CONFIG = model_config()['data_preprocessor']


def reference(batch, **changes):
    """Image by image, by the class of MMDetection."""
    options = {k: v for k, v in dict(CONFIG, **changes).items() if k != 'type'}
    data = DetDataPreprocessor(**options)(copy.deepcopy(batch), True)
    padding = pixel_padding(data['data_samples'], data['inputs'])
    return data['inputs'].masked_fill(padding[:, None], 0.0)


@pytest.mark.parametrize('bgr_to_rgb', [True, False])
@pytest.mark.parametrize('sizes', [[(32, 32)] * 4, [(32, 24), (20, 32), (32, 32)]])
def test_inputs_are_those_of_mmdetection_to_the_bit(bgr_to_rgb, sizes):
    batch = make_batch(IMAGES[: len(sizes)])
    batch['inputs'] = [
        image[:, :height, :width]
        for image, (height, width) in zip(batch['inputs'], sizes, strict=True)
    ]
    changes = dict(bgr_to_rgb=bgr_to_rgb, pad_size_divisor=8)
    own = MODELS.build(dict(CONFIG, **changes))
    found = own(copy.deepcopy(batch), True)
    assert torch.equal(found['inputs'], reference(batch, **changes))
    if len(set(sizes)) == 1:  # as `default_collate` gives them
        stacked = dict(batch, inputs=torch.stack(batch['inputs']))
        assert torch.equal(own(stacked)['inputs'], found['inputs'])


def grouped_batch():
    """What a data loader collates of grouped samples, with numbered boxes."""
    samples = []
    for letterbox, texts in IMAGES:
        sample = make_sample(letterbox, texts)
        labels = torch.arange(len(texts)).flip(0)
        boxes = sample.gt_instances.bboxes
        sample.gt_instances = InstanceData(
            bboxes=boxes, labels=labels, label_names=[texts[i] for i in labels]
        )
        image = torch.randint(0, 255, (3, 32, 32), dtype=torch.uint8)
        samples.append(dict(inputs=image, data_samples=sample))
    return pseudo_collate(samples)


def test_a_pinned_batch_is_transferred_without_waiting(monkeypatch):
    """As a data loader with ``pin_memory=True`` gives it, on a stand-in for a GPU."""
    batch = grouped_batch()
    pinned = []

    def pin(tensor, *_):
        pinned.append(tensor.clone())
        return pinned[-1]

    with monkeypatch.context() as patch:
        # Without a GPU, PyTorch pins nothing.
        patch.setattr(torch.Tensor, 'pin_memory', pin)
        given = pin_memory(batch)
    assert [id(image) for image in given['inputs']] == [id(image) for image in pinned]
    preprocessor = MODELS.build(CONFIG)
    expected = preprocessor(batch, True)
    with stand_in_device() as device:
        preprocessor.to(DEVICE)
        device.syncs.clear()
        found = preprocessor(given, True)
        assert not device.syncs.total(), device.syncs
        assert found['inputs'].device == DEVICE
        for one, other in zip(
            found['data_samples'], expected['data_samples'], strict=True
        ):
            assert one.gt_instances.bboxes.device == DEVICE
            assert one.target_labels == other.gt_instances.labels.tolist()
            boxes = one.gt_instances.bboxes.cpu()
            assert torch.equal(boxes, other.gt_instances.bboxes)
            assert one.metainfo == other.metainfo
        assert torch.equal(found['inputs'].cpu(), expected['inputs'])
        blocking = MODELS.build(dict(CONFIG, non_blocking=False)).to(DEVICE)
        device.syncs.clear()
        blocking(grouped_batch(), True)
        assert device.syncs.total() == 3 * len(IMAGES)  # image, boxes and labels
