r"""Export a detector for serving on CPUs, in float32 and optionally in 8 bits.

    python tools/deployment/export.py CHECKPOINT --out-dir DIR
    python tools/deployment/export.py CHECKPOINT --out-dir DIR --int8 \
        --calibration-images DIR --calibration-expressions FILE

DIR gets two ONNX graphs and deployment.json, and is all that
`GroundingInferencer(DIR)` needs. 8 bits are calibrated with images and expressions like
those to be served, or with the training data of the config. See docs/serving.md.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.append(str(Path(__file__).parents[1]))
from train import add_cfg_options, read_cfg_options

# isort: split
from projects.clip_vg_core.runtime.deployment_file import GRAPHS, graph_name
from projects.clip_vg_core.utils.command_line import parse_command, run_command
from projects.clip_vg_core.utils.config_types import DATASETS, TRANSFORMS, check_config
from projects.clip_vg_core.utils.data_root import replace_data_root
from projects.clip_vg_core.utils.folder_lock import lock_folder

if TYPE_CHECKING:
    from mmengine.config import Config

    from projects.clip_vg.apis import GroundingInferencer


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'checkpoint',
        help='checkpoint file, or work dir (its best checkpoint, else its last)',
    )
    parser.add_argument(
        '--config', help='config file (default: the one in the checkpoint)'
    )
    parser.add_argument(
        '--data-root',
        metavar='DIR',
        help='folder of the training data, for calibration (default: as the config '
        'says)',
    )
    add_cfg_options(parser)
    parser.add_argument(
        '--out-dir',
        type=Path,
        required=True,
        metavar='DIR',
        help='folder for the exported detector',
    )
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='replace an exported detector (default: an error)',
    )
    parser.add_argument(
        '--int8',
        action='store_true',
        help='also write weights of 8 bits (default: float32 only)',
    )
    parser.add_argument(
        '--calibration-images',
        type=Path,
        metavar='DIR',
        help='folder of images to calibrate with (default: the training data of the '
        'config)',
    )
    parser.add_argument(
        '--calibration-expressions',
        type=Path,
        metavar='FILE',
        help='CSV or JSON Lines with an image and an expression in each line (default: '
        'the training data of the config)',
    )
    parser.add_argument(
        '--num-calibration-images',
        type=int,
        default=128,
        help='number of images to calibrate with, evenly spread (default: %(default)s)',
    )
    args = parse_command(parser, 'tools/deployment/export.py')
    if bool(args.calibration_images) != bool(args.calibration_expressions):
        parser.error('give --calibration-images and --calibration-expressions together')
    if args.calibration_images and not args.int8:
        parser.error('calibration is for --int8')
    return args


def labelled(args: argparse.Namespace, cfg: Config) -> list[dict]:
    """Batches of one image of the training data each, read before any is needed.

    Raises:
        FileNotFoundError: The data are not where the config says.
        ValueError: The config names none.
    """
    from projects.clip_vg.deployment.quantize import labelled_batches

    advice = 'Give --calibration-images DIR --calibration-expressions FILE'
    if 'train_dataloader' not in cfg:
        raise ValueError(
            f'--int8 is calibrated with training data, and the config of '
            f'{args.config or args.checkpoint} names none. {advice}.'
        )
    if args.config is None:  # then it is the checkpoint that names the data
        check_config(
            cfg.to_dict()['train_dataloader']['dataset'],
            TRANSFORMS | DATASETS,
            str(args.checkpoint),
            'Give --config, or --calibration-images.',
        )
    try:
        return list(labelled_batches(cfg, args.num_calibration_images))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'--int8 is calibrated with the training data of the config: {error} '
            f'{advice}, or --data-root DIR.'
        ) from error


def size(folder: Path, kind: str) -> float:
    """MB of the graphs of a kind of weights."""
    files = [folder / graph_name(graph, kind) for graph in GRAPHS]
    return sum(file.stat().st_size for file in files) / 1e6


def main() -> None:
    """Export."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    from projects.clip_vg.apis import GroundingInferencer
    from projects.clip_vg.checkpoints.work_dir import find_weights
    from projects.clip_vg.models import CLIPVG

    checkpoint = find_weights(args.checkpoint)
    for path in (args.calibration_images, args.calibration_expressions):
        if path is not None and not path.exists():  # not after the export
            raise FileNotFoundError(f'{path}: no such file or folder.')
    loaded = GroundingInferencer(checkpoint, args.config, device='cpu')
    if not isinstance(loaded.model, CLIPVG):
        raise ValueError(
            f'{checkpoint} is a {type(loaded.model).__name__}; only CLIPVG is exported.'
        )
    if args.data_root is not None:
        replace_data_root(loaded.cfg, args.data_root)
    if args.cfg_options is not None:
        loaded.cfg.merge_from_dict(read_cfg_options(args.cfg_options))
    with lock_folder(args.out_dir):
        export(args, loaded, checkpoint)


def export(
    args: argparse.Namespace, loaded: GroundingInferencer, checkpoint: Path
) -> None:
    """Write the folder, and log what is in it."""
    from projects.clip_vg.apis import GroundingInferencer
    from projects.clip_vg.deployment.export import export_detector
    from projects.clip_vg.deployment.quantize import (
        quantize_deployment,
        question_batches,
    )

    batches: Iterable[dict] = []
    if args.int8 and args.calibration_images is None:
        batches = labelled(args, loaded.cfg)
    export_detector(loaded.model, loaded.cfg, args.out_dir, checkpoint, args.overwrite)
    logging.info('%s: float32, the same predictions as in PyTorch', args.out_dir)
    if args.int8:
        if args.calibration_images is not None:
            batches = question_batches(
                args.calibration_images,
                args.calibration_expressions,
                GroundingInferencer(args.out_dir).collate,
                args.num_calibration_images,
            )
        agreement = quantize_deployment(args.out_dir, batches)
        logging.info(
            '%s: 8 bits, %.0f MB instead of %.0f; a mean IoU of %.3f with those '
            'in float32 on the calibration data',
            args.out_dir,
            size(args.out_dir, 'int8'),
            size(args.out_dir, 'float'),
            agreement,
        )


if __name__ == '__main__':
    run_command(main)
