"""Convert a checkpoint of the official CLIP-VG to MMEngine's layout, or back.

    python tools/model_converters/official_clip_vg.py official.pth converted.pth

Every dimension is read off the weights; nothing may be missing or left over but the
entries that the official code stores and never reads, which are kept for the way back.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from projects.clip_vg_core.utils.command_line import run_command
from projects.clip_vg_core.utils.safe_torch import load_torch

if TYPE_CHECKING:
    from mmengine.config import Config

DEFAULT_CONFIG = Path(__file__).parents[2] / 'configs' / 'clip_vg_refcoco.py'
SPLITS = ('train', 'val', 'test')
UNUSED_KEY = 'released_unused'


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'src',
        help='checkpoint file to read; with --reverse also a work dir (its best '
        'checkpoint, else its last)',
    )
    parser.add_argument('dst', help='checkpoint file to write')
    parser.add_argument(
        '--config',
        default=str(DEFAULT_CONFIG),
        help='config whose data and schedule go with the weights (default: '
        'configs/clip_vg_refcoco.py)',
    )
    parser.add_argument(
        '--reverse',
        action='store_true',
        help='convert to the official layout (default: to the layout of MMEngine)',
    )
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='replace an existing file (default: an error)',
    )
    return parser.parse_args()


def set_image_size(pipeline: Any, before: int, size: int) -> None:
    """Make a pipeline end in a square of ``size`` pixels, not of ``before``."""
    for step in pipeline:
        if isinstance(step, list):
            set_image_size(step, before, size)
        elif step.get('type') == 'Letterbox':
            step['size'] = size
        elif step.get('type') == 'PILResize' and step.get('side', 'long') == 'long':
            if isinstance(step['size'], int):  # a second view may be smaller
                step['size'] = round(step['size'] * size / before)
            else:
                step['size'] = [size - 32 * i for i in range(7) if size > 32 * i]
        elif 'transforms' in step:
            set_image_size(step['transforms'], before, size)


def adapt_config(path: str, model: dict) -> Config:
    """The config at ``path`` for the model that the weights belong to."""
    from mmengine.config import Config, ConfigDict

    cfg = Config.fromfile(path)
    for part, options in model.items():
        # Lists and architectures are replaced, not merged with those of another size.
        cfg.model[part] = ConfigDict({**cfg.model[part], **options})
    size = model['visual_encoder']['arch']['vision_cfg']['image_size']
    loaders = [cfg[f'{key}_dataloader'].dataset.pipeline for key in SPLITS]
    named = [cfg.get(f'{key}_pipeline', []) for key in (*SPLITS, 'tta')]
    square = (step.size for step in loaders[-1] if step.type == 'Letterbox')
    before = next(square, size)
    for pipeline in (*loaders, *named):
        set_image_size(pipeline, before, size)
    return cfg


def check_weights(model: dict) -> None:
    """Refuse entries that are no weights; the message has no file yet."""
    import torch

    from projects.clip_vg.checkpoints.strict_loading import refuse_broken_weights

    for name, value in model.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ValueError(
                f'model, {str(name)[:80]!r}: expected a tensor, found '
                f'{type(value).__name__}'
            )
    refuse_broken_weights(model)


def option(args: dict, name: str, default: Any, most: Any) -> Any:
    """A number among the official options; the message has no file yet."""
    value = args.get(name, default)
    if type(value) is not type(default) or not 0 <= value <= most:
        raise ValueError(
            f'args.{name} is {str(value)[:40]!r}; expected a number of up to {most}'
        )
    return value


def convert(src: str, config: str) -> dict:
    """An official checkpoint as MMEngine's, compared with the model it describes."""
    import torch
    from mmengine.registry import init_default_scope

    from projects.clip_vg.checkpoints.official_layout import (
        describe_model,
        from_official,
    )
    from projects.clip_vg.checkpoints.strict_loading import refuse_other_weights

    # isort: split
    from mmdet.registry import MODELS  # after compat

    checkpoint = load_torch(src)
    known = isinstance(checkpoint, dict)
    if not known or not isinstance(checkpoint.get('model'), dict):
        keys = [str(key)[:40] for key in checkpoint][:8] if known else ''
        raise ValueError(
            f'{src} is no checkpoint of the official CLIP-VG: expected a dict with '
            f'"model", found {type(checkpoint).__name__} {keys}.'
        )
    args = checkpoint.get('args', argparse.Namespace())
    args = vars(args) if isinstance(args, argparse.Namespace) else {}
    try:
        check_weights(checkpoint['model'])
        ours, unused = from_official(checkpoint['model'])
        model = describe_model(
            ours,
            num_heads=option(args, 'vl_nheads', 8, 1024),
            dropout=option(args, 'vl_dropout', 0.1, 1.0),
        )
    except ValueError as error:
        raise ValueError(f'{src}: {error}.') from error
    cfg = adapt_config(config, model)
    init_default_scope('mmdet')
    try:
        with torch.device('meta'):
            skeleton = MODELS.build(cfg.model)
        refuse_other_weights(ours, skeleton)
    except ValueError as error:
        raise ValueError(
            f'{src} does not fit the model it describes: {error}'
        ) from error
    dtypes = {value.dtype for value in checkpoint['model'].values()}
    return {
        'meta': dict(
            cfg=cfg.pretty_text,
            dataset_meta=dict(classes=('referent',)),
            epoch=checkpoint.get('epoch', 0),
            released_args=args,
            released_dtype=str(dtypes.pop()) if len(dtypes) == 1 else 'torch.float32',
        ),
        'state_dict': ours,
        UNUSED_KEY: unused,
    }


def revert(src: str) -> dict:
    """One of our checkpoints in the official layout."""
    import torch

    from projects.clip_vg.checkpoints.official_layout import to_official
    from projects.clip_vg.checkpoints.safe_loading import read_checkpoint
    from projects.clip_vg.checkpoints.work_dir import find_weights

    kinds = (torch.float32, torch.float16, torch.bfloat16)
    dtypes = {str(kind): kind for kind in kinds}
    checkpoint = read_checkpoint(find_weights(src))
    meta = checkpoint['meta']
    dtype = dtypes.get(str(meta.get('released_dtype')), torch.float32)
    try:
        model = to_official(
            checkpoint['state_dict'], checkpoint.get(UNUSED_KEY, {}), dtype
        )
    except (KeyError, ValueError) as error:
        raise ValueError(f'{src} is no checkpoint of CLIPVG: {error}.') from error
    return dict(
        model=model,
        args=argparse.Namespace(**dict(meta.get('released_args', {}))),
        epoch=meta.get('epoch', 0),
    )


def main() -> None:
    """Convert, save, and log what the checkpoint has."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    if Path(args.dst).exists() and not args.overwrite:
        raise FileExistsError(f'{args.dst} exists; give --overwrite to replace it.')
    from mmengine.runner.checkpoint import save_checkpoint

    from projects.clip_vg.checkpoints.official_layout import describe_model

    result = revert(args.src) if args.reverse else convert(args.src, args.config)
    atomic = dict(backend='AtomicLocalBackend')
    save_checkpoint(result, args.dst, backend_args=atomic)
    state = result['model'] if args.reverse else result['state_dict']
    count = sum(value.numel() for value in state.values())
    logging.info('%s: %d entries, %s numbers', args.dst, len(state), f'{count:,}')
    if not args.reverse:
        described = describe_model(state)
        logging.info(
            'not read by the official code, stored aside: %s', list(result[UNUSED_KEY])
        )
        for part, options in described.items():
            logging.info('%s: %s', part, options)


if __name__ == '__main__':
    run_command(main)
