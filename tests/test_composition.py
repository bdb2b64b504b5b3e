"""Our parts in detectors of MMDetection: what docs/composition.md shows."""

import copy
import inspect
import json

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner

from projects.clip_vg.engine import PseudoLabelReliabilityHook
from projects.clip_vg.engine.exact_resume_hook import train_sampler
from projects.clip_vg.evaluation import GroundingMetric

from .helpers import ROOT
from .helpers.commands import ended_well, run_script
from .helpers.shrink import shrunk


def quick(cfg, work_dir):
    """What a Runner reads of a config; in this process, and one checkpoint."""
    # MMEngine formats the whole config several times, which takes a minute.
    known = inspect.signature(Runner.__init__).parameters
    cfg = Config({key: value for key, value in cfg.items() if key in known})
    for name in ('train', 'val', 'test'):
        cfg[f'{name}_dataloader'].update(num_workers=0, persistent_workers=False)
    cfg.default_hooks.checkpoint.interval = -1
    cfg.work_dir = cfg.experiment_name = cfg.visualizer.name = str(work_dir)
    cfg.log_level, cfg.load_from = 'ERROR', None
    return cfg


def logged(work_dir, key):
    """The line of the log that has ``key``."""
    (file,) = work_dir.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    (found,) = (line for line in lines if key in line)
    return found


@pytest.fixture
def grounding_dino(bert, shapes, sources, tmp_path):
    """configs/mm_grounding_dino_refcoco_curriculum.py on shapes, and small."""
    cfg = shrunk('mm_grounding_dino_refcoco_curriculum.py', shapes, bert)
    cfg.train_dataloader.dataset.update(
        ann_file=[str(sources / 'one.jsonl')],
        split_file=None,
        split=None,
        source=['one'],
        indices=12,
    )
    cfg.train_dataloader.sampler.epoch_length = 8
    cfg.val_dataloader.dataset.indices = 4
    cfg.train_cfg.update(max_epochs=2, val_interval=2)
    hook = cfg.custom_hooks[0]
    hook.update(begin=1, min_share=0.5, out_dir=str(tmp_path / 'reliability'))
    return quick(cfg, tmp_path / 'run')


def test_grounding_dino_learns_what_our_curriculum_selects(grounding_dino, tmp_path):
    runner = Runner.from_cfg(grounding_dino)
    runner.train()
    assert type(runner.model).__module__.startswith('mmdet.')
    sampler = train_sampler(runner)
    assert 0 < len(sampler.selection) < len(sampler.dataset)
    hook = next(h for h in runner.hooks if isinstance(h, PseudoLabelReliabilityHook))
    assert np.isfinite(hook.mean).all()
    assert (tmp_path / 'reliability/online__one.npy').is_file()
    scores = logged(tmp_path / 'run', 'grounding/acc_0.5')
    again = runner.val_loop.run()
    assert again == pytest.approx({name: scores[name] for name in again}, nan_ok=True)


@pytest.mark.slow
def test_the_documented_command_trains_grounding_dino(grounding_dino, bert, tmp_path):
    """As docs/configs/other_detectors.md has it; smaller, and on data that is here."""
    cfg = Config.fromfile(ROOT / 'configs/mm_grounding_dino_refcoco_curriculum.py')
    assert cfg.load_from.startswith('http')
    small = dict(grounding_dino)
    for key in ('work_dir', 'experiment_name', 'visualizer', 'log_level'):
        del small[key]
    Config(dict(cfg, **small)).dump(str(tmp_path / 'small.py'))
    done = run_script(
        *('tools/train.py', tmp_path / 'small.py', '--work-dir', tmp_path / 'run'),
        *('--cfg-options', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1'),
    )
    ended_well(done)
    assert list((tmp_path / 'run').glob('best_grounding_acc_0.5_*.pth'))


def test_grounding_dinos_own_training_transforms_read_our_labels(grounding_dino):
    dataset = DATASETS.build(grounding_dino.train_dataloader.dataset)
    sample = dataset[0]['data_samples']
    text = dataset.table[0]['text']
    assert sample.text == f'{text.lower()}. '
    (span,) = sample.tokens_positive[0]
    assert sample.text[slice(*span)] == text.lower()


@torch.no_grad()
def test_a_detector_of_many_boxes_is_scored_by_its_best(grounding_dino):
    """The metric's IoUs are those of the boxes with the highest scores."""
    dataset = DATASETS.build(grounding_dino.val_dataloader.dataset)
    model = MODELS.build(grounding_dino.model)
    model.init_weights()
    model.eval()
    batch = pseudo_collate([copy.deepcopy(dataset[i]) for i in range(3)])
    predictions = [sample.to_dict() for sample in model.test_step(batch)]
    metric = GroundingMetric()
    metric.process(None, predictions)
    for prediction, result in zip(predictions, metric.results, strict=True):
        pred = prediction['pred_instances']
        assert len(pred['bboxes']) == 5
        best = pred['bboxes'][pred['scores'].argmax()]
        assert result['bbox'] == pytest.approx(best.tolist())


@pytest.fixture
def yolof(bert, shapes, tmp_path):
    """configs/yolof_clip-vit-b16_coco.py on the shapes as classes, and small."""
    cfg = shrunk('yolof_clip-vit-b16_coco.py', shapes, bert)
    cfg.train_cfg.max_epochs = 1
    return quick(cfg, tmp_path)


def test_a_detector_of_mmdetection_trains_on_our_visual_tower(yolof, tmp_path):
    runner = Runner.from_cfg(yolof)
    before = {k: v.clone() for k, v in runner.model.state_dict().items()}
    runner.train()
    changed = {
        name.split('.')[0]
        for name, value in runner.model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == {'neck', 'bbox_head'}  # the tower is frozen
    scores = logged(tmp_path, 'coco/bbox_mAP')
    again = runner.val_loop.run()
    assert again == pytest.approx({name: scores[name] for name in again}, nan_ok=True)
