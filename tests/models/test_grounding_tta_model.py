"""Several views, one answer: what agrees is averaged, what does not is left out."""

import copy

import pytest
import torch
from mmdet.models.test_time_augs import DetTTAModel
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner, save_checkpoint
from mmengine.structures import InstanceData
from torch import nn

from projects.clip_vg.models.grounding_tta_model import GroundingTTAModel, consensus

from ..helpers import ROOT
from ..helpers.configs import runner_config

BOX = torch.tensor([10.0, 20.0, 50.0, 60.0])
FAR = torch.tensor([70.0, 70.0, 90.0, 90.0])


def slow_consensus(boxes, min_iou=0.5):
    """One expression at a time, in words."""
    merged = []
    for views in boxes.unbind(1):
        agreement = [bbox_overlaps(view[None], views).sum() for view in views]
        center = views[int(torch.stack(agreement).argmax())]
        near = [v for v in views if bbox_overlaps(v[None], center[None]) >= min_iou]
        merged.append(torch.stack(near).mean(0))
    return torch.stack(merged)


@pytest.mark.parametrize('views', [1, 2, 3, 6])
def test_it_is_the_slow_way(views):
    corners = torch.rand(views, 20, 2, 2).sort(2).values.flatten(2) * 100
    torch.testing.assert_close(consensus(corners), slow_consensus(corners))


def test_an_outlier_changes_nothing():
    views = torch.stack([BOX - 2, FAR, BOX + 2])[:, None]
    torch.testing.assert_close(consensus(views), BOX[None])


def test_empty_boxes_are_no_numbers_of_nothing():
    views = torch.zeros(3, 1, 4)
    assert torch.equal(consensus(views), torch.zeros(1, 4))


def view(boxes, flipped=False, texts=('left man',), scores=None, size=(80, 100)):
    """A view of a picture of 80 x 100 in which there are these boxes."""
    sample = DetDataSample(
        metainfo=dict(
            text=list(texts),
            ori_shape=size,
            flip=flipped,
            flip_direction='horizontal' if flipped else None,
        )
    )
    boxes = torch.stack(list(boxes))
    sample.pred_instances = InstanceData(
        bboxes=boxes,
        scores=torch.ones(len(boxes)) if scores is None else torch.tensor(scores),
        labels=torch.zeros(len(boxes), dtype=torch.long),
    )
    return sample


def merge(*views):
    return GroundingTTAModel(Answering()).merge_preds([views])[0]


class Answering(nn.Module):
    """A model that is asked nothing."""

    def test_step(self, data):
        raise NotImplementedError


def test_flipped_views_are_turned_back_and_the_text_is_as_it_was_asked():
    mirrored = torch.tensor([100 - 50.0, 20.0, 100 - 10.0, 60.0])
    merged = merge(view([mirrored], True, ['right man']), view([BOX]))
    torch.testing.assert_close(merged.pred_instances.bboxes, BOX[None])
    assert merged.text == merged.pred_instances.label_names == ['left man']


def test_of_many_boxes_the_best_counts():
    merged = merge(
        view([FAR, BOX], scores=[0.2, 0.8]), view([BOX, FAR], scores=[0.6, 0.1])
    )
    torch.testing.assert_close(merged.pred_instances.bboxes, BOX[None])
    assert merged.pred_instances.scores.item() == pytest.approx(0.7)


def test_scores_that_only_fill_up_are_none_when_merged_either():
    views = [view([BOX]), view([BOX])]
    assert merge(*views).pred_instances.scored
    for one in views:
        one.pred_instances.set_metainfo(dict(scored=False))
    assert not merge(*views).pred_instances.scored


def test_a_view_without_an_answer_is_left_out():
    nothing = view([BOX])
    nothing.pred_instances = nothing.pred_instances[:0]
    torch.testing.assert_close(
        merge(nothing, view([BOX])).pred_instances.bboxes, BOX[None]
    )


def test_mmdetections_merge_would_leave_a_box_for_each_that_disagrees():
    """Why there is one of ours; should theirs change, ours can go."""
    cfg = ConfigDict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)
    model = DetTTAModel(module=Answering(), tta_cfg=cfg)
    views = [view([BOX]), view([FAR])]
    (theirs,) = model.merge_preds([views])
    assert len(theirs.pred_instances.bboxes) == 2


@pytest.fixture
def config(shapes, sources, tmp_path):
    """A validation with the views of configs/clip_vg_synthetic.py."""
    cfg = runner_config(shapes, sources, tmp_path)
    cfg.default_hooks.checkpoint.save_best = None
    cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator
    cfg.test_cfg = dict(type='TestLoop')
    model = MODELS.build(cfg.model)
    cfg.load_from = str(tmp_path / 'model.pth')
    save_checkpoint(dict(state_dict=model.state_dict()), cfg.load_from)
    return cfg


def augmented(cfg, sizes, probs):
    shown = Config.fromfile(ROOT / 'configs/clip_vg_synthetic.py')
    steps = shown.tta_pipeline[2].transforms
    steps[0] = [dict(type='PILResize', size=size) for size in sizes]
    steps[1] = [dict(type='TextAwareFlip', prob=prob) for prob in probs]
    steps[2][0].size = 32
    cfg.model = dict(**shown.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = shown.tta_pipeline
    cfg.experiment_name += f' {sizes} {probs}'
    return cfg


def test_one_view_is_no_augmentation(config):
    plain = Runner.from_cfg(config).test()
    assert Runner.from_cfg(augmented(config, [32], [0.0])).test() == plain


def test_views_are_merged_in_the_test_loop(config):
    cfg = augmented(config, [32, 28], [0.0, 1.0])
    runner = Runner.from_cfg(cfg)
    runner.test()
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    sample = dataset[0, 1]
    assert len(sample['inputs']) == 4
    batch = pseudo_collate([copy.deepcopy(sample)])
    (merged,) = runner.model.test_step(batch)
    alone = [
        runner.model.module.test_step(
            dict(inputs=[image], data_samples=[copy.deepcopy(data)])
        )[0]
        for image, data in zip(sample['inputs'], sample['data_samples'], strict=True)
    ]
    expected = GroundingTTAModel(Answering()).merge_preds([alone])[0]
    torch.testing.assert_close(
        merged.pred_instances.bboxes, expected.pred_instances.bboxes, atol=1e-4, rtol=0
    )
