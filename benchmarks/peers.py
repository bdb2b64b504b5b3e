"""One image, many expressions: the published way, ours in every form, other models.

    python benchmarks/peers.py
    python benchmarks/peers.py --expressions 1 --only 'PyTorch, float32' OWL-ViT

Every row runs in a process of its own, in turn; random weights, an image of 4:3.
OWL-ViT and OWLv2 are given all expressions of an image at once, Grounding
DINO one expression a pass; these are Hugging Face's (``pip install transformers``).
Exported detectors run on the CPU, all others on ``--device``. Prints a table in
Markdown: expressions a second, the time of an image, peak memory (of a GPU, if that is
the device), and the largest difference of a normalised box from the published way.
"""

import argparse
import logging
import math
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inference import build_model, make_batch, our_way, published_way
from machine import (
    add_device_option,
    describe,
    device_peak_mib,
    peak_mib,
    synchronize,
)
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.registry import init_default_scope
from published_path import PublishedPath
from serving import export, served_way
from torch import Tensor, nn

from projects.clip_vg.deployment.compiled import compile_for_inference
from projects.clip_vg_core.utils.command_line import parse_command

PUBLISHED = 'published way'
# Tokens of an expression with its ends: about that of RefCOCO.
TOKENS = 8


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for option, number, what in (
        ('--expressions', 7, 'expressions of the image'),
        ('--rounds', 20, 'timed predictions of each row'),
        ('--seconds', 60, 'time for them; two are made at least'),
        ('--threads', os.cpu_count(), 'threads of each row'),
    ):
        parser.add_argument(
            option, type=int, default=number, help=f'{what} (default: %(default)s)'
        )
    parser.add_argument(
        '--only',
        nargs='+',
        metavar='ROW',
        help='rows whose names begin with one of these (default: all)',
    )
    add_device_option(parser)
    return parse_command(parser, 'benchmarks/peers.py')


def _ours(dtype: torch.dtype, compiled: bool = False) -> Callable:
    def build(
        expressions: int,
        folder: Path,  # noqa: ARG001
        device: str,
    ) -> Callable[[], Tensor]:
        model = build_model().requires_grad_(False).to(device, dtype)
        if compiled:
            compile_for_inference(model)
        inputs, samples = make_batch(1, expressions, device)
        predict = our_way(model, inputs.to(dtype), samples)
        return lambda: bbox_cxcywh_to_xyxy(predict().float()).clamp(0, 1)

    return build


def _published(
    expressions: int,
    folder: Path,  # noqa: ARG001
    device: str,
) -> Callable[[], Tensor]:
    slow = PublishedPath(build_model().requires_grad_(False).to(device)).eval()
    predict = published_way(slow, *make_batch(1, expressions, device), expressions)
    return lambda: bbox_cxcywh_to_xyxy(predict()).clamp(0, 1)


def _served(*options: str) -> Callable:
    def build(
        expressions: int,
        folder: Path,
        device: str,  # noqa: ARG001
    ) -> Callable[[], Tensor]:
        return served_way(folder, options, *make_batch(1, expressions))

    return build


def _other(
    name: str, side: Sequence[int], at_once: bool = True, **options: Any
) -> Callable:
    """A detector of Hugging Face that takes texts, by the start of its classes' names.

    Args:
        name (str): Such as ``OwlViT``; its config's defaults are the published model's.
        side (Sequence[int]): Height and width of the image.
        at_once (bool): Whether it takes all expressions of an image in one pass.
        options: Of its config, where the defaults are another model's.
    """

    def build(
        expressions: int,
        folder: Path,  # noqa: ARG001
        device: str,
    ) -> Callable[[], None]:
        import transformers

        torch.manual_seed(0)
        config = getattr(transformers, f'{name}Config')(**options)
        model: nn.Module = getattr(transformers, f'{name}ForObjectDetection')(config)
        model.eval().requires_grad_(False).to(device)
        words = torch.randint(1000, 2000, (expressions, TOKENS)).to(device)
        image = torch.randn(1, 3, *side).to(device)

        @torch.inference_mode()
        def predict() -> None:
            for texts in [words] if at_once else words.split(1):
                model(
                    pixel_values=image,
                    input_ids=texts,
                    attention_mask=torch.ones_like(texts),
                )

        return predict

    return build


ROWS: Mapping[str, Callable[[int, Path, str], Callable[[], Tensor | None]]] = {
    PUBLISHED: _published,
    'PyTorch, float32': _ours(torch.float32),
    'PyTorch, bfloat16': _ours(torch.bfloat16),
    'PyTorch, bfloat16, compiled': _ours(torch.bfloat16, compiled=True),
    'OpenVINO, float32': _served('openvino', 'f32'),
    'OpenVINO, bfloat16': _served('openvino', 'bf16'),
    'OpenVINO, 8 bits': _served('openvino', 'int8'),
    'ONNX Runtime, float32': _served('onnxruntime', 'f32'),
    'OWL-ViT B/32, 768 x 768': _other('OwlViT', (768, 768)),
    'OWLv2 B/16, 960 x 960': _other(
        'Owlv2', (960, 960), vision_config=dict(patch_size=16, image_size=960)
    ),
    'Grounding DINO-T, 800 x 1066': _other('GroundingDino', (800, 1066), at_once=False),
}


def serve_row(
    name: str,
    expressions: int,
    threads: int,
    folder: Path,
    device: str,
    pipe: Connection,
) -> None:
    """Give seconds, boxes and peak memory of a prediction at each request."""
    torch.set_num_threads(threads)
    logging.disable(logging.WARNING)
    init_default_scope('mmdet')
    try:
        predict = ROWS[name](expressions, folder, device)
        predict()  # what only a first prediction does is not counted
        synchronize()
        started = time.perf_counter()
        predict()
        synchronize()
        pipe.send(time.perf_counter() - started)
    except Exception as error:  # noqa: BLE001  # the other rows go on
        pipe.send(error)
        return
    while pipe.recv():
        started = time.perf_counter()
        boxes = predict()
        synchronize()
        seconds = time.perf_counter() - started
        found = None if boxes is None else boxes.cpu().numpy()
        pipe.send((seconds, found, device_peak_mib() or peak_mib()))


def main() -> None:
    """Measure all rows in turn, print."""
    args = parse_args()
    names = [
        name
        for name in ROWS
        if not args.only or name == PUBLISHED or name.startswith(tuple(args.only))
    ]
    torch.set_num_threads(args.threads)
    context = multiprocessing.get_context('spawn')
    with tempfile.TemporaryDirectory() as temporary:
        # In a process of its own: what an export needs is no row's memory.
        if any(name.startswith(('OpenVINO', 'ONNX')) for name in names):
            exporting = context.Process(target=export, args=(Path(temporary),))
            exporting.start()
            exporting.join()
        pipes, rounds = {}, {}
        for name in names:
            pipes[name], other = context.Pipe()
            options = (name, args.expressions, args.threads, Path(temporary))
            context.Process(
                target=serve_row, args=(*options, args.device, other), daemon=True
            ).start()
            first = pipes[name].recv()
            if isinstance(first, Exception):
                sys.stderr.write(f'{name}: {type(first).__name__}: {first}\n')
                del pipes[name]
                continue
            rounds[name] = min(args.rounds, max(2, round(args.seconds / first)))
        found: dict[str, list] = {name: [] for name in pipes}
        for turn in range(args.rounds):
            for name, pipe in pipes.items():
                if turn < rounds[name]:
                    pipe.send(True)
                    found[name].append(pipe.recv())
        for pipe in pipes.values():
            pipe.send(False)
    sys.stdout.write(f'{describe(args.device)}\n\n{table(found, args.expressions)}\n')


def table(found: Mapping[str, Sequence[tuple]], expressions: int) -> str:
    """What was measured, in Markdown.

    Args:
        found (Mapping): Seconds, boxes (E, 4) or None, and MiB of each prediction.
        expressions (int): Of each prediction.
    """
    columns = ('expressions a second', 'ratio', 'an image, median and p95 (ms)')
    columns += ('peak memory (MiB)', 'largest difference of a box')
    lines = [f'| {expressions} expressions of an image | {" | ".join(columns)} |']
    lines.append('|---' * (1 + len(columns)) + '|')
    medians = {
        name: float(np.median([one[0] for one in runs])) for name, runs in found.items()
    }
    reference = found.get(PUBLISHED, [(math.nan, None, math.nan)])[0][1]
    for name, runs in found.items():
        p95 = float(np.quantile([one[0] for one in runs], 0.95))
        boxes, same = runs[-1][1], ''
        if name != PUBLISHED and boxes is not None and reference is not None:
            same = f'{np.abs(boxes - reference).max():.1e}'
        cells = (
            f'{expressions / medians[name]:.3g}',
            f'{medians.get(PUBLISHED, math.nan) / medians[name]:.2g} x',
            f'{1e3 * medians[name]:,.0f}, {1e3 * p95:,.0f}',
            f'{runs[-1][2]:,.0f}',
            same,
        )
        lines.append(f'| {name} | {" | ".join(cells)} |')
    return '\n'.join(lines)


if __name__ == '__main__':
    main()
