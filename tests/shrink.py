"""Our configs, small enough for a test and on a synthetic data set."""

import json

from mmengine.config import Config

from .conftest import ARCH, ROOT
from .grounding_dino import shrink_model, shrink_pipeline

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def shrunk(name, shapes, bert):
    """The config of a name on shapes; its model as it is, but small.

    Args:
        name (str): A file in configs/.
        shapes (Path): The data set.
        bert (Callable): Gives the folder of a tiny BERT, where one is needed.
    """
    cfg = Config.fromfile(ROOT / 'configs' / name)
    for key in LOADERS:
        dataset = cfg[key].dataset
        dataset.update(
            data_root=str(shapes),
            ann_file='shapes/instances.json',
            data_prefix=dict(img='images'),
        )
        if dataset.type == 'RefExpDataset':
            dataset.update(split_file='shapes/refs(synthetic).p', source=None)
            dataset.split = 'train' if key == LOADERS[0] else 'val'
    dict(CLIPVG=clip_vg, GroundingDINO=grounding_dino, YOLOF=yolof)[cfg.model.type](
        cfg, shapes, bert
    )
    return cfg


def clip_vg(cfg, shapes, bert):
    for encoder in ('visual_encoder', 'text_encoder'):
        cfg.model[encoder].pretrained = None
        cfg.model[encoder].arch = ARCH
    cfg.model.visual_encoder.extract_layers = (0, 1)
    steps = cfg.test_dataloader.dataset.pipeline
    size = next(step.size for step in steps if step.type == 'Letterbox')
    cfg.model.visual_encoder.image_size = size


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
    model.test_cfg.score_thr = 0.0  # the answers of a beginner count
    for key in LOADERS:
        cfg[key].dataset.metainfo = dict(classes=classes)
        shrink_pipeline(cfg[key].dataset.pipeline, None)
    cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = str(path)
