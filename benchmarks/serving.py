"""Predictions a second on a CPU: the published way against what can be served.

    python benchmarks/serving.py --expressions 7

ViT-B/16 at 224 with random weights, images of 4:3, as in ``inference.py``: PyTorch in
float32 and bfloat16, and the exported detector in OpenVINO and ONNX Runtime. All run in
turn in one process. Prints ratios as `4.2 x`, and the largest difference of a box.
"""

import argparse
import logging
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import torch
from data import PIPELINE
from inference import MODEL, SIZE, build_model, make_batch, our_way, published_way
from machine import alternate, describe
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.config import Config
from published_path import PublishedPath
from torch import Tensor

from projects.clip_vg.deployment.export import export_detector
from projects.clip_vg.deployment.quantize import quantize_deployment
from projects.clip_vg.deployment.served_clip_vg import ServedCLIPVG
from projects.clip_vg_core.runtime.deployment_file import NAME
from projects.clip_vg_core.utils.command_line import parse_command

SERVED = [
    ('openvino', 'f32'),
    ('openvino', 'bf16'),
    ('openvino', 'int8'),
    ('onnxruntime', 'f32'),
    ('onnxruntime', 'int8'),
]


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
        '--out-dir',
        type=Path,
        help='folder for the exported detector (default: one that is removed)',
    )
    return parse_command(parser, 'benchmarks/serving.py')


def calibration() -> Iterator[dict]:
    """Images of noise, each with some expressions."""
    generator = torch.Generator().manual_seed(1)
    _, samples = make_batch(16, 4)
    for sample in samples:
        image = torch.randint(
            256, (3, SIZE, SIZE), dtype=torch.uint8, generator=generator
        )
        yield dict(inputs=[image], data_samples=[sample])


def export(folder: Path) -> None:
    """Write the graphs, if they are not there."""
    if not (folder / NAME).is_file():
        cfg = Config.fromfile(MODEL)
        pipeline = Config.fromfile(PIPELINE).test_pipeline
        cfg.test_dataloader = dict(dataset=dict(pipeline=pipeline))
        export_detector(build_model(), cfg, folder)
        quantize_deployment(folder, calibration())


def served_way(
    folder: Path, options: tuple[str, str], inputs: Tensor, samples: list[DetDataSample]
) -> Callable[[], Tensor]:
    """Boxes xyxy in [0, 1] of all expressions."""
    model = ServedCLIPVG(str(folder), *options)

    def predict() -> Tensor:
        found = model.predict(inputs, samples, rescale=False)
        return torch.cat([sample.pred_instances.bboxes for sample in found]) / SIZE

    return predict


def main() -> None:
    """Measure, print."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.out_dir or Path(temporary)
        export(folder)
        packages = ('openvino', 'onnxruntime', 'nncf')
        logging.info(
            '%s, %s', describe(), ', '.join(f'{p} {version(p)}' for p in packages)
        )
        model = build_model().requires_grad_(False)
        half = build_model().requires_grad_(False).bfloat16()
        slow = PublishedPath(model).eval()
        for expressions in args.expressions:
            inputs, samples = make_batch(args.batch_size, expressions)
            paths = {
                'published': published_way(slow, inputs, samples, args.batch_size),
                'PyTorch f32': our_way(model, inputs, samples),
                'PyTorch bf16': our_way(half, inputs.bfloat16(), samples),
            }
            predictions = {
                name: bbox_cxcywh_to_xyxy(path().float()).clamp(0, 1)
                for name, path in paths.items()
            }
            for options in SERVED:
                name = ' '.join(options)
                paths[name] = served_way(folder, options, inputs, samples)
                predictions[name] = paths[name]()
            seconds = alternate(paths, args.rounds, warmup=0)
            for name in paths:
                logging.info(
                    '%2d expressions, %-16s: %6.1f a second, %4.1f x, largest '
                    'difference %.1e',
                    *(expressions, name, args.batch_size * expressions / seconds[name]),
                    seconds['published'] / seconds[name],
                    (predictions[name] - predictions['published']).abs().max(),
                )


if __name__ == '__main__':
    main()
