"""Select reliable pseudo-labels, and train on them: self-paced adapting (SSA, MSA).

    python tools/self_paced.py CONFIG

One annotation file in the config's training data is SSA, several are MSA. Trains the
measurers, scores all labels, searches the thresholds, and ends with final/model.pth,
curriculum.json and report.html in the work dir. Rerun the same command to resume.
"""

import argparse
import shlex
from pathlib import Path

from train import add_common_options, load_config, read_cfg_options

from projects.clip_vg_core.curriculum.search_settings import (
    MEASURERS,
    STRATEGIES,
    Settings,
)
from projects.clip_vg_core.utils.command_line import run_command


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_common_options(parser, ('none', 'pytorch', 'slurm'))
    parser.add_argument(
        '--strategy',
        choices=STRATEGIES,
        default='greedy',
        help='how thresholds are selected (default: %(default)s, as in the paper)',
    )
    parser.add_argument(
        '--criterion',
        choices=['val', 'label-free'],
        default='val',
        help='what trials are compared by: accuracy on val, as in the paper, or '
        'agreement with pseudo-labels of held-out images, which needs no human label '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--start',
        type=float,
        default=0.5,
        help='first threshold of reliability, in [0, 1] (default: %(default)s)',
    )
    parser.add_argument(
        '--step',
        type=float,
        default=0.1,
        help='distance between thresholds, in (0, 0.5] (default: %(default)s)',
    )
    parser.add_argument(
        '--valley',
        choices=['otsu', 'mixture'],
        default='otsu',
        help='how --strategy valley and online read a threshold off the histogram '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--order',
        nargs='+',
        metavar='SOURCE',
        help='sources from simple to complex (default: by the mean number of entities '
        'or words of an expression)',
    )
    parser.add_argument(
        '--folds',
        type=int,
        default=1,
        help='measurers of a source; from 2 on each scores images that it was not '
        'trained on (default: %(default)s)',
    )
    measurer = parser.add_mutually_exclusive_group()
    measurer.add_argument(
        '--measurer',
        choices=[name for name in MEASURERS if name != 'file'],
        help='what scores the labels: a model trained on a source, as in the paper; '
        'zero-shot CLIP matching or zero-shot grounding, for which nothing is trained '
        'and with which --strategy online begins; or the mean of model and zero-shot. '
        'With --correct, what votes beside the models; model: nothing does '
        '(default: model; with --correct and --folds 1: clip)',
    )
    measurer.add_argument(
        '--agreement',
        action='store_true',
        help='the same as --measurer clip (default: --measurer)',
    )
    measurer.add_argument(
        '--measurer-file',
        metavar='FILE',
        help='scores from elsewhere: CSV or JSON Lines of sample_id and probability '
        'or bbox (default: --measurer)',
    )
    parser.add_argument(
        '--correct',
        action='store_true',
        help='correct labels in the place of selecting them: kept where two measurers '
        'confirm the box, moved where both point to the same other box of the image, '
        'else dropped (default: select, as in the paper)',
    )
    parser.add_argument(
        '--rounds',
        type=int,
        help='with --correct: rounds, each with a training run whose model votes in '
        'the next one (default: 2)',
    )
    parser.add_argument(
        '--init',
        choices=['clip', 'previous'],
        default='clip',
        help='what the training of a trial begins from: CLIP, as in the paper, or the '
        'model that it builds on, of the sources before or of the measurer '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--unhelpful',
        choices=['skip', 'keep'],
        default='skip',
        help='what becomes of a source that does not raise the score: left out, or '
        "kept as by the paper's loop (default: %(default)s)",
    )
    parser.add_argument(
        '--equal',
        choices=['steps', 'epochs'],
        default='steps',
        help='what trials on few and on many labels have in common: steps, or epochs '
        'over the selected labels as in the official code (default: %(default)s)',
    )
    parser.add_argument(
        '--processes',
        type=int,
        default=1,
        help='processes of one training run, with --launcher (default: %(default)s)',
    )
    parser.add_argument(
        '--jobs',
        type=int,
        default=1,
        help='training runs side by side, through Ray (default: %(default)s)',
    )
    parser.add_argument(
        '--gpus',
        type=int,
        default=0,
        help='GPUs of one training run, with --jobs (default: %(default)s)',
    )
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='remove a search in this work dir that was begun with other settings or '
        'labels (default: an error)',
    )
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help='print the plan and its cost, and stop (default: run it)',
    )
    args = parser.parse_args()
    if not 0 < args.step <= 0.5 or not 0 <= args.start <= 1 or args.folds < 1:
        parser.error('expected 0 < --step <= 0.5, 0 <= --start <= 1, --folds >= 1')
    if args.rounds is not None and (args.rounds < 1 or not args.correct):
        parser.error('expected --rounds >= 1, and --correct with it')
    args.rounds = (args.rounds or 2) if args.correct else 0
    usual = 'clip' if args.correct and args.folds == 1 else 'model'
    args.measurer = 'clip' if args.agreement else args.measurer or usual
    args.measurer = 'file' if args.measurer_file else args.measurer
    is_trained = args.correct or args.measurer in ('model', 'mean')
    if not is_trained and args.folds > 1:
        parser.error(f'{args.measurer} trains no measurers; expected --folds 1')
    return args


def main() -> None:
    """Run the search."""
    args = parse_args()
    from mmengine.logging import print_log
    from mmengine.registry import init_default_scope

    from projects.clip_vg.self_paced.launch import Launcher
    from projects.clip_vg.self_paced.search import SelfPaced
    from projects.clip_vg_core.visualization.curriculum_report import write_report

    # The launcher starts the training runs; this process is no rank of a job.
    launcher, args.launcher = args.launcher, 'none'
    cfg = load_config(args)
    work_dir = Path(cfg.work_dir)
    changed = read_cfg_options(args.cfg_options or [])
    if args.work_dir is None and not changed.get('work_dir'):
        work_dir = Path('work_dirs') / (
            f'{Path(args.config).stem}_{"correct" if args.correct else args.strategy}'
            + dict(model='', clip='_agreement').get(args.measurer, f'_{args.measurer}')
        )
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    search = SelfPaced(
        cfg,
        work_dir,
        Settings(
            args.strategy,
            args.criterion,
            args.start,
            args.step,
            args.valley,
            tuple(args.order) if args.order else None,
            args.folds,
            args.measurer,
            args.measurer_file,
            args.init,
            args.unhelpful,
            args.equal,
            args.rounds,
        ),
        Launcher(Path(__file__).parent, launcher, args.processes, args.jobs, args.gpus),
    )
    print_log(search.plan())
    if args.dry_run:
        return
    record = search.run(args.overwrite)
    report = write_report(record, search.dataset)
    print_log(f'{record}\n{report}\n{work_dir / "final" / "model.pth"}')
    print_log(
        'To use it: python demo/ground.py IMAGE EXPRESSION '
        f'--checkpoint {shlex.quote(str(work_dir))} --out-dir predictions'
    )


if __name__ == '__main__':
    run_command(main)
