r"""Make a folder for the Hugging Face hub: safetensors, config and model card.

    python tools/model_converters/publish.py work_dirs/NAME --out-dir DIR \
        --metrics work_dirs/NAME/TIMESTAMP/TIMESTAMP.json --license apache-2.0
    hf upload OWNER/NAME DIR

`GroundingInferencer.from_pretrained(DIR)`, or that of 'OWNER/NAME', reads it, and so
does every tool that takes a checkpoint. The card has the metrics of the files given,
and no others.
"""

from __future__ import annotations

import argparse
import logging
import re
from pathlib import Path

from projects.clip_vg_core.utils.command_line import run_command


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
        '--out-dir',
        type=Path,
        required=True,
        metavar='DIR',
        help='folder for the published detector',
    )
    parser.add_argument(
        '--metrics',
        type=Path,
        nargs='+',
        default=[],
        metavar='FILE',
        help='metrics of this checkpoint for the card: WORK_DIR/TIMESTAMP/'
        'TIMESTAMP.json of tools/test.py (default: none)',
    )
    parser.add_argument(
        '--license',
        metavar='ID',
        help="licence of the weights, an identifier of the hub such as 'apache-2.0' "
        '(default: not stated)',
    )
    parser.add_argument(
        '--repo-id',
        metavar='OWNER/NAME',
        help='repository that the card names (default: DIR)',
    )
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='replace files of the folder (default: an error)',
    )
    args = parser.parse_args()
    if args.license and not re.fullmatch(r'[a-z0-9][a-z0-9.+-]*', args.license):
        parser.error(
            f"--license {args.license}: expected an identifier such as 'apache-2.0', "
            "'cc-by-4.0' or 'other'"
        )
    return args


def main() -> None:
    """Publish."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    from mmengine.config import Config

    from projects.clip_vg.apis import GroundingInferencer
    from projects.clip_vg.checkpoints.checkpoint_config import parse_config_text
    from projects.clip_vg.checkpoints.safe_loading import read_checkpoint
    from projects.clip_vg.checkpoints.work_dir import find_weights
    from projects.clip_vg.deployment.model_card import read_evaluation
    from projects.clip_vg.deployment.publish import publish_detector
    from projects.clip_vg.models import CLIPVG

    src = find_weights(args.checkpoint)
    evaluations = [read_evaluation(path, src) for path in args.metrics]
    # It loads strictly, and completes what is without its frozen weights.
    loaded = GroundingInferencer(src, args.config, device='cpu')
    if not isinstance(loaded.model, CLIPVG):
        raise ValueError(
            f'{src} is a {type(loaded.model).__name__}; only CLIPVG is published.'
        )
    meta = read_checkpoint(src)['meta']
    # With the names of the weights that it began with, which an inferencer leaves out.
    training = (
        Config.fromfile(args.config)
        if args.config
        else parse_config_text(meta['cfg'], str(src))
    )
    numbers = publish_detector(
        loaded.model,
        loaded.cfg,
        training,
        meta,
        args.out_dir,
        args.repo_id or args.out_dir.resolve().name,
        evaluations,
        args.license,
        args.overwrite,
    )
    logging.info('%s: %s numbers, read again and equal', args.out_dir, f'{numbers:,}')


if __name__ == '__main__':
    run_command(main)
