"""Checkpoints without training."""

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from ..conftest import TEST, model_config


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
