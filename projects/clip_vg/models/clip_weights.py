"""Weights of one CLIP tower: from an open_clip tag or from a local file."""

import logging
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import torch
from mmengine.logging import print_log
from open_clip.model import (
    convert_to_custom_text_state_dict,
    resize_pos_embed,
    resize_text_pos_embed,
)
from torch import Tensor, nn

from .clip_config import build_tower
from .clip_files import read_clip_weights

__all__ = [
    'fit_positions',
    'load_clip_tower',
    'log_interpolation',
    'resize_text_positions',
    'resize_visual_positions',
    'resolve_weights',
]

# The folder that holds `projects/`: relative weights of our configs are found
# from any working directory.
_ROOT = Path(__file__).resolve().parents[3]
# Of a folder that open_clip or Hugging Face made; where there are several, they hold
# the same weights.
_FILES = (
    'open_clip_model.safetensors',
    'open_clip_pytorch_model.bin',
    'model.safetensors',
    'pytorch_model.bin',
)
_SUFFIXES = ('.safetensors', '.pt', '.pth', '.bin', '.ckpt')


def resolve_weights(arch: str | dict, pretrained: str) -> Path:
    """The local file that ``pretrained`` means; downloads a tag's if needed.

    Args:
        arch (str or dict): The architecture the weights are for.
        pretrained (str): A file or a folder with one, as open_clip and Hugging Face
            name them (absolute, or relative to the working directory or to the folder
            that holds ``projects/``), or a tag of open_clip.

    Returns:
        Path: The file.

    Raises:
        ValueError: Neither a file nor a known tag, a folder without weights, or the
            download failed.
    """
    places = (Path(pretrained).expanduser(), _ROOT / pretrained)
    for candidate in places:
        if candidate.is_file():
            return candidate
    name = arch if isinstance(arch, str) else None
    config = open_clip.get_pretrained_cfg(name, pretrained) if name else None
    if not config:
        for candidate in places:
            if candidate.is_dir():
                return _file_in(candidate)
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


def _file_in(folder: Path) -> Path:
    """The weights in a folder.

    Raises:
        ValueError: There are none, or several; it names what there is.
    """
    for name in _FILES:
        if (folder / name).is_file():
            return folder / name
    files = sorted(path for path in folder.iterdir() if path.is_file())
    found = [path for path in files if path.suffix in _SUFFIXES]
    if len(found) == 1:
        return found[0]
    names = [path.name for path in found or files][:8]
    raise ValueError(
        f'pretrained={str(folder)!r} is a folder, and which file of it holds the '
        f'weights cannot be told: it has {names}. Name the file.'
    )


def _quick_gelu_of_tag(arch: str | dict, pretrained: str) -> bool | None:
    """Whether weights of an open_clip tag want QuickGELU; None if it is no tag."""
    if not isinstance(arch, str):
        return None
    config = open_clip.get_pretrained_cfg(arch, pretrained)
    return bool(config.get('quick_gelu', False)) if config else None


def _check_activation(
    wanted: bool | None, config: dict, arch: str | dict, pretrained: str
) -> None:
    """Refuse weights of another activation; say so where it cannot be told."""
    built = bool(config.get('quick_gelu', False))
    names = {True: 'QuickGELU', False: 'GELU'}
    if wanted is None:
        print_log(
            f'{pretrained} does not say which activation it was trained with; '
            f'{names[built]} is used (`quick_gelu` of the architecture). For '
            "OpenAI's weights it must be QuickGELU.",
            logger='current',
            level=logging.WARNING,
        )
    elif wanted != built:
        way_out = 'set `quick_gelu` of the architecture'
        if isinstance(arch, str):
            plain = arch.removesuffix('-quickgelu')
            way_out = f'use arch={plain + "-quickgelu" * wanted!r}'
        raise ValueError(
            f'{pretrained} was trained with {names[wanted]}, but {arch!r} has '
            f'{names[built]}: its features would be wrong. To load it, {way_out}.'
        )


def _tower_state(state: dict[str, Tensor], tower: str) -> dict[str, Tensor]:
    """The entries of one tower ('visual' or 'text'), their prefix removed."""
    if 'positional_embedding' in state:
        state = convert_to_custom_text_state_dict(state)
    prefix = f'{tower}.'
    return {
        key.removeprefix(prefix): value.to(torch.float32)
        for key, value in state.items()
        if key.startswith(prefix) and isinstance(value, Tensor)
    }


def resize_visual_positions(positions: Tensor, grid_size: tuple[int, int]) -> Tensor:
    """Interpolate the positions of the class token and a square grid of patches.

    Args:
        positions (Tensor): Of shape (1 + P, C).
        grid_size (tuple[int, int]): Rows and columns of patches that are needed.

    Returns:
        Tensor: Of shape (1 + rows * columns, C); as given, if P is no square.
    """
    if len(positions) < 2 or math.isqrt(len(positions) - 1) ** 2 + 1 != len(positions):
        return positions
    state = {'visual.positional_embedding': positions.float()}
    resize_pos_embed(
        state, SimpleNamespace(visual=SimpleNamespace(grid_size=grid_size))
    )
    return state['visual.positional_embedding'].to(positions.dtype)


def resize_text_positions(positions: Tensor, length: int) -> Tensor:
    """Interpolate the positions (L, C) of a text to (length, C)."""
    state = {'positional_embedding': positions.float()}
    wanted = positions.new_empty(length, positions.shape[1], device='meta')
    resize_text_pos_embed(state, SimpleNamespace(positional_embedding=wanted))
    return state['positional_embedding'].to(positions.dtype)


def fit_positions(kind: str, positions: Any, tower: Any, name: str) -> Any:
    """Interpolate positions as open_clip does, if a tower has another number of them.

    Args:
        kind (str): 'visual' or 'text'.
        positions (Tensor): Of shape (N, C).
        tower (nn.Module): open_clip's.
        name (str): What to call them in the log.

    Returns:
        Tensor: Of shape (N', C); as given, where they are of something else.
    """
    own = tower.positional_embedding
    if not isinstance(positions, Tensor) or positions.shape[1:] != own.shape[1:]:
        return positions
    if len(positions) == len(own):
        return positions
    fitted = (
        resize_visual_positions(positions, tower.grid_size)
        if kind == 'visual'
        else resize_text_positions(positions, len(own))
    )
    log_interpolation(name, positions, fitted)
    return fitted


def log_interpolation(name: str, before: Tensor, after: Tensor) -> None:
    """Say that positions were interpolated."""
    if before.shape != after.shape:
        print_log(
            f'{name}: positions of shape {tuple(before.shape)} are interpolated to '
            f'{tuple(after.shape)}.',
            logger='current',
        )


def load_clip_tower(
    module: nn.Module, tower: str, arch: str | dict, config: dict, pretrained: str
) -> None:
    """Fill one tower of CLIP, strictly, in float32.

    Position embeddings are interpolated where the image size or the length of the
    context is another.

    Args:
        module (nn.Module): open_clip's tower, or what is used of it; filled in place.
        tower (str): 'visual' or 'text'.
        arch (str or dict): The architecture as the user named it.
        config (dict): The same in open_clip's terms.
        pretrained (str): See :func:`resolve_weights`.

    Raises:
        ValueError: The file cannot be read, is not of this architecture, or was
            trained with another activation.
    """
    path = resolve_weights(arch, pretrained)
    state, quick_gelu = read_clip_weights(path)
    if not Path(pretrained).expanduser().is_file():
        quick_gelu = (
            _quick_gelu_of_tag(arch, pretrained) if quick_gelu is None else quick_gelu
        )
    _check_activation(quick_gelu, config, arch, pretrained)
    whole, state = state, _tower_state(state, tower)
    if not state:
        raise ValueError(
            f'{path} holds no {tower} tower of CLIP: expected names as open_clip, '
            f'OpenAI or Hugging Face have them, found {len(whole)} entries such as '
            f'{[key[:60] for key in list(whole)[:5]]}.'
        )
    name = 'positional_embedding'
    if name in state:
        state[name] = fit_positions(
            tower, state[name], module, f'{pretrained}: {tower}'
        )
    with torch.device('meta'):
        whole = build_tower(tower, config)
    try:
        whole.load_state_dict(state, assign=True)
        used = module.state_dict().keys()
        module.load_state_dict({key: state[key] for key in used})
    except RuntimeError as error:
        raise ValueError(
            f'{path} is not the {tower} tower of {arch!r} ({config["vision_cfg"]}, '
            f'{config["text_cfg"]}): {error}'
        ) from error
    print_log(f'{tower} tower of CLIP: loaded from {path}', logger='current')
