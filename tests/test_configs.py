"""Every config builds, and makes a training and a prediction step on shapes."""

import copy
import re

import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hub import get_config

from projects.clip_vg.models.visual_towers import visual_levels

from .helpers import ROOT
from .helpers.shrink import shrunk

CONFIGS = sorted(path.name for path in (ROOT / 'configs').glob('*.py'))


# The rest are MMDetection's detectors with parts of ours (docs/composition.md).
OURS = [name for name in CONFIGS if name.startswith(('clip_vg', 'my_data'))]
ZERO_SHOT = [name for name in CONFIGS if name.startswith('zero_shot')]


@pytest.mark.parametrize('name', ZERO_SHOT)
def test_a_config_that_is_not_trained_predicts(name, shapes, bert, offline):
    cfg = shrunk(name, shapes, bert)
    model = MODELS.build(cfg.model)
    model.init_weights()
    test = DATASETS.build(cfg.test_dataloader.dataset)
    batch = pseudo_collate([test[0, 1], test[2]])
    grouped, single = model.eval().test_step(copy.deepcopy(batch))
    assert len(grouped.pred_instances.bboxes) == 2
    assert len(single.pred_instances.bboxes) == 1
    for sample in (grouped, single):
        scores = sample.pred_instances.scores
        assert ((scores > 0) & (scores <= 1)).all()
        height, width = sample.ori_shape
        limits = torch.tensor([width, height, width, height]) + 1e-3
        assert (sample.pred_instances.bboxes <= limits).all()
    with pytest.raises(ValueError, match='score_reliability'):
        model(**model.data_preprocessor(batch, True), mode='loss')


@pytest.mark.parametrize('name', sorted({*CONFIGS} - {*ZERO_SHOT}))
def test_a_config_trains_and_predicts(name, shapes, bert, offline):
    cfg = shrunk(name, shapes, bert)
    model = MODELS.build(cfg.model)
    model.init_weights()
    train = DATASETS.build(cfg.train_dataloader.dataset)
    batch = pseudo_collate([train[0], train[1]])
    losses = model.train()(**model.data_preprocessor(batch, True), mode='loss')
    total, _ = model.parse_losses(losses)
    assert total.isfinite()
    total.backward()
    test = DATASETS.build(cfg.test_dataloader.dataset)
    sample = test[0, 1] if name in OURS else test[0]
    predictions = model.eval().test_step(pseudo_collate([copy.deepcopy(sample)]))
    boxes = predictions[0].pred_instances.bboxes
    queries = cfg.model.get('num_queries', 1)
    assert len(boxes) == 2 * queries if name in OURS else len(boxes) > 0
    assert boxes.isfinite().all()


@pytest.mark.parametrize('name', CONFIGS)
def test_a_top_level_config_is_short_and_inherits(name):
    text = (ROOT / 'configs' / name).read_text()
    assert '_base_' in text
    code = [line for line in text.splitlines() if line and '"""' not in line]
    if name not in {*OURS, *ZERO_SHOT}:
        bases = ("_base_ = 'mmdet::", "_base_ = './mm_grounding_dino_")
        assert any(base in text.replace("(\n    '", "'") for base in bases)
        assert len(code) <= 60  # MMDetection's lists of transforms come as a whole
    elif 'synthetic' not in name and 'tiny' not in name:
        assert len(code) <= 15


# What a run, a tool of ours or MMDetection reads.
READ = {
    *('agreement', 'custom_hooks', 'custom_imports', 'default_hooks', 'default_scope'),
    *('env_cfg', 'load_from', 'log_level', 'log_processor', 'model', 'optim_wrapper'),
    *('param_scheduler', 'randomness', 'resume', 'vis_backends', 'visualizer'),
    *('tta_model', 'tta_pipeline', 'train_pipeline', 'test_pipeline', 'zero_shot'),
    *(
        f'{split}_{key}'
        for split in ('train', 'val', 'test')
        for key in ('cfg', 'dataloader')
    ),
    *('val_evaluator', 'test_evaluator'),
}


@pytest.mark.parametrize('name', CONFIGS)
def test_a_dumped_config_has_what_is_read_and_loads_as_it_was(name, tmp_path):
    cfg = Config.fromfile(ROOT / 'configs' / name)
    base = cfg_of_mmdetection(name)
    assert set(cfg) <= READ | set(base)
    cfg.dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py').to_dict() == cfg.to_dict()


def cfg_of_mmdetection(name):
    """The config of MMDetection that a config inherits from, if any."""
    text = (ROOT / 'configs' / name).read_text()
    path = re.search(r"'(mmdet::.*)'", text)
    ours = re.search(r"_base_ = '\./(mm_grounding_dino_.*)'", text)
    if ours:
        return cfg_of_mmdetection(ours[1])
    return get_config(path[1]) if path else {}


def sizes_of(steps):
    """The largest side of each step that has one of the model's images."""
    for step in steps:
        if isinstance(step, list):
            yield from sizes_of(step)
        elif step.get('side', 'long') == 'long' and 'size' in step:
            size = step['size']
            yield size if isinstance(size, int) else max(size)
        yield from sizes_of(
            step.get('transforms', ()) if isinstance(step, dict) else ()
        )


@pytest.mark.parametrize('name', OURS)
def test_all_pipelines_have_one_size(name):
    cfg = Config.fromfile(ROOT / 'configs' / name)
    size = max(sizes_of(cfg.test_pipeline))
    for pipeline in (cfg.train_pipeline, cfg.test_pipeline):
        assert set(sizes_of(pipeline)) == {size}
    smaller = size - (4 if 'synthetic' in name or 'tiny' in name else 32)
    assert sorted(sizes_of(cfg.tta_pipeline)) == [smaller, size, size]
    for key in ('train', 'val', 'test'):
        pipeline = cfg.train_pipeline if key == 'train' else cfg.test_pipeline
        assert cfg[f'{key}_dataloader'].dataset.pipeline == pipeline


@pytest.mark.parametrize('name', CONFIGS)
def test_no_name_of_ours_is_one_of_mmdetections(name):
    cfg = Config.fromfile(ROOT / 'configs' / name)
    assert cfg.default_scope == 'mmdet'
    owner = 'projects.clip_vg' if name in {*OURS, *ZERO_SHOT} else 'mmdet'
    assert MODELS.get(cfg.model.type).__module__.startswith(owner)
    assert DATASETS.get('RefExpDataset').__module__.startswith('projects.clip_vg')


@pytest.mark.parametrize('name', OURS)
def test_the_full_size_model_builds_offline(name, offline):
    """The real architecture; without memory, which a constructor cannot tell."""
    cfg = Config.fromfile(ROOT / 'configs' / name)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    size = next(
        step.size
        for step in cfg.test_dataloader.dataset.pipeline
        if step.type == 'Letterbox'
    )
    assert tuple(model.visual_encoder.image_size) == (size, size)
    depth = len(visual_levels(model.visual_encoder.vit))
    assert max(model.visual_encoder.extract_layers) == depth - 1
    assert model.fusion.embed_dims == model.text_encoder.out_channels


@pytest.mark.parametrize('name', ZERO_SHOT)
def test_the_full_size_model_that_is_not_trained_builds_offline(name, offline):
    cfg = Config.fromfile(ROOT / 'configs' / name)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert model.clip.has_patches
    assert any(model.signals.values())
    detector = getattr(model.proposals, 'detector', None)
    assert detector is None or len(model.proposals.classes) == 80


def test_the_full_size_backbone_fits_its_detector(offline):
    cfg = Config.fromfile(ROOT / 'configs/yolof_clip-vit-b16_coco.py')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    backbone, generator = model.backbone, model.bbox_head.prior_generator
    assert generator.strides == [tuple(backbone.patch_size)]
    assert cfg.model.neck.in_channels == backbone.out_channels
    assert cfg.model.data_preprocessor.pad_size_divisor == backbone.image_size[0]
    assert max(backbone.extract_layers) == 11
