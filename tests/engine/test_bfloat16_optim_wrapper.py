"""Mixed precision on a CPU: bfloat16 in the towers, float32 weights and losses."""

from contextlib import contextmanager

import pytest
import torch
from mmengine.runner import Runner

from projects.clip_vg.engine import BFloat16OptimWrapper

from ..helpers.configs import runner_config


def train(shapes, sources, work_dir, kind, **changes):
    cfg = runner_config(shapes, sources, work_dir)
    cfg.optim_wrapper.update(type=kind, **changes)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


@pytest.mark.parametrize('accumulate', [1, 2])
def test_a_training_run_differs_by_rounding_and_keeps_its_weights_in_float32(
    shapes, sources, tmp_path, accumulate
):
    runner = train(
        shapes,
        sources,
        tmp_path / 'half',
        'BFloat16OptimWrapper',
        accumulative_counts=accumulate,
    )
    assert {p.dtype for p in runner.model.parameters()} == {torch.float32}
    plain = train(shapes, sources, tmp_path / 'whole', 'OptimWrapper')
    history = [
        run.message_hub.get_scalar('train/loss').data[0] for run in (runner, plain)
    ]
    losses = [history[0][0], history[1][0]]
    # The first steps start from the same weights: they differ, and by rounding only.
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_the_context_is_bfloat16(shapes, sources, tmp_path):
    cfg = runner_config(shapes, sources, tmp_path)
    cfg.optim_wrapper.type = 'BFloat16OptimWrapper'
    runner = Runner.from_cfg(cfg)
    wrapper = runner.build_optim_wrapper(cfg.optim_wrapper)
    layer = torch.nn.Linear(2, 2)
    with wrapper.optim_context(runner.model):
        assert layer(torch.ones(1, 2)).dtype == torch.bfloat16
    assert layer(torch.ones(1, 2)).dtype == torch.float32


def test_while_gradients_are_summed_up_processes_do_not_exchange_them():
    """As in the wrapper that it extends: only the last of three steps does."""
    alone, losses = [], []

    class Model(torch.nn.Linear):
        @contextmanager
        def no_sync(self):
            alone.append(len(losses))
            yield

    model = Model(2, 2)
    wrapper = BFloat16OptimWrapper(
        torch.optim.SGD(model.parameters(), 0.1), accumulative_counts=3
    )
    wrapper.initialize_count_status(model, 0, 6)
    for _ in range(6):
        with wrapper.optim_context(model):
            loss = model(torch.ones(1, 2)).sum()
        wrapper.update_params(loss)
        losses.append(loss)
    assert alone == [0, 1, 3, 4]
