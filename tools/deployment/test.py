"""Score an exported detector on the test data of a config.

    python tools/deployment/test.py CONFIG FOLDER --precision int8

Prints the accuracy that tools/test.py prints, of the detector as it is served.
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
from train import add_common_options, load_config

# isort: split
from projects.clip_vg_core.runtime.graphs import BACKENDS, PRECISIONS
from projects.clip_vg_core.utils.command_line import run_command


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_common_options(parser)
    parser.add_argument(
        'checkpoint',
        type=Path,
        help='exported folder, which tools/deployment/export.py wrote',
    )
    parser.add_argument(
        '--backend',
        choices=BACKENDS,
        default='openvino',
        help='what runs the graphs (default: %(default)s)',
    )
    parser.add_argument(
        '--precision',
        choices=PRECISIONS,
        default='f32',
        help='precision of the inference (default: %(default)s)',
    )
    parser.add_argument(
        '--threads', type=int, help='threads of the inference (default: all cores)'
    )
    return parser.parse_args()


def main() -> None:
    """Test."""
    args = parse_args()
    from mmengine.runner import Runner

    from projects.clip_vg.deployment.served_clip_vg import use_exported
    from projects.clip_vg.engine.run_check_hook import check_run

    cfg = load_config(args)
    use_exported(
        cfg,
        args.checkpoint,
        backend=args.backend,
        precision=args.precision,
        threads=args.threads,
    )
    runner = Runner.from_cfg(cfg)
    check_run(runner)
    runner.test()


if __name__ == '__main__':
    run_command(main)
