"""A training run learns: which object is meant, from the image and the expression."""

from mmengine.config import Config
from mmengine.runner import Runner

from projects.clip_vg.synthetic.data_set import make_synthetic
from projects.clip_vg.synthetic.scenes import LARGE_SIDES

from .helpers import ROOT
from .helpers.configs import runner_config


def overfitting_config(folder, seed=0):
    """The model of the built-in toy data set on 12 labels of its first two images."""
    shapes = make_synthetic(folder / 'shapes', dict(train=2), 3, sides=LARGE_SIDES)
    cfg = runner_config(shapes, folder, folder / 'run')
    toy = Config.fromfile(ROOT / 'configs/clip_vg_synthetic.py')
    cfg.model = toy.model
    cfg.model.fusion.num_layers = 2
    data = dict(cfg.val_dataloader.dataset, split='train', pipeline=toy.test_pipeline)
    cfg.val_dataloader.dataset = data
    cfg.train_dataloader.batch_size = 4
    cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)
    del toy.train_pipeline[3].placement  # at random, it is not learned in seconds
    cfg.train_dataloader.dataset = dict(
        data, test_mode=False, pipeline=toy.train_pipeline
    )
    cfg.train_cfg.update(max_epochs=70, val_interval=70)
    cfg.optim_wrapper.clip_grad = dict(max_norm=1.0)
    cfg.param_scheduler = dict(toy.param_scheduler[0], total_steps=70)
    cfg.default_hooks.logger.interval = 1000
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=-1)
    cfg.randomness.seed = seed
    return cfg


def test_a_few_images_are_overfitted(tmp_path):
    """The best box for all expressions of each image hits 8 of the 12 labels."""
    runner = Runner.from_cfg(overfitting_config(tmp_path))
    untrained = runner.val_loop.run()['grounding/acc_0.5']
    assert untrained <= 2 / 12
    runner.train()
    scalars = runner.message_hub.log_scalars
    assert scalars['val/grounding/acc_0.5'].current() >= 9 / 12
