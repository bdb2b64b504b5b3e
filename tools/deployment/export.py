r"""Export a detector for serving on CPUs, in float32 and optionally in 8 bits.

    python tools/deployment/export.py CHECKPOINT --out DIR
    python tools/deployment/export.py CHECKPOINT --out DIR --int8 \
        --calibration-images FOLDER --calibration-questions FILE

DIR gets two ONNX graphs and deployment.json, and is all that
`GroundingInferencer(DIR)` needs. 8 bits are calibrated with images and expressions like
those to be served, or with the training data of the config. See docs/serving.md.
"""

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config, DictAction

from projects.clip_vg.apis import GroundingInferencer
from projects.clip_vg.checkpoints.work_dir import find_weights
from projects.clip_vg.deployment.export import export_detector
from projects.clip_vg.deployment.quantize import (
    labelled_batches,
    quantize_deployment,
    question_batches,
)
from projects.clip_vg.models import CLIPVG
from projects.clip_vg_core.runtime.deployment_file import GRAPHS, graph_name
from projects.clip_vg_core.utils.command_line import run_command
from projects.clip_vg_core.utils.config_types import DATASETS, TRANSFORMS, check_config
from projects.clip_vg_core.utils.folder_lock import lock_folder


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'checkpoint', help='checkpoint, or a work dir: its best one, else its last'
    )
    parser.add_argument(
        '--config', help='config file (default: the one that the checkpoint holds)'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config, e.g. where the training data is',
    )
    parser.add_argument('--out', type=Path, required=True, help='folder to write')
    parser.add_argument(
        '--overwrite', action='store_true', help='replace what was exported there'
    )
    parser.add_argument('--int8', action='store_true', help='also in 8 bits')
    parser.add_argument(
        '--calibration-images',
        type=Path,
        metavar='FOLDER',
        help='images to calibrate with',
    )
    parser.add_argument(
        '--calibration-questions',
        type=Path,
        metavar='FILE',
        help='CSV or JSON Lines of image and expression',
    )
    parser.add_argument(
        '--calibration-pictures',
        type=int,
        default=128,
        help='images to take, evenly spread (default: %(default)s)',
    )
    args = parser.parse_args()
    if bool(args.calibration_images) != bool(args.calibration_questions):
        parser.error('give --calibration-images and --calibration-questions together')
    if args.calibration_images and not args.int8:
        parser.error('calibration is for --int8')
    return args


def calibration(args: argparse.Namespace, cfg: Config) -> Iterator[dict]:
    """Batches of an image each."""
    if args.calibration_images is None:
        if args.config is None:  # then it is the checkpoint that names the data
            check_config(
                cfg.to_dict()['train_dataloader']['dataset'],
                TRANSFORMS | DATASETS,
                str(args.checkpoint),
                'Give --config, or --calibration-images.',
            )
        return labelled_batches(cfg, args.calibration_pictures)
    return question_batches(
        args.calibration_images,
        args.calibration_questions,
        GroundingInferencer(args.out).collate,
        args.calibration_pictures,
    )


def size(folder: Path, kind: str) -> float:
    """MB of the graphs of a kind of weights."""
    files = [folder / graph_name(graph, kind) for graph in GRAPHS]
    return sum(file.stat().st_size for file in files) / 1e6


def main() -> None:
    """Export."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    checkpoint = find_weights(args.checkpoint)
    for path in (args.calibration_images, args.calibration_questions):
        if path is not None and not path.exists():  # not after the export
            raise FileNotFoundError(f'{path}: no such file or folder.')
    loaded = GroundingInferencer(checkpoint, args.config, device='cpu')
    if not isinstance(loaded.model, CLIPVG):
        raise ValueError(
            f'{checkpoint} is a {type(loaded.model).__name__}; only CLIPVG is exported.'
        )
    if args.cfg_options is not None:
        loaded.cfg.merge_from_dict(args.cfg_options)
    with lock_folder(args.out):
        export(args, loaded, checkpoint)


def export(
    args: argparse.Namespace, loaded: GroundingInferencer, checkpoint: Path
) -> None:
    """Write the folder, and log what is in it."""
    export_detector(loaded.model, loaded.cfg, args.out, checkpoint, args.overwrite)
    logging.info('%s: float32, the same predictions as in PyTorch', args.out)
    if args.int8:
        agreement = quantize_deployment(args.out, calibration(args, loaded.cfg))
        logging.info(
            '%s: 8 bits, %.0f MB instead of %.0f; a mean IoU of %.3f with those '
            'in float32 on the calibration data',
            *(args.out, size(args.out, 'int8'), size(args.out, 'float'), agreement),
        )


if __name__ == '__main__':
    run_command(main)
