"""Predictions a second: the published way against ours, in one run.

    python benchmarks/inference.py --expressions 7
    python benchmarks/inference.py --expressions 1 7 --queries 5
    python benchmarks/inference.py --expressions 1 7 --again

ViT-B/16 at 224 with random weights, images of 4:3. The published way encodes the
image again for each expression, pads it to 77 tokens and sends all tokens through
every layer. Prints the ratio as `4.2 x`, the largest difference of the boxes, and a
roofline; the same table on a GPU. With --again, ours also on images whose visual tokens
are in the cache, the key of their content included. With --queries, a model of so many
boxes with scores for each expression runs beside them, in turn.
"""

import argparse
import copy
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from machine import (
    add_device_option,
    alternate,
    describe,
    device_peak_mib,
    matmul_gflops,
    peak_mib,
)
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from published_path import PublishedPath
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import projects.clip_vg  # noqa: F401
from projects.clip_vg.deployment.compiled import compile_for_inference
from projects.clip_vg.models import CLIPVG
from projects.clip_vg.models.clip_vg import patch_padding
from projects.clip_vg.models.data_preprocessor import pixel_padding
from projects.clip_vg.models.visual_token_cache import VisualTokenCache, content_key

MODEL = Path(__file__).parents[1] / 'configs/_base_/models/clip_vg_vit-b16.py'
WORDS = ('left', 'man', 'in', 'a', 'dark', 'red', 'shirt', 'with', 'white', 'cups')
SIZE, LONG, SHORT = 224, 224, 168


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--expressions',
        type=int,
        nargs='+',
        default=[1, 4, 7, 16],
        help='numbers of expressions of an image (default: 1 4 7 16)',
    )
    parser.add_argument(
        '--batch-size',
        type=int,
        default=8,
        help='images in a batch (default: %(default)s)',
    )
    parser.add_argument(
        '--rounds',
        type=int,
        default=3,
        help='timed rounds of each way (default: %(default)s)',
    )
    parser.add_argument(
        '--queries',
        type=int,
        help='measure a model of so many queries as well (default: of one only)',
    )
    parser.add_argument(
        '--again',
        action='store_true',
        help='measure ours on images seen before as well (default: new images only)',
    )
    parser.add_argument(
        '--bf16',
        action='store_true',
        help='measure ours in bfloat16 as well (default: float32 only)',
    )
    parser.add_argument(
        '--compile',
        action='store_true',
        help="compile the last of them by PyTorch's compiler (default: do not)",
    )
    add_device_option(parser)
    parser.add_argument(
        '--memory',
        choices=['published', 'ours'],
        help='only measure the memory of this way (default: time of both)',
    )
    return parser.parse_args()


def build_model(**options: object) -> CLIPVG:
    """ViT-B/16 with random weights of one seed, in eval mode.

    Args:
        options: Of :class:`CLIPVG`, in the place of the config's.
    """
    logging.getLogger('mmengine').setLevel(logging.ERROR)
    MMLogger.get_instance('benchmark', log_level='ERROR')
    init_default_scope('mmdet')
    cfg = Config.fromfile(MODEL).model
    cfg.visual_encoder.pretrained = cfg.text_encoder.pretrained = None
    torch.manual_seed(0)
    model = MODELS.build(dict(cfg, **options))
    model.init_weights()
    return model.eval()


def make_batch(
    images: int, expressions: int, device: str = 'cpu'
) -> tuple[Tensor, list[DetDataSample]]:
    """Normalised images with a letterbox, and 1 to 8 words an expression."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.zeros(images, 3, SIZE, SIZE)
    top = (SIZE - SHORT) // 2
    inputs[:, :, top : top + SHORT] = torch.randn(
        images, 3, SHORT, LONG, generator=generator
    )
    samples = []
    for _ in range(images):
        texts = []
        for _ in range(expressions):
            length = int(torch.randint(1, 9, (), generator=generator))
            order = torch.randperm(len(WORDS), generator=generator)[:length]
            texts.append(' '.join(WORDS[i] for i in order.tolist()))
        meta = dict(
            text=texts,
            letterbox=(0, top, LONG, SHORT),
            batch_input_shape=(SIZE, SIZE),
            img_shape=(SIZE, SIZE),
            ori_shape=(480, 640),
            scale_factor=(0.35, 0.35),
        )
        samples.append(DetDataSample(metainfo=meta))
    return inputs.to(device), samples


def published_way(
    slow: PublishedPath, inputs: Tensor, samples: list[DetDataSample], batch_size: int
) -> Callable[[], Tensor]:
    """Boxes cxcywh of all pairs, a batch of pairs at a time."""
    pairs = [(i, text) for i, sample in enumerate(samples) for text in sample.text]
    padding = patch_padding(pixel_padding(samples, inputs), slow.fusion.grid_size)

    @torch.inference_mode()
    def predict() -> Tensor:
        boxes = []
        for start in range(0, len(pairs), batch_size):
            indices, texts = zip(*pairs[start : start + batch_size], strict=True)
            rows = list(indices)
            boxes.append(slow(inputs[rows], padding[rows], texts))
        return torch.cat(boxes)

    return predict


def our_way(
    model: CLIPVG, inputs: Tensor, samples: list[DetDataSample]
) -> Callable[[], Tensor]:
    """The same boxes, all expressions of an image at once; with scores, if it has."""

    @torch.inference_mode()
    def predict() -> Tensor:
        tokens = model._forward(inputs, samples)
        if model.confidence_head is not None:
            model.confidence_head(tokens)
        return model.bbox_head(tokens)

    return predict


def cached_way(
    model: CLIPVG, inputs: Tensor, samples: list[DetDataSample]
) -> Callable[[], Tensor]:
    """The same boxes of images that are in the cache after the first run."""
    model.cache_visual_tokens(VisualTokenCache(1 << 30))
    # Those of the other ways have no key, and pass the cache by.
    own = copy.deepcopy(samples)
    predict_once = our_way(model, inputs, own)

    def predict() -> Tensor:
        for image, sample in zip(inputs, own, strict=True):
            sample.set_metainfo(dict(content_key=content_key(image, sample)))
        return predict_once()

    return predict


def flops(path: Callable[[], object]) -> float:
    """Floating point operations of a run."""
    with FlopCounterMode(display=False) as counter:
        path()
    return counter.get_total_flops()


def memory_of(args: argparse.Namespace, way: str) -> list[float]:
    """Peak memory of one way in a process of its own, of the host and of a GPU."""
    command = [sys.executable, __file__, '--memory', way, '--device', args.device]
    command += ['--expressions', str(args.expressions[-1])]
    command += ['--batch-size', str(args.batch_size)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stderr.strip().splitlines()[-1].split()]


def log_memory(args: argparse.Namespace) -> None:
    """Log the peak memory of both ways, each in a process of its own."""
    used = [memory_of(args, way) for way in ('published', 'ours')]
    for what, published, ours in zip(('', ' of the GPU'), *used, strict=True):
        if published:
            logging.info(
                'peak memory%s at %d expressions: %.0f and %.0f MiB, %.2f x',
                *(what, args.expressions[-1], published, ours, ours / published),
            )


def our_models(args: argparse.Namespace, model: CLIPVG) -> dict[str, CLIPVG]:
    """What is compared with the published way, by name."""
    dtype = torch.bfloat16 if args.bf16 else torch.float32
    ways = {'ours': model}
    if args.queries:
        head = dict(type='GroundingConfidenceHead')
        several = build_model(num_queries=args.queries, confidence_head=head)
        ways[f'{args.queries} queries'] = several
    if args.bf16:
        ways['bf16'] = build_model()
    if args.compile:
        ways['compiled'] = build_model()
    for name, way in ways.items():
        rounded = dtype if name in ('bf16', 'compiled') else torch.float32
        way.requires_grad_(False).to(args.device, rounded)
    if args.compile:
        compile_for_inference(ways['compiled'])
    return ways


def main() -> None:
    """Measure, print."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    model = build_model().to(args.device)
    if args.memory:
        inputs, samples = make_batch(args.batch_size, args.expressions[0], args.device)
        if args.memory == 'ours':
            our_way(model, inputs, samples)()
        else:
            slow = PublishedPath(model).eval()
            published_way(slow, inputs, samples, args.batch_size)()
        logging.info('%f %f', peak_mib(), device_peak_mib())
        return
    model.requires_grad_(False)
    peak = matmul_gflops(device=args.device)
    logging.info('%s; matrix product: %.0f GFLOP/s', describe(args.device), peak)
    slow = PublishedPath(model).eval()
    ways = our_models(args, model)
    for expressions in args.expressions:
        # As many images as make whole batches of the published way, and no more.
        inputs, samples = make_batch(args.batch_size, expressions, args.device)
        paths = {
            'published': published_way(slow, inputs, samples, args.batch_size),
        }
        for name, way in ways.items():
            its_inputs = inputs.to(next(way.parameters()).dtype)
            paths[name] = our_way(way, its_inputs, samples)
        if args.again:
            paths['again'] = cached_way(model, inputs, samples)
        predictions = {name: path().float() for name, path in paths.items()}
        seconds = alternate(paths, args.rounds, warmup=0)
        pairs = args.batch_size * expressions
        for name in paths:
            if 'queries' in name:  # other boxes
                ratio = seconds[name] / seconds['ours']
                compared = f'{ratio:.3f} x the time of ours'
            else:
                difference = predictions[name] - predictions['published']
                compared = f'largest difference {float(difference.abs().max()):.1e}'
            logging.info(
                '%2d expressions, %-9s: %6.1f a second, %4.1f x, %s%s',
                *(expressions, name, pairs / seconds[name]),
                *(seconds['published'] / seconds[name],),
                compared,
                # PyTorch does not count what nn.MultiheadAttention does in eval mode,
                # nor what it has compiled.
                ''
                if name in ('published', 'compiled')
                else f', {flops(paths[name]) / seconds[name] / 1e9:.0f} GFLOP/s',
            )
    log_memory(args)


if __name__ == '__main__':
    main()
