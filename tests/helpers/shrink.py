"""Our configs and MMDetection's Grounding DINO, small enough for a test."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hub import get_config

from . import ROOT
from .configs import ARCH

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def shrunk(name, shapes, bert):
    """The config of a name on shapes; its model as it is, but small.

    Args:
        name (str): A file in configs/.
        shapes (Path): The data set.
        bert (Callable): Gives the folder of a tiny BERT, where one is needed.
    """
    cfg = Config.fromfile(ROOT / 'configs' / name)
    for key in cfg.keys() & set(LOADERS):
        dataset = cfg[key].dataset
        dataset.update(
            data_root=str(shapes),
            ann_file='shapes/instances.json',
            data_prefix=dict(img='images'),
        )
        if dataset.type == 'RefExpDataset':
            dataset.update(split_file='shapes/refs(synthetic).p', source=None)
            dataset.update(image_folds=None, held_out=())
            dataset.split = 'train' if key == LOADERS[0] else 'val'
    shrink = dict(
        CLIPVG=clip_vg,
        GroundingDINO=grounding_dino,
        YOLOF=yolof,
        ZeroShotGrounding=zero_shot,
    )
    shrink[cfg.model.type](cfg, shapes, bert)
    return cfg


def clip_vg(cfg, shapes, bert):
    for encoder in ('visual_encoder', 'text_encoder'):
        cfg.model[encoder].pretrained = None
        cfg.model[encoder].arch = ARCH
    steps = cfg.test_dataloader.dataset.pipeline
    size = next(step.size for step in steps if step.type == 'Letterbox')
    # At most as many patches as ViT-B/16 has at 224: attention is of all pairs.
    vision = dict(ARCH['vision_cfg'], patch_size=max(8, size // 14))
    cfg.model.visual_encoder.update(
        arch=dict(ARCH, vision_cfg=vision), extract_layers=(0, 1), image_size=size
    )


def zero_shot(cfg, shapes, bert):
    cfg.model.clip.update(arch=ARCH, pretrained=None)
    if cfg.model.proposals.type == 'DetectorProposals':
        cfg.model.proposals.update(detector=rtmdet(), checkpoint=None, min_score=0.0)
    cfg.model.max_proposals = 8


def rtmdet(size=64):
    """MMDetection's RTMDet, small, without weights."""
    cfg = get_config('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py')
    model = cfg.model
    model.backbone.update(widen_factor=0.0625, init_cfg=None)
    model.neck.update(in_channels=[16, 32, 64], out_channels=16, num_csp_blocks=1)
    model.bbox_head.update(in_channels=16, feat_channels=16)
    model.test_cfg.score_thr = 0.0
    for step in cfg.test_dataloader.dataset.pipeline:
        for key in step.keys() & {'scale', 'size'}:
            step[key] = (size, size)
    return cfg


def grounding_dino(cfg, shapes, bert):
    folder = bert()
    shrink_model(cfg.model, folder)
    for key in LOADERS:
        shrink_pipeline(cfg[key].dataset.pipeline, folder)


def yolof(cfg, shapes, bert):
    """Its classes are the shapes."""
    path = shapes / 'shapes/instances.json'
    classes = [entry['name'] for entry in json.loads(path.read_text())['categories']]
    model = cfg.model
    model.backbone.update(
        arch=ARCH, pretrained=None, image_size=64, extract_layers=(1,)
    )
    model.data_preprocessor.pad_size_divisor = 64
    model.neck.update(in_channels=32, out_channels=16, block_mid_channels=8)
    model.bbox_head.update(num_classes=len(classes), in_channels=16)
    model.bbox_head.anchor_generator.strides = [8]
    model.test_cfg.score_thr = 0.0  # the predictions of a beginner count
    for key in LOADERS:
        cfg[key].dataset.metainfo = dict(classes=classes)
        shrink_pipeline(cfg[key].dataset.pipeline, None)
    cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = str(path)


def tiny_bert(folder: Path) -> str:
    """A folder with a BERT of one layer that reads letters."""
    transformers = pytest.importorskip('transformers')
    letters = 'abcdefghijklmnopqrstuvwxyz'
    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', '.', '?']
    words += [*letters, *(f'##{letter}' for letter in letters)]
    folder.mkdir()
    (folder / 'vocab.txt').write_text('\n'.join(words))
    transformers.BertTokenizer(str(folder / 'vocab.txt')).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    transformers.BertModel(config).save_pretrained(folder)
    return str(folder)


def shrink_model(model, bert):
    """Make MMDetection's own config small, in place."""
    model.language_model.name = bert
    model.backbone.update(
        embed_dims=24, depths=[1, 1, 1, 1], init_cfg=None, convert_weights=False
    )
    model.neck.in_channels = [48, 96, 192]
    model.encoder.num_layers = 1
    model.decoder.num_layers = 1
    model.num_queries = 20
    model.test_cfg.max_per_img = 5
    return model


def shrink_pipeline(steps, bert, size=64):
    """Make images small, and read words with ``bert``, in place."""
    for step in steps:
        for branch in step.get('transforms', ()):
            shrink_pipeline(branch, bert, size)
        for key, value in dict(
            scale=(size, size),
            scales=[(size, size)],
            crop_size=(size // 2, size),
            tokenizer_name=bert,
        ).items():
            if key in step:
                step[key] = value
