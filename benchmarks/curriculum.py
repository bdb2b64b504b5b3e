"""Accuracy of every way to select or correct labels whose errors are known.

    python benchmarks/curriculum.py --out-dir work_dirs/curriculum

Three noisy sources of synthetic images, a detector on the tiny frozen CLIP, three
seeds. Prints and writes one table; rerun the same command to resume. A smaller
try: ``--seeds 0 --steps 300 --num-images 300``.
"""

import argparse
import json
import logging
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from operator import methodcaller
from pathlib import Path

from curriculum_correction import Corrections
from curriculum_table import make_table
from curriculum_training import run_training

from projects.clip_vg_core.curriculum.search import fixed, greedy_walk
from projects.clip_vg_core.utils.command_line import parse_command

PARTS = (
    *('correction', 'selection', 'sources', 'msa', 'rates', 'verifier'),
    *('single', 'multi', 'grid', 'measures'),
)
DEFAULT_RATES = {
    'template': dict(wrong=0.38, ambiguous=0.04, sloppy=0.1),
    'relation': dict(wrong=0.38, ambiguous=0.04, sloppy=0.1),
    'caption': dict(wrong=0.38, ambiguous=0.04, sloppy=0.1),
}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--out-dir',
        default='work_dirs/curriculum',
        help='folder for training runs and table (default: %(default)s)',
    )
    parser.add_argument(
        '--seeds',
        type=int,
        nargs='+',
        default=[0, 1, 2],
        help='seeds of data and training runs (default: 0 1 2)',
    )
    for option, default, what in (
        ('--steps', 2700, 'steps of one training run'),
        ('--num-images', 1200, 'number of training images'),
        ('--jobs', os.cpu_count(), 'training runs side by side'),
    ):
        parser.add_argument(
            option, type=int, default=default, help=f'{what} (default: %(default)s)'
        )
    parser.add_argument(
        '--greedy-msa',
        action='store_true',
        help='run MSA with a walk over thresholds too: 10 more training runs a seed '
        '(default: without)',
    )
    parser.add_argument(
        '--only', choices=PARTS, help='part of the table to make (default: all)'
    )
    return parse_command(parser, 'benchmarks/curriculum.py', argv)


def _write(out: Path, studies: Sequence[Corrections], only: str | None) -> str:
    """Table of the finished rows, also written to files; a part to its own."""
    rows = [dict(row, seed=study.seed) for study in studies for row in study.rows]
    part = f'_{only}' if only else ''
    (out / f'rows{part}.json').write_text(json.dumps(rows, indent=1))
    table = make_table(rows)
    (out / f'table{part}.md').write_text(table)
    return table


def main() -> None:
    """Run what is missing, then print the table."""
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    logging.getLogger('mmengine').setLevel(logging.ERROR)
    args = parse_args()
    out = Path(args.out_dir).resolve()
    out.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context('spawn')
    os.environ['OMP_NUM_THREADS'] = '1'  # one training run a core is fastest
    with (
        ProcessPoolExecutor(args.jobs, context) as pool,
        ThreadPoolExecutor(len(args.seeds)) as threads,
    ):

        def begin(seed: int) -> Corrections:
            return Corrections(
                out / f'seed{seed}',
                seed,
                DEFAULT_RATES,
                dict(train=args.num_images, val=200, test=400),
                args.steps,
                lambda spec: pool.submit(run_training, spec),
            )

        studies = list(threads.map(begin, args.seeds))
        if args.greedy_msa:
            Corrections.msa_searches = {'h = 0.5': fixed, 'greedy': greedy_walk}
        for part in PARTS:
            if args.only in (None, part):
                list(threads.map(methodcaller(part), studies))
                logging.info('%s', _write(out, studies, args.only))


if __name__ == '__main__':
    main()
