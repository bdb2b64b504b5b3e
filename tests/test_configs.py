"""Every config builds, and makes a training and a prediction step on shapes."""

import copy

import pytest
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from .conftest import ARCH, ROOT

CONFIGS = sorted(path.name for path in (ROOT / 'configs').glob('*.py'))


def shrunk(name, shapes):
    """The config on shapes; its model as it is, but for a tiny CLIP."""
    cfg = Config.fromfile(ROOT / 'configs' / name)
    if isinstance(cfg.train_dataloader.dataset.ann_file, list):
        cfg.train_dataloader.dataset.source = None
    for encoder in ('visual_encoder', 'text_encoder'):
        cfg.model[encoder].pretrained = None
        cfg.model[encoder].arch = ARCH
    cfg.model.visual_encoder.extract_layers = (0, 1)
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        dataset = cfg[loader].dataset
        dataset.data_root = str(shapes)
        dataset.ann_file = 'shapes/instances.json'
        dataset.split_file = 'shapes/refs(synthetic).p'
        dataset.data_prefix = dict(img='images')
        if dataset.split != 'train':
            dataset.split = 'val'
        size = next(t.size for t in dataset.pipeline if t.type == 'Letterbox')
        cfg.model.visual_encoder.image_size = size
    return cfg


@pytest.mark.parametrize('name', CONFIGS)
def test_a_config_trains_and_predicts(name, shapes):
    cfg = shrunk(name, shapes)
    model = MODELS.build(cfg.model)
    model.init_weights()
    train = DATASETS.build(cfg.train_dataloader.dataset)
    batch = pseudo_collate([train[0], train[1]])
    losses = model.train()(**model.data_preprocessor(batch, True), mode='loss')
    total = sum(losses.values())
    assert total.isfinite()
    total.backward()
    test = DATASETS.build(cfg.test_dataloader.dataset)
    answers = model.eval().test_step(pseudo_collate([copy.deepcopy(test[0, 1])]))
    assert answers[0].pred_instances.bboxes.shape == (2, 4)


@pytest.mark.parametrize('name', CONFIGS)
def test_a_leaf_is_short_and_inherits(name):
    text = (ROOT / 'configs' / name).read_text()
    assert '_base_' in text
    if 'synthetic' not in name and 'tiny' not in name:
        code = [line for line in text.splitlines() if line and '"""' not in line]
        assert len(code) <= 15


@pytest.mark.parametrize('name', CONFIGS)
def test_no_name_of_ours_is_one_of_mmdetections(name):
    cfg = Config.fromfile(ROOT / 'configs' / name)
    assert cfg.default_scope == 'mmdet'
    for registry, kind in ((MODELS, cfg.model.type), (DATASETS, 'RefExpDataset')):
        assert registry.get(kind).__module__.startswith('projects.clip_vg')


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_the_full_size_model_builds(name):
    """With the real architecture and random weights; extracted layers exist."""
    cfg = Config.fromfile(ROOT / 'configs' / name)
    for encoder in ('visual_encoder', 'text_encoder'):
        cfg.model[encoder].pretrained = None
    model = MODELS.build(cfg.model)
    size = next(
        step.size
        for step in cfg.test_dataloader.dataset.pipeline
        if step.type == 'Letterbox'
    )
    assert tuple(model.visual_encoder.image_size) == (size, size)
    depth = len(model.visual_encoder.vit.transformer.resblocks)
    assert max(model.visual_encoder.extract_layers) == depth - 1
    assert model.fusion.embed_dims == model.text_encoder.out_channels
