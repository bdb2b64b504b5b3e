"""Train a detector: MMDetection's options, on any config of ours or of theirs.

    python tools/train.py configs/clip_vg_refcoco.py --data-root data/coco

Logs and checkpoints go into the work dir; --resume resumes an interrupted run.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from projects.clip_vg_core.utils.command_line import run_command
from projects.clip_vg_core.utils.data_root import replace_data_root
from projects.clip_vg_core.utils.folder_lock import lock_folder

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.runner import Runner


def add_common_options(
    parser: argparse.ArgumentParser,
    launchers: Sequence[str] = ('none', 'pytorch', 'slurm', 'mpi'),
) -> None:
    """The options that the tools share."""
    parser.add_argument('config', help='config file, such as configs/NAME.py')
    parser.add_argument(
        '--work-dir',
        help='folder for logs and checkpoints (default: work_dirs/NAME of the config)',
    )
    parser.add_argument(
        '--data-root',
        metavar='DIR',
        help='folder of the training, validation and test data (default: as the config '
        'says for each)',
    )
    add_cfg_options(parser)
    parser.add_argument(
        '--launcher',
        choices=launchers,
        default='none',
        help='what started the processes, if there are several (default: %(default)s)',
    )
    # torch.distributed.launch gives it.
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS
    )


def key_value(text: str) -> str:
    """A ``key=value`` of --cfg-options as it is."""
    if '=' not in text:
        raise argparse.ArgumentTypeError(f'{text!r}: expected key=value')
    return text


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """The option --cfg-options, of which :func:`read_cfg_options` makes a dict."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        type=key_value,
        metavar='KEY=VALUE',
        help='override settings of the config: key=value, nested.key=value, '
        'key="[a,b]" (default: none)',
    )


def read_cfg_options(words: Sequence[str]) -> dict[str, Any]:
    """The values of --cfg-options by their keys, as MMEngine's ``DictAction`` has them.

    Parsed after the command line, since MMEngine imports PyTorch.
    """
    from mmengine.config import DictAction

    options = argparse.Namespace(values={})
    DictAction([], 'values')(argparse.ArgumentParser(), options, words)
    return options.values


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_common_options(parser)
    parser.add_argument(
        '--amp',
        action='store_true',
        help='train in mixed precision: float16 on a GPU, bfloat16 on a CPU (default: '
        'float32)',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate from auto_scale_lr.base_batch_size of the config '
        'to the batch size of all processes (default: as the config has it)',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from a checkpoint, or the last one of a work dir; without a value '
        'the last one of --work-dir, if it has one (default: begin anew)',
    )
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def load_config(args: argparse.Namespace) -> Config:
    """The config as the command line changes it."""
    from mmengine.config import Config

    from projects.clip_vg.compat import setup_cpu_distributed

    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    if args.data_root is not None:
        replace_data_root(cfg, args.data_root)
    if args.cfg_options is not None:
        cfg.merge_from_dict(read_cfg_options(args.cfg_options))
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(args.config).stem)
    setup_cpu_distributed(cfg)
    return cfg


def resume(cfg: Config, source: str | None) -> None:
    """Resume a training run.

    Args:
        cfg (Config): Changed in place. A ``load_from`` of its own stays where there is
            nothing to go on from.
        source (str, optional): A checkpoint, or a work dir. None: the config's.
    """
    from projects.clip_vg.checkpoints.work_dir import last_checkpoint

    if source is None or Path(source).is_dir():
        last = last_checkpoint(source or cfg.work_dir)
        if last is None and source is not None:
            raise FileNotFoundError(f'--resume {source}: the folder has no checkpoint.')
        source = None if last is None else str(last)
    if source is not None:
        cfg.resume, cfg.load_from = True, source


def scale_one_cycle(runner: Runner) -> None:
    """Scale the highest learning rate of one-cycle schedules as MMEngine scales lr.

    These take no rate of the optimizer, so scaling that one has no effect.
    """
    from projects.clip_vg.engine.exact_resume_hook import train_batch_size

    scaling = runner.auto_scale_lr or {}
    if not scaling.get('enable') or not isinstance(runner.param_schedulers, list):
        return
    batch = train_batch_size(runner)
    for schedule in runner.param_schedulers:
        if isinstance(schedule, dict) and 'OneCycle' in str(schedule.get('type')):
            given = schedule['eta_max']
            schedule['eta_max'] = given * batch / scaling['base_batch_size']
            runner.logger.info(
                f'eta_max of {schedule["type"]}: {given} is for a batch of '
                f'{scaling["base_batch_size"]}, {schedule["eta_max"]:g} for {batch}.'
            )


def main() -> None:
    """Train."""
    args = parse_args()
    import torch
    from mmengine.registry import RUNNERS
    from mmengine.runner import Runner

    from projects.clip_vg.engine.run_check_hook import check_run, refuse_no_steps

    cfg = load_config(args)
    # AmpOptimWrapper refuses to run on a CPU.
    if args.amp:
        if torch.cuda.is_available():
            cfg.optim_wrapper.type = 'AmpOptimWrapper'
            cfg.optim_wrapper.loss_scale = 'dynamic'
        else:
            cfg.optim_wrapper.type = 'BFloat16OptimWrapper'
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ValueError(
                f'{args.config} has no auto_scale_lr.base_batch_size, the batch size '
                'its learning rate is for.'
            )
        cfg.auto_scale_lr.enable = True
    if args.resume is not None:
        resume(cfg, None if args.resume == 'auto' else args.resume)
    # Two runs in one work dir would delete each other's checkpoints.
    with lock_folder(cfg.work_dir):
        custom = 'runner_type' in cfg
        runner = RUNNERS.build(cfg) if custom else Runner.from_cfg(cfg)
        check_run(runner)
        # Before schedules, which fail in ways of their own without a step.
        refuse_no_steps(runner.train_loop)
        scale_one_cycle(runner)
        runner.train()


if __name__ == '__main__':
    run_command(main)
