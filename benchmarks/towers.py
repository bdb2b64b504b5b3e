"""Predictions a second with other towers, of real size and random weights.

    python benchmarks/towers.py
    python benchmarks/towers.py --archs RN50 ViT-L-14-CLIPA --expressions 1

One line for each architecture, on one core: parameters, the input and its patches, the
CPU time of a prediction of one image with its expressions, predictions a second of
that time, and the memory that the process has needed until then. CPU time, because it
hardly depends on what else runs; on a GPU, time and memory are the GPU's.
Vocabularies are not needed: token ids are random.
"""

import argparse
import logging
import sys
import time
from types import SimpleNamespace

import torch
from inference import make_batch
from machine import (
    add_device_option,
    describe,
    device_peak_mib,
    peak_mib,
    synchronize,
)
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from projects.clip_vg import get_path
from projects.clip_vg.models import CLIPVG
from projects.clip_vg.models.expression_tokenizer import VocabularyTokenizer

ARCHS = [
    *('ViT-B-16-quickgelu', 'ViT-B-16-SigLIP2', 'EVA02-B-16', 'PE-Core-B-16'),
    *('MobileCLIP2-S2', 'convnext_base_w', 'RN50-quickgelu', 'ViTamin-S'),
]


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--archs',
        nargs='+',
        default=ARCHS,
        help='architectures of open_clip (default: one of each of eight families)',
    )
    parser.add_argument(
        '--expressions',
        type=int,
        default=7,
        help='expressions of the image (default: %(default)s)',
    )
    parser.add_argument(
        '--rounds',
        type=int,
        default=3,
        help='timed predictions, of which the fastest counts (default: %(default)s)',
    )
    add_device_option(parser)
    return parser.parse_args()


def build_model(arch: str) -> CLIPVG:
    """CLIP-VG on an architecture at 224 pixels, if that is possible, in eval mode."""
    cfg = Config.fromfile(get_path('configs/_base_/models/clip_vg_vit-b16.py')).model
    for encoder in (cfg.visual_encoder, cfg.text_encoder):
        encoder.update(arch=arch, pretrained=None)
    cfg.visual_encoder.update(
        extract_layers=None, image_size=224, train_pos_embed=False
    )
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    tokenizer = model.text_encoder.expression_tokenizer
    if isinstance(tokenizer, VocabularyTokenizer):
        model.text_encoder.tokenize = lambda texts: random_ids(texts)
        tokenizer.__dict__['_loaded'] = SimpleNamespace(pad_token_id=0)
    return model.eval()


def random_ids(texts: list[str]) -> torch.Tensor:
    """Token ids of a vocabulary that is not there: one a word, and one for the end."""
    lengths = [len(text.split()) + 1 for text in texts]
    ids = torch.full((len(texts), max(lengths)), VocabularyTokenizer.fill_id)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = torch.randint(3, 1000, (length,))
    return ids


@torch.inference_mode()
def measure(arch: str, expressions: int, rounds: int, device: str) -> str:
    """A row of the table."""
    model = build_model(arch).to(device)
    inputs, samples = make_batch(1, expressions, device)
    # While it waits for a GPU, a process takes next to no time of its own.
    clock = time.process_time if device == 'cpu' else time.perf_counter
    seconds = []
    for _ in range(1 + rounds):  # one to warm up
        synchronize()
        begin = clock()
        model.predict(inputs, samples)
        synchronize()
        seconds.append(clock() - begin)
    visual, text = (
        sum(parameter.numel() for parameter in tower.parameters()) / 1e6
        for tower in (model.visual_encoder, model.text_encoder)
    )
    best = min(seconds[1:])
    rows, columns = model.visual_encoder.grid_size
    return (
        f'| {arch} | {visual:.0f} + {text:.0f} | {rows} x {columns} | {best:.2f} | '
        f'{expressions / best:.1f} | {device_peak_mib() or peak_mib():,.0f} |'
    )


def main() -> None:
    """Print a table."""
    args = parse_args()
    logging.disable(logging.WARNING)
    init_default_scope('mmdet')
    torch.set_num_threads(1)
    sys.stdout.write(
        f'{describe(args.device)}\n'
        '| architecture | M weights | patches | s | expressions/s | MiB |\n'
        '|---|---|---|---|---|---|\n'
    )
    for arch in args.archs:
        sys.stdout.write(
            measure(arch, args.expressions, args.rounds, args.device) + '\n'
        )
        sys.stdout.flush()


if __name__ == '__main__':
    main()
