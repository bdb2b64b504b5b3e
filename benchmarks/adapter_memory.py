"""What training a part of CLIP costs: trained weights, memory, time, checkpoints.

    python benchmarks/adapter_memory.py

CLIP-VG with ViT-B/16 at 224 and random weights; training steps of 8 images with an
expression each: forward, backward and AdamW. Each way is measured in a process of its
own. Seconds are of the processor, so that other processes do not count; on a GPU, time
and memory are the GPU's.
"""

import argparse
import logging
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace
from typing import Any

import torch
from inference import MODEL, make_batch
from machine import (
    add_device_option,
    describe,
    device_peak_mib,
    peak_mib,
    synchronize,
)
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from training import with_boxes

import projects.clip_vg  # noqa: F401
from projects.clip_vg.engine import SlimCheckpointHook

LORA = dict(kind='lora', rank=8)
# Options of both towers; the official positions are of the visual one.
WAYS: dict[str, dict[str, Any]] = {
    'frozen': {},
    'learned prompt, 4 vectors': {},
    'visual positions (official)': {},
    'biases': dict(adapter=dict(kind='bias')),
    'last block': dict(adapter=dict(kind='last_blocks', number=1)),
    'last 2 blocks': dict(adapter=dict(kind='last_blocks', number=2)),
    'LoRA, rank 8, last 6 blocks': dict(
        adapter=dict(LORA, indices=[-6, -5, -4, -3, -2, -1])
    ),
    'LoRA, rank 8, attention': dict(
        adapter=dict(LORA, targets=['in_proj', 'out_proj'])
    ),
    'LoRA, rank 8': dict(adapter=LORA),
    'LoRA, rank 8, recomputed': dict(adapter=LORA, with_cp=True),
    'LoRA, rank 64': dict(adapter=dict(LORA, rank=64)),
    'all of CLIP': dict(frozen=False),
    'all of CLIP, recomputed': dict(frozen=False, with_cp=True),
}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for option, default, what in (
        ('--batch-size', 8, 'images of a step'),
        ('--steps', 2, 'timed steps, after one of warm-up'),
    ):
        parser.add_argument(
            option, type=int, default=default, help=f'{what} (default: %(default)s)'
        )
    parser.add_argument(
        '--ways',
        nargs='+',
        choices=list(WAYS),
        default=list(WAYS),
        help='what to measure (default: all)',
    )
    add_device_option(parser)
    return parser.parse_args()


def build(way: str) -> Any:
    """The detector, in training mode."""
    logging.getLogger('mmengine').setLevel(logging.ERROR)
    MMLogger.get_instance('benchmark', log_level='ERROR')
    init_default_scope('mmdet')
    cfg = Config.fromfile(MODEL).model
    for tower in (cfg.visual_encoder, cfg.text_encoder):
        tower.update(WAYS[way], pretrained=None)
    cfg.visual_encoder.train_pos_embed = 'positions' in way
    if 'prompt' in way:
        cfg.text_encoder.prompt = dict(length=4)
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.init_weights()
    return model.train()


def measure(way: str, batch_size: int, steps: int, device: str) -> dict[str, Any]:
    """The figures of a way, in this process."""
    torch.set_num_threads(1)
    model = build(way).to(device)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    checkpoint = dict(state_dict=model.state_dict())
    SlimCheckpointHook().before_save_checkpoint(
        SimpleNamespace(model=model), checkpoint
    )
    held = checkpoint['state_dict'].values()
    megabytes = sum(value.numel() * value.element_size() for value in held) / 1e6
    inputs, samples = make_batch(batch_size, 1, device)
    samples = [sample.to(device) for sample in with_boxes(samples)]
    clock = time.process_time if device == 'cpu' else time.perf_counter
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-6)
    begun = 0.0
    for step in range(1 + steps):
        if step == 1:
            synchronize()
            begun = clock()
        optimizer.zero_grad()
        sum(model.loss(inputs, samples).values()).backward()
        optimizer.step()
    synchronize()
    return dict(
        trained_of_clip=sum(p.numel() for n, p in trained.items() if '_encoder.' in n),
        trained=sum(p.numel() for p in trained.values()),
        mib=device_peak_mib() or peak_mib(),
        seconds=(clock() - begun) / steps,
        megabytes=megabytes,
    )


def main() -> None:
    """Measure each way in turn, print a table."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    logging.info('%s', describe(args.device))
    logging.info('| trained | of CLIP | of all | peak MiB | s a step | slim MB |')
    logging.info('|---|---|---|---|---|---|')
    # Forks import nothing anew; OpenMP's threads are not there after a fork, nor is a
    # GPU.
    context = multiprocessing.get_context('fork' if args.device == 'cpu' else 'spawn')
    for way in args.ways:
        with ProcessPoolExecutor(1, context) as pool:
            job = pool.submit(measure, way, args.batch_size, args.steps, args.device)
        row = job.result()
        logging.info(
            '| %s | %s | %s | %.0f | %.1f | %.1f |',
            *(way, f'{row["trained_of_clip"]:,}', f'{row["trained"]:,}'),
            *(row['mib'], row['seconds'], row['megabytes']),
        )


if __name__ == '__main__':
    main()
