"""From labels of no target, one or several to what the page says of an image."""

import numpy as np
from mmengine.runner import Runner

from projects.clip_vg.apis.shared_models import SharedModels, name_checkpoints
from projects.clip_vg.apis.web import Limits, ground
from projects.clip_vg.synthetic.data_set import make_synthetic
from projects.clip_vg_core.visualization.boxes import color_of

from .helpers.configs import TRAIN, model_config, runner_config
from .helpers.models import save_tiny


def test_a_model_of_one_query_is_fine_tuned_tested_and_shown(tmp_path):
    shapes = make_synthetic(tmp_path / 'shapes', dict(train=8, val=6), 3, targets='any')
    cfg = runner_config(shapes, tmp_path, tmp_path / 'run')
    cfg.model = dict(
        model_config(),
        num_queries=3,
        confidence_head=dict(type='GroundingConfidenceHead'),
        test_cfg=dict(score_thr=1.0),  # nothing is shown
    )
    cfg.test_dataloader = cfg.val_dataloader  # of which the page takes the pipeline
    cfg.test_evaluator, cfg.test_cfg = cfg.val_evaluator, dict(type='TestLoop')
    data = cfg.val_dataloader.dataset
    data.update(split_file='shapes/grefs(synthetic).json', targets='any')
    train = dict(data, split='train', pipeline=TRAIN, test_mode=False)
    cfg.train_dataloader.dataset = train
    cfg.train_dataloader.batch_size = 4
    cfg.train_dataloader.sampler = dict(type='ImageGroupSampler')
    cfg.val_evaluator = dict(type='GeneralizedGroundingMetric', score_thr=0.0)
    cfg.default_hooks.checkpoint.save_best = 'grounding/f1_acc'
    cfg.train_cfg.max_epochs = 1
    cfg.load_from = str(save_tiny(tmp_path / 'one_query.pth', seed=0))
    runner = Runner.from_cfg(cfg)
    runner.train()
    measured = {
        key.removeprefix('val/grounding/'): values.current()
        for key, values in runner.message_hub.log_scalars.items()
        if key.startswith('val/')
    }
    counts = runner.val_dataloader.dataset.table.target_counts()
    assert {0, 1, 2} <= set(counts.tolist())
    # At a threshold of 0, all three boxes count for each expression.
    assert measured['num_predictions'] == 3 * len(counts)
    assert measured['num_targets'] == counts.sum()
    assert (measured['n_acc'], measured['t_acc']) == (0, 1)
    losses = runner.message_hub.get_scalar('train/loss_confidence').data[0]
    assert np.isfinite(losses).all()
    models = SharedModels(name_checkpoints([tmp_path / 'run']), device='cpu')
    (name,) = models.checkpoints
    image = next((shapes / 'images').glob('*.jpg'))
    drawn, table = ground(models, Limits(), name, image, 'red star\nblue circles')
    assert table.count('not in this image') == 2
    assert not (drawn[:300] == color_of(0)).all(-1).any()
