"""What MMEngine's loop costs: against a bare loop over the same model and data.

    python benchmarks/runner.py

ViT-B/16 at 224 with random weights, CLIP frozen, steps of four images with seven
expressions each, on the device that MMEngine takes; hooks, logging and data sampler as
in a training run, no workers.
"""

import argparse
import logging
import statistics
import tempfile
import time
from typing import Any

import torch
from inference import build_model, make_batch
from machine import describe, synchronize
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Dataset
from training import PER_PICTURE, with_boxes

from projects.clip_vg.models import CLIPVG

PICTURES = 4


class _Pictures(Dataset):
    """The same few samples again and again."""

    def __init__(self, length: int) -> None:
        inputs, samples = make_batch(PICTURES, PER_PICTURE)
        raw = (inputs * 50 + 120).clamp(0, 255).to(torch.uint8)
        self.items = [
            dict(inputs=image, data_samples=sample)
            for image, sample in zip(raw, with_boxes(samples), strict=True)
        ]
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        return self.items[index % len(self.items)]


class _Clock(Hook):
    """When the first and the last step ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def after_train_iter(
        self,
        runner: Runner,  # noqa: ARG002  # the signature is MMEngine's
        batch_idx: int,  # noqa: ARG002
        data_batch: Any = None,  # noqa: ARG002
        outputs: Any = None,  # noqa: ARG002
    ) -> None:
        """Take the time."""
        synchronize()
        self.times.append(time.perf_counter())


def frozen_model() -> CLIPVG:
    """The model with everything of CLIP frozen."""
    model = build_model()
    model.visual_encoder.vit.positional_embedding.requires_grad_(False)
    return model.train()


def runner_steps(steps: int, work_dir: str) -> tuple[list[float], DataLoader]:
    """When each step ended in MMEngine's loop; and its data loader."""
    clock = _Clock()
    runner = Runner(
        model=frozen_model(),
        work_dir=work_dir,
        train_dataloader=dict(
            batch_size=PICTURES,
            num_workers=0,
            dataset=_Pictures(PICTURES * steps),
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='pseudo_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-6)),
        custom_hooks=[clock],
        default_scope='mmdet',
        log_level='ERROR',
        experiment_name=work_dir,
        cfg=Config(dict(model_wrapper_cfg=None)),
    )
    runner.train()
    return clock.times, runner.train_dataloader


def bare_steps(loader: DataLoader) -> list[float]:
    """When each step ended in the plainest loop."""
    model = frozen_model().to(get_device())
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6)
    times = []
    for batch in loader:
        prepared = model.data_preprocessor(batch, training=True)
        losses = model.loss(prepared['inputs'], prepared['data_samples'])
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        synchronize()
        times.append(time.perf_counter())
    return times


def median_step(times: list[float]) -> float:
    """Median seconds between two steps."""
    return statistics.median(
        later - earlier for earlier, later in zip(times, times[1:], strict=False)
    )


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--steps',
        type=int,
        default=15,
        help='training steps of a round (default: %(default)s)',
    )
    parser.add_argument(
        '--rounds',
        type=int,
        default=2,
        help='timed rounds of each way (default: %(default)s)',
    )
    return parser.parse_args()


def main() -> None:
    """Measure, print."""
    args = parse_args()
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    logging.info('%s', describe(get_device()))
    with_runner, bare = [], []
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as work_dir:
            times, loader = runner_steps(args.steps, work_dir)
        with_runner.append(median_step(times))
        bare.append(median_step(bare_steps(loader)))
    one, other = min(with_runner), min(bare)
    logging.info(
        'a step: %.3f s in the runner, %.3f s in a bare loop, overhead %.1f %%',
        *(one, other, 100 * (one / other - 1)),
    )


if __name__ == '__main__':
    main()
