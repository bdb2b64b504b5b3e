"""Inputs of tiny models, and checkpoints without training."""

import copy
import random

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from .configs import TEST, model_config

SIZE = 32
# (left, top, width, height) of the image in the square, and its expressions.
IMAGES = [
    ((0, 4, 32, 24), ['left man', 'the big red bus behind the tree']),
    ((0, 0, 32, 32), ['dog']),
    ((11, 0, 9, 32), ['a', 'second woman from the right', 'red', 'left man']),
    ((2, 13, 29, 6), ['top']),
]
_SYMBOLS = [*'!!!!~?#$"\'(<;. ', '😀', 'é', 'circle', 'left ', '<end_of_text>']


def make_sample(letterbox, texts, scale=0.5):
    left, top, width, height = letterbox
    sample = DetDataSample(
        metainfo=dict(
            img_path='a.jpg',
            ori_shape=(int(height / scale), int(width / scale)),
            img_shape=(SIZE, SIZE),
            scale_factor=(scale, scale),
            letterbox=letterbox,
            text=texts,
        )
    )
    count = 1 if isinstance(texts, str) else len(texts)
    low = torch.tensor([left, top], dtype=torch.float32)
    high = low + torch.tensor([width, height])
    corners = low + torch.rand(count, 2, 2) * (high - low)
    sample.gt_instances = InstanceData(
        bboxes=torch.cat([corners.amin(1), corners.amax(1) + 1], 1)
    )
    return sample


def make_batch(images=IMAGES):
    return dict(
        inputs=[
            torch.randint(0, 255, (3, SIZE, SIZE), dtype=torch.uint8) for _ in images
        ],
        data_samples=[make_sample(*image) for image in images],
    )


def prepared(model, batch, training=False):
    data = model.data_preprocessor(copy.deepcopy(batch), training)
    return data['inputs'], data['data_samples']


def symbol_texts(count: int, seed: int = 0) -> list[str]:
    """Random runs of symbols and words; the first are those of a bug report."""
    rng = random.Random(seed)
    texts = ['circle!😀', '!~', 'red !"! box', 'a <end_of_text> b']
    while len(texts) < count:
        texts.append(''.join(rng.choices(_SYMBOLS, k=rng.randint(1, 9))))
    return texts


def save_tiny(path, seed, spread=1):
    """A tiny CLIPVG with random weights, with all that an inferencer needs.

    Boxes differ more between expressions with a larger ``spread``.
    """
    cfg = Config(
        dict(
            model=model_config(),
            test_dataloader=dict(dataset=dict(type='RefExpDataset', pipeline=TEST)),
        )
    )
    init_default_scope('mmdet')
    torch.manual_seed(seed)
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.bbox_head.mlp.layers[-1].weight.data *= spread
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = dict(state_dict=model.state_dict(), meta=dict(cfg=cfg.pretty_text))
    torch.save(checkpoint, path)
    return path


def initialised(module):
    """The module with the weights that it begins with."""
    module.init_weights()
    return module
