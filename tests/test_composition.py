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
from projects.clip_vg.evaluation import GeneralizedGroundingMetric, GroundingMetric
from projects.clip_vg_core.data.readers import read_annotations, write_odvg
from projects.clip_vg_core.data.table_builder import TableBuilder

from .helpers import ROOT
from .helpers.commands import ended_well, run_script
from .helpers.configs import TEST, model_config
from .helpers.models import initialised
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
def any_targets(shapes, tmp_path):
    """Labels of the images of shapes with one target, none and two, in turn."""
    table = read_annotations(
        shapes / 'shapes/instances.json',
        shapes / 'shapes/refs(synthetic).p',
        splits=['train'],
    )
    builder = TableBuilder(str, 'any')
    for i in range(24):
        label = table[i]
        boxes = [label['bbox'], [5, 5, 25, 25]]
        builder.add_targets(
            label['image'],
            [boxes[:1], [], boxes][i % 3],
            label['text'],
            f'label{i}',
            'train' if i < 12 else 'val',
            'human',
            (label['height'], label['width']),
        )
    write_odvg(builder.build('xyxy'), tmp_path / 'any.jsonl')
    return tmp_path / 'any.jsonl'


@pytest.fixture
def generalized_dino(bert, shapes, any_targets, tmp_path):
    """configs/mm_grounding_dino_grefcoco.py on labels of any number of targets."""
    cfg = shrunk('mm_grounding_dino_grefcoco.py', shapes, bert)
    for name in ('train', 'val', 'test'):
        cfg[f'{name}_dataloader'].dataset.update(
            ann_file=str(any_targets), split_file=None, indices=6
        )
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.val_evaluator.score_thr = 2.0  # which nothing reaches
    return quick(cfg, tmp_path / 'run')


def test_grounding_dino_trains_and_is_scored_on_any_number_of_targets(
    generalized_dino, tmp_path
):
    runner = Runner.from_cfg(generalized_dino)
    runner.train()
    assert type(runner.model).__module__.startswith('mmdet.')
    scores = logged(tmp_path / 'run', 'grounding/f1_acc')
    assert scores['grounding/num_expressions'] == 6
    assert scores['grounding/num_no_target'] == 2
    assert scores['grounding/num_targets'] == 2 + 4
    # Nothing is predicted: right where there is nothing to find.
    assert scores['grounding/n_acc'] == 1 and scores['grounding/t_acc'] == 0
    assert scores['grounding/f1_acc'] == pytest.approx(2 / 6)


@torch.no_grad()
def test_all_boxes_of_grounding_dino_above_the_threshold_count(generalized_dino):
    """And its losses are finite where no label of a batch has a target."""
    train = DATASETS.build(generalized_dino.train_dataloader.dataset)
    # What a crop of MMDetection leaves of them is up to chance.
    assert [len(train.get_data_info(i)['instances']) for i in range(3)] == [1, 0, 2]
    assert len(train[1]['data_samples'].gt_instances) == 0
    model = MODELS.build(generalized_dino.model)
    model.init_weights()
    for chosen in ([0, 1, 2], [1, 4]):
        batch = pseudo_collate([train[i] for i in chosen])
        losses = model.train()(**model.data_preprocessor(batch, True), mode='loss')
        assert model.parse_losses(losses)[0].isfinite()
    val = DATASETS.build(generalized_dino.val_dataloader.dataset)
    batch = pseudo_collate([val[i] for i in range(3)])
    predictions = [sample.to_dict() for sample in model.eval().test_step(batch)]
    scores = np.concatenate([p['pred_instances']['scores'] for p in predictions])
    metric = GeneralizedGroundingMetric(score_thr=float(np.median(scores)))
    metric.process(None, predictions)
    counts = [result['counts'] for result in metric.results]
    assert [count.targets for count in counts] == [1, 0, 2]
    assert sum(count.predictions for count in counts) == 8 == (len(scores) + 1) // 2
    # True boxes in the place of the predicted are all right.
    for sample in predictions:
        boxes = sample['gt_instances']['bboxes']
        sample['pred_instances'] = dict(bboxes=boxes, scores=torch.ones(len(boxes)))
    metric = GeneralizedGroundingMetric()
    metric.process(None, predictions)
    assert metric.evaluate(3)['grounding/f1_acc'] == 1


@torch.no_grad()
def test_our_boxes_of_grouped_expressions_are_scored_as_those_of_single_ones(
    any_targets, shapes
):
    """From the data set to the metric, which reads only numbers of expressions."""
    dataset = DATASETS.build(
        dict(
            type='RefExpDataset',
            targets='any',
            ann_file=str(any_targets),
            data_root=str(shapes),
            data_prefix=dict(img='images'),
            pipeline=TEST,
        )
    )
    head = dict(type='GroundingConfidenceHead')
    cfg = dict(model_config(), num_queries=3, confidence_head=head)
    model = initialised(MODELS.build(cfg)).eval()
    # Scores of a beginner are all alike.
    torch.nn.init.normal_(model.confidence_head.mlp.layers[-1].weight, std=2.0)
    images = dataset.table.image_index
    groups = [np.flatnonzero(images == i).tolist() for i in np.unique(images)]
    assert max(map(len, groups)) > 2
    found = []
    for shown in (groups, [[label] for group in groups for label in group]):
        samples = [dataset[tuple(g)] if len(g) > 1 else dataset[g[0]] for g in shown]
        batches = [pseudo_collate([sample]) for sample in samples]
        found.append([model.test_step(batch)[0].to_dict() for batch in batches])
    scores = np.concatenate([one['pred_instances']['scores'] for one in found[1]])
    measures = []
    for samples in found:
        # Between the two in the middle, so that none is at the threshold.
        metric = GeneralizedGroundingMetric(float(np.median(scores)), overlap_thr=0.1)
        metric.process(None, samples)
        measures.append(metric.evaluate(24))
    assert measures[0] == pytest.approx(measures[1], abs=1e-5)
    counts = {k: v for k, v in measures[0].items() if k.startswith('grounding/num')}
    assert counts['grounding/num_predictions'] == 36 == len(scores) // 2
    assert counts['grounding/num_no_target'] == 8
    assert counts['grounding/num_targets'] == 8 + 16


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
