"""Merge LoRA into CLIP's weights: a checkpoint for a config without it.

    python tools/model_converters/merge_adapters.py work_dirs/NAME merged.pth

The result predicts the same boxes. It holds all weights, also where the checkpoint left
the frozen ones out, and its config has no LoRA any more.
"""

import argparse
import logging
from pathlib import Path

from projects.clip_vg_core.utils.command_line import run_command


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'src',
        help='checkpoint file to read, or a work dir (its best checkpoint, else its '
        'last)',
    )
    parser.add_argument('dst', help='checkpoint file to write')
    parser.add_argument(
        '--config',
        help='config file of the training run (default: the one in the checkpoint)',
    )
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='replace an existing file (default: an error)',
    )
    return parser.parse_args()


def main() -> None:
    """Merge and save."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    if Path(args.dst).exists() and not args.overwrite:
        raise FileExistsError(f'{args.dst} exists; give --overwrite to replace it.')
    from mmengine.runner.checkpoint import save_checkpoint

    from projects.clip_vg.apis import GroundingInferencer
    from projects.clip_vg.checkpoints.safe_loading import read_checkpoint
    from projects.clip_vg.checkpoints.work_dir import find_weights
    from projects.clip_vg.models.adapters import LoRA, merge_adapters

    src = find_weights(args.src)
    # It loads strictly, and completes what is without its frozen weights.
    loaded = GroundingInferencer(src, args.config, device='cpu')
    adapted = [m for m in loaded.model.modules() if isinstance(m, LoRA)]
    if not adapted:
        raise ValueError(
            f'{src} has no LoRA: its model has no adapter of this kind, and nothing is '
            'to be merged.'
        )
    merge_adapters(loaded.model)
    for part in loaded.cfg.model.values():
        if isinstance(part, dict) and (part.get('adapter') or {}).get('kind') == 'lora':
            del part['adapter']
    meta = read_checkpoint(src)['meta']
    save_checkpoint(
        dict(
            meta=dict(meta, cfg=loaded.cfg.pretty_text),
            state_dict=loaded.model.state_dict(),
        ),
        args.dst,
        backend_args=dict(backend='AtomicLocalBackend'),
    )
    logging.info('%s: %d adapters are merged', args.dst, len(adapted))


if __name__ == '__main__':
    run_command(main)
