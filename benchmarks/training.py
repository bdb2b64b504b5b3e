"""Training steps: the published way against ours, in one run.

    python benchmarks/training.py

ViT-B/16 at 224 with random weights. A step is forward, backward and AdamW.

`faithful`: one expression an image, and CLIP's visual positions are trained, as in the
official code. `frozen`: positions are frozen. `grouped`: seven expressions share an
image and its encoding, too. `stored`: visual tokens are read from the
`visual_token_dir` of an earlier run; the key of the image is computed.
"""

import argparse
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext

import torch
from inference import build_model, make_batch
from machine import (
    add_device_option,
    alternate,
    describe,
    device_peak_mib,
    peak_mib,
)
from mmengine.structures import InstanceData
from published_path import PublishedPath
from torch import Tensor, nn

from projects.clip_vg.models.box_head import true_boxes
from projects.clip_vg.models.clip_vg import patch_padding
from projects.clip_vg.models.data_preprocessor import pixel_padding
from projects.clip_vg.models.visual_token_cache import content_key

PER_PICTURE = 7  # RefCOCO's mean
WAYS = (
    *('published', 'faithful', 'frozen', 'grouped'),
    *('frozen, stored', 'grouped, stored'),
)
IN_MEMORY = ('published', 'faithful', 'grouped')  # whose memory is measured


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--expressions',
        type=int,
        default=14,
        help='expressions of a step (default: %(default)s)',
    )
    parser.add_argument(
        '--rounds',
        type=int,
        default=3,
        help='timed rounds of each way (default: %(default)s)',
    )
    parser.add_argument(
        '--bf16',
        action='store_true',
        help='measure ours under autocast, too (default: float32 only)',
    )
    add_device_option(parser)
    parser.add_argument(
        '--memory',
        choices=IN_MEMORY,
        help='only measure the memory of this way (default: time of all)',
    )
    return parser.parse_args()


def with_boxes(samples: list) -> list:
    """The samples with a box for each expression."""
    for sample in samples:
        count = len(sample.text)
        low = torch.rand(count, 2) * 100 + 20
        boxes = torch.cat([low, low + 20 + torch.rand(count, 2) * 60], 1)
        sample.gt_instances = InstanceData(bboxes=boxes)
    return samples


def make_step(
    way: str,
    expressions: int,
    bf16: bool = False,
    device: str = 'cpu',
    token_dir: str | None = None,
) -> Callable[[], Tensor]:
    """A training step over so many expressions."""
    stored = 'stored' in way
    model = build_model(visual_token_dir=token_dir if stored else None).to(device)
    trained_positions = way in ('published', 'faithful')
    model.visual_encoder.vit.positional_embedding.requires_grad_(trained_positions)
    each = PER_PICTURE if way.startswith('grouped') else 1
    inputs, samples = make_batch(expressions // each, each, device)
    samples = [sample.to(device) for sample in with_boxes(samples)]
    padding = patch_padding(
        pixel_padding(samples, inputs), model.visual_encoder.grid_size
    )
    texts = [sample.text[0] for sample in samples]
    # Made for its own way alone: it holds copies of some weights.
    slow = PublishedPath(model) if way == 'published' else None
    trained: nn.Module = model if slow is None else slow
    trained.train()
    parameters = [p for p in trained.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-6)
    kind = torch.device(device).type

    def step() -> Tensor:
        for image, sample in zip(inputs, samples, strict=True) if stored else ():
            sample.set_metainfo(dict(content_key=content_key(image, sample)))
        with torch.autocast(kind, torch.bfloat16) if bf16 else nullcontext():
            if slow is None:
                tokens = model._forward(inputs, samples)
            else:
                tokens = slow.reg_token(inputs, padding, texts)
            target = true_boxes(samples, tokens.float())
            losses = model.bbox_head.loss(tokens, target)
        loss = sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def memory_of(way: str, expressions: int, device: str) -> list[float]:
    """Peak memory of a way in a process of its own, of the host and of a GPU."""
    command = [sys.executable, __file__, '--memory', way, '--device', device]
    command += ['--expressions', str(expressions)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stderr.strip().splitlines()[-1].split()]


def main() -> None:
    """Measure, print."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    if args.memory:
        make_step(args.memory, args.expressions, device=args.device)()
        logging.info('%f %f', peak_mib(), device_peak_mib())
        return
    logging.info('%s', describe(args.device))
    with tempfile.TemporaryDirectory() as folder:
        steps = {
            way: make_step(way, args.expressions, False, args.device, folder)
            for way in WAYS
        }
        for way in ('faithful', 'grouped') if args.bf16 else ():
            steps[f'{way}, bf16'] = make_step(way, args.expressions, True, args.device)
        seconds = alternate(steps, args.rounds)
    for way, taken in seconds.items():
        logging.info(
            '%-15s: %5.1f expressions a second, %4.2f x',
            *(way, args.expressions / taken, seconds['published'] / taken),
        )
    used = {way: memory_of(way, args.expressions, args.device) for way in IN_MEMORY}
    for number, what in enumerate(('', ' of the GPU')):
        for way, mib in used.items():
            if mib[number]:
                logging.info(
                    'peak memory%s, %-10s: %5.0f MiB, %.2f x',
                    *(what, way, mib[number], mib[number] / used['published'][number]),
                )


if __name__ == '__main__':
    main()
