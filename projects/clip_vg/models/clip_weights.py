"""Weights of one CLIP tower: from an open_clip tag or from a local file."""

from pathlib import Path

import open_clip
import torch
from mmengine.logging import print_log
from open_clip.factory import load_state_dict
from open_clip.model import (
    convert_to_custom_text_state_dict,
    resize_pos_embed,
    resize_text_pos_embed,
)
from torch import Tensor, nn

__all__ = ['load_clip_tower', 'resolve_weights']

# The folder that holds `projects/`: relative weights of our configs are found
# from any working directory.
_ROOT = Path(__file__).resolve().parents[3]


def resolve_weights(arch: str | dict, pretrained: str) -> Path:
    """The local file that ``pretrained`` means; downloads a tag's if needed.

    Args:
        arch (str or dict): The architecture the weights are for.
        pretrained (str): A file (absolute, or relative to the working directory
            or to the folder that holds ``projects/``), or a tag of open_clip.

    Returns:
        Path: The file.

    Raises:
        ValueError: Neither a file nor a known tag, or the download failed.
    """
    for candidate in (Path(pretrained).expanduser(), _ROOT / pretrained):
        if candidate.is_file():
            return candidate
    name = arch if isinstance(arch, str) else None
    config = open_clip.get_pretrained_cfg(name, pretrained) if name else None
    if not config:
        tags = open_clip.list_pretrained_tags_by_model(name) if name else []
        raise ValueError(
            f'pretrained={pretrained!r} is neither a file (looked in {Path.cwd()} and '
            f'{_ROOT}) nor a tag that open_clip knows for {arch!r}; its tags: '
            f'{tags or "none"}.'
        )
    try:
        return Path(open_clip.download_pretrained(config))
    except Exception as error:  # every network layer raises its own kind
        raise ValueError(
            f'The weights {pretrained!r} of {arch!r} could not be downloaded '
            f'({type(error).__name__}: {error}). Fetch the file where there is a '
            'network and name it instead: `--cfg-options '
            'model.visual_encoder.pretrained=FILE '
            'model.text_encoder.pretrained=FILE`.'
        ) from error


def _tower_state(state: dict[str, Tensor], tower: str) -> dict[str, Tensor]:
    """The entries of one tower ('visual' or 'text'), their prefix removed."""
    if 'positional_embedding' in state:
        state = convert_to_custom_text_state_dict(state)
    prefix = f'{tower}.'
    return {
        key.removeprefix(prefix): value
        for key, value in state.items()
        if key.startswith(prefix)
    }


def load_clip_tower(
    module: nn.Module, tower: str, arch: str | dict, config: dict, pretrained: str
) -> None:
    """Fill one tower of CLIP, strictly.

    Args:
        module (nn.Module): open_clip's tower; filled in place, in float32.
        tower (str): 'visual' or 'text'.
        arch (str or dict): The architecture as the user named it.
        config (dict): The same in open_clip's terms.
        pretrained (str): See :func:`resolve_weights`.

    Raises:
        ValueError: The file cannot be read, or is not of this architecture.
    """
    path = resolve_weights(arch, pretrained)
    try:
        state = load_state_dict(str(path))
    except Exception as error:  # torch and safetensors raise many kinds
        raise ValueError(
            f'{path} cannot be read as CLIP weights: {type(error).__name__}: {error}'
        ) from error
    state = _tower_state(state, tower)
    if not state:
        raise ValueError(f'{path} holds no {tower} tower of CLIP.')
    holder = nn.Module()
    holder.visual = module
    prefixed = {f'visual.{key}': value for key, value in state.items()}
    if tower == 'visual':
        resize_pos_embed(prefixed, holder)
        state = {key.removeprefix('visual.'): value for key, value in prefixed.items()}
    else:
        resize_text_pos_embed(state, module)
    state = {key: value.to(torch.float32) for key, value in state.items()}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f'{path} is not the {tower} tower of {arch!r} ({config["vision_cfg"]}, '
            f'{config["text_cfg"]}): {error}'
        ) from error
    print_log(f'{tower} tower of CLIP: loaded from {path}', logger='current')
