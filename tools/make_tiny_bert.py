"""Make a tiny BERT with random weights, which reads letters.

    python tools/make_tiny_bert.py data/tiny_bert

configs/mm_grounding_dino_synthetic.py has it in the place of bert-base-uncased, so that
Grounding DINO can be tried without a download. It needs the extra `grounding-dino`.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from projects.clip_vg_core.utils.command_line import run_command


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('out_dir', type=Path, help='folder for the model')
    return parser.parse_args()


def main() -> None:
    """Write the folder."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    from projects.clip_vg.synthetic.tiny_bert import make_tiny_bert

    make_tiny_bert(args.out_dir)
    logging.info('%s', args.out_dir)


if __name__ == '__main__':
    run_command(main)
