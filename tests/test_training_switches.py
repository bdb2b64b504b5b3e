"""MMEngine's own switches on our detector: nothing of ours stands in their way."""

import json

import pytest
import torch
from mmengine.runner import Runner

from .helpers.configs import runner_config


def losses(shapes, sources, work_dir, **changes):
    """The logged losses of a training run of two epochs, validated."""
    cfg = runner_config(shapes, sources, work_dir, **changes)
    Runner.from_cfg(cfg).train()
    (log,) = work_dir.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert 'grounding/acc_0.5' in lines[-1]
    return [line['loss'] for line in lines if 'loss' in line]


@pytest.fixture
def plain(shapes, sources, tmp_path):
    """Losses without any switch."""
    return losses(shapes, sources, tmp_path / 'plain')


@pytest.mark.slow
def test_a_compiled_step_learns_the_same(plain, shapes, sources, tmp_path):
    # The graph is captured and run by PyTorch itself: Inductor wants a C++ compiler.
    compiled = losses(
        shapes, sources, tmp_path / 'compiled', compile=dict(backend='eager')
    )
    torch._dynamo.reset()
    assert compiled == pytest.approx(plain, rel=1e-4)


def test_recomputed_activations_learn_the_same(plain, shapes, sources, tmp_path):
    cfg = runner_config(shapes, sources, tmp_path)
    cfg.model.fusion.update(with_cp=True, dropout=0.0)
    cfg.model.visual_encoder.update(with_cp=True, train_pos_embed=True)
    recomputed = losses(shapes, sources, tmp_path / 'cp', model=cfg.model)
    cfg.model.fusion.with_cp = cfg.model.visual_encoder.with_cp = False
    stored = losses(shapes, sources, tmp_path / 'stored', model=cfg.model)
    assert recomputed == pytest.approx(stored, rel=1e-5)
    assert stored != pytest.approx(plain, rel=1e-5)  # dropout and positions differ
