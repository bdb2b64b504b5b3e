"""Each drawn sample has a file of its own."""

import mmcv
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData

from projects.clip_vg.engine import GroundingVisualizer

from ..helpers import ROOT


def sample(sample_id, **others):
    meta = dict(img_path='a/x.jpg', sample_id=sample_id, **others)
    found = DetDataSample(metainfo=meta)
    found.gt_instances = InstanceData(bboxes=np.zeros((0, 4)), labels=np.zeros(0, int))
    return found


@pytest.fixture
def visualizer():
    return GroundingVisualizer(name='test_of_names')


def test_samples_of_one_image_name_do_not_overwrite_each_other(visualizer, tmp_path):
    samples = [sample('val_1'), sample('val_2'), sample(['val/3', 'val_4'])]
    for _ in range(2):  # a second time they go to the same files
        for side, one in enumerate(samples, 10):
            visualizer.add_datasample(
                'x.jpg',
                np.zeros((side, side, 3), np.uint8),
                one,
                draw_pred=False,
                out_file=str(tmp_path / 'x.jpg'),
            )
    found = sorted(path.name for path in tmp_path.iterdir())
    assert len(found) == 3 and {'x.jpg', 'x-val_2.jpg'} < set(found)
    sides = sorted(len(mmcv.imread(path)) for path in tmp_path.iterdir())
    assert sides == [10, 11, 12]


def test_samples_without_a_name_are_told_by_their_image(visualizer, tmp_path):
    for folder in 'ab':
        one = DetDataSample(metainfo=dict(img_path=f'{folder}/x.jpg'))
        visualizer.add_datasample(
            'x.jpg', np.zeros((9, 9, 3), np.uint8), one, out_file=f'{tmp_path}/x.jpg'
        )
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ('scored', 'written'), [(True, 'left man: 100.0'), (False, 'left man')]
)
def test_scores_that_only_fill_up_are_not_written(
    visualizer, tmp_path, monkeypatch, scored, written
):
    texts = []
    monkeypatch.setattr(
        visualizer, 'draw_texts', lambda text, *_, **__: texts.append(text)
    )
    one = DetDataSample(metainfo=dict(img_path='x.jpg'))
    one.pred_instances = InstanceData(
        metainfo=dict(scored=scored),
        bboxes=torch.tensor([[1.0, 2.0, 8.0, 8.0]]),
        scores=torch.ones(1),
        labels=torch.zeros(1, dtype=torch.long),
        label_names=['left man'],
    )
    visualizer.add_datasample(
        'x.jpg', np.zeros((9, 9, 3), np.uint8), one, out_file=f'{tmp_path}/x.jpg'
    )
    assert texts == [written] and (one.pred_instances.scores == 1).all()


@pytest.mark.parametrize(
    'name', ['clip_vg_refcoco', 'clip_vg_synthetic', 'clip_vg_vit-l14_refcoco']
)
def test_our_configs_have_it(name):
    cfg = Config.fromfile(ROOT / f'configs/{name}.py')
    assert cfg.visualizer.type == 'GroundingVisualizer'
