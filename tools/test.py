"""Score a checkpoint: MMDetection's options, on any config of ours or of theirs.

    python tools/test.py configs/clip_vg_refcoco.py work_dirs/clip_vg_refcoco

Prints the metrics of test_evaluator in the config, of all splits in one run.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from train import add_common_options, load_config

from projects.clip_vg_core.utils.command_line import run_command

if TYPE_CHECKING:
    from mmengine.config import Config


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_common_options(parser)
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='checkpoint file, work dir (its best checkpoint, else its last), or '
        'exported folder (default: none, for models like ZeroShotGrounding)',
    )
    parser.add_argument(
        '--out',
        metavar='FILE.pkl',
        help="file for the predictions, as MMDetection's DumpDetResults (default: not "
        'written)',
    )
    parser.add_argument(
        '--show',
        action='store_true',
        help='show every image with its predictions in a window (default: do not)',
    )
    parser.add_argument(
        '--show-dir',
        metavar='NAME',
        help='draw every image into WORK_DIR/TIMESTAMP/NAME, or into an absolute path '
        '(default: do not)',
    )
    parser.add_argument(
        '--wait-time',
        type=float,
        default=2,
        help='seconds that --show shows an image (default: %(default)s)',
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help='average predictions of several views (tta_model and tta_pipeline of the '
        'config; default: one view)',
    )
    args = parser.parse_args()
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out must end with .pkl or .pickle, got {args.out}')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def augment(cfg: Config) -> None:
    """Make the config predict from several views of an image."""
    for key in ('tta_model', 'tta_pipeline'):
        if key not in cfg:
            raise ValueError(f'{cfg.filename} has no {key}, which --tta needs.')
    cfg.model = dict(cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def refuse_untrained(cfg: Config) -> None:
    """Refuse a config whose model needs a checkpoint."""
    from mmdet.registry import MODELS

    if getattr(MODELS.get(cfg.model.type), 'needs_checkpoint', True):
        raise ValueError(
            f'{cfg.filename}: {cfg.model.type} is trained, and no checkpoint is given; '
            'expected tools/test.py CONFIG CHECKPOINT.'
        )


def main() -> None:
    """Test."""
    args = parse_args()
    cfg = load_config(args)  # imports compat: before mmdet
    from mmdet.engine.hooks.utils import trigger_visualization_hook
    from mmdet.evaluation import DumpDetResults
    from mmengine.model import is_model_wrapper
    from mmengine.registry import RUNNERS
    from mmengine.runner import Runner

    from projects.clip_vg.checkpoints.work_dir import find_checkpoint
    from projects.clip_vg.deployment.served_clip_vg import use_exported
    from projects.clip_vg.engine.run_check_hook import check_run

    if args.checkpoint is None:
        refuse_untrained(cfg)
    else:
        checkpoint = find_checkpoint(args.checkpoint)
        if checkpoint.is_dir():
            use_exported(cfg, checkpoint)
        else:
            cfg.load_from = str(checkpoint)
    if args.tta:
        augment(cfg)
    if args.show or args.show_dir:
        cfg = trigger_visualization_hook(cfg, args)
        if cfg.visualizer.type == 'DetLocalVisualizer':  # one file for each sample
            cfg.visualizer.type = 'GroundingVisualizer'
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    if args.out is not None:
        runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=args.out))
    # Strict: a score of weights that are not the model's would be wrong without a sign.
    check_run(runner, strict=True)
    if args.checkpoint is None:
        model = runner.model
        (model.module if is_model_wrapper(model) else model).init_weights()
    runner.test()


if __name__ == '__main__':
    run_command(main)
