"""A tower of CLIP: its config, its blocks, its weights, and what is frozen of it."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import timm
import torch
from mmdet.utils import OptMultiConfig
from mmengine.logging import print_log
from mmengine.model import BaseModule

# Private, but the only ones that build one tower of a config; tests hold what is
# relied upon, and setup.py which versions have it.
from open_clip.model import (
    _build_text_tower,
    _build_vision_tower,
    resize_pos_embed,
    resize_text_pos_embed,
)
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from ..checkpoints.clip_weights import ClipFile, read_clip_tower
from .adapters import adapt, is_adapter_weight, train_adapted
from .hugging_face import find_files, import_transformers

__all__ = [
    'CLIPTower',
    'build_tower',
    'clip_config',
    'clip_read_once',
    'fit_positions',
    'freeze',
    'in_compute_dtype',
    'load_clip_tower',
    'log_interpolation',
    'positions_name',
    'resize_text_positions',
    'resize_timm_positions',
    'resize_visual_positions',
]


def clip_config(arch: str | dict) -> dict:
    """The config of a CLIP in open_clip's terms.

    Args:
        arch (str or dict): A model name of open_clip, such as
            'ViT-B-16-quickgelu', or a dict with ``embed_dim``, ``vision_cfg``,
            ``text_cfg`` and, for OpenAI's activation, ``quick_gelu=True``.

    Returns:
        dict: A copy that may be changed.

    Raises:
        ValueError: open_clip has no model of that name.
    """
    if isinstance(arch, str):
        config = open_clip.get_model_config(arch)
        if config is None:
            near = [name for name in open_clip.list_models() if arch[:5] in name]
            raise ValueError(
                f'open_clip {open_clip.__version__} has no model {arch!r}; near it: '
                f'{near[:8] or open_clip.list_models()[:8]}.'
            )
    else:
        config = arch
    config = {
        key: dict(value) if isinstance(value, dict) else value
        for key, value in config.items()
    }
    vision, text = config['vision_cfg'], config['text_cfg']
    # open_clip's own block of plain linears and scaled_dot_product_attention: the
    # same weights and keys as the nn.MultiheadAttention one, without its copies
    # under autocast and its padding to full weights.
    vision['block_type'] = text['block_type'] = 'custom'
    # CoCa's towers also return tokens, for its decoder.
    vision['output_tokens'] = text['output_tokens'] = False
    # Weights are those of CLIP, and nothing is downloaded to build.
    vision['timm_model_pretrained'] = text['hf_model_pretrained'] = False
    return config


def build_tower(kind: str, config: dict) -> Any:
    """One tower of CLIP with random weights.

    Args:
        kind (str): 'visual' or 'text'.
        config (dict): Of :func:`clip_config`.

    Returns:
        nn.Module: open_clip's tower.

    Raises:
        ImportError: The text tower is of Hugging Face, and ``transformers`` is not
            installed.
        ValueError: The visual tower is of timm, and the installed timm has none of
            that name; or the text tower is of Hugging Face, and its config is not on
            this machine.
    """
    embed_dim, quick_gelu = config['embed_dim'], config.get('quick_gelu', False)
    if kind == 'text':
        text = dict(config['text_cfg'])
        if text.get('hf_model_name'):
            text['hf_model_name'] = _folder_of_config(text['hf_model_name'])
        return _build_text_tower(embed_dim, text, quick_gelu)
    name = config['vision_cfg'].get('timm_model_name')
    if name and not timm.is_model(name.split('.')[0]):
        raise ValueError(
            f'timm {timm.__version__} has no model {name!r} (`timm_model_name` of '
            'the architecture): install a timm that has it.'
        )
    return _build_vision_tower(embed_dim, config['vision_cfg'], quick_gelu)


def _folder_of_config(name: str) -> str:
    """The folder with the config of a text tower of Hugging Face.

    Raises:
        ImportError: The package ``transformers`` is not installed.
        ValueError: The config is not on this machine.
    """
    import_transformers(name)
    folder = find_files(name, 'config.json')
    if folder is None:
        raise ValueError(
            f'The config.json of the text tower {name!r} is not on this machine, and '
            f'nothing is downloaded to build a model: `hf download {name} --local-dir '
            "DIR --include '*.json' '*.model'`, then hf_folder=DIR of the text encoder."
        )
    return folder


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
    # open_clip's function takes a whole model, of which it reads the grid.
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


def positions_name(tower: Any) -> str | None:
    """The parameter with a tower's absolute positions; None if it has none."""
    if getattr(tower, 'positional_embedding', None) is not None:
        return 'positional_embedding'
    trunk = getattr(tower, 'trunk', None)
    return None if getattr(trunk, 'pos_embed', None) is None else 'trunk.pos_embed'


def resize_timm_positions(positions: Tensor, tower: Any) -> Tensor:
    """Interpolate the positions (1, N, C) of a square grid, as timm does.

    Args:
        positions (Tensor): Of a file for another image size.
        tower (TimmModel): That needs them.

    Returns:
        Tensor: Of shape (1, N', C).
    """
    trunk = tower.trunk
    prefix = 0 if trunk.no_embed_class else trunk.num_prefix_tokens
    return resample_abs_pos_embed(
        positions, list(trunk.patch_embed.grid_size), num_prefix_tokens=prefix
    )


def fit_positions(kind: str, positions: Any, tower: Any, name: str) -> Any:
    """Interpolate positions as open_clip does, if a tower has another number of them.

    Args:
        kind (str): 'visual' or 'text'.
        positions (Tensor): Of shape (N, C); those of timm of shape (1, N, C).
        tower (nn.Module): open_clip's.
        name (str): What to call them in the log.

    Returns:
        Tensor: With N' of them; as given, where they are of something else.
    """
    own = tower.get_parameter(positions_name(tower))
    if not isinstance(positions, Tensor) or positions.shape[-1:] != own.shape[-1:]:
        return positions
    if positions.ndim != own.ndim or positions.shape == own.shape:
        return positions
    if kind == 'text':
        fitted = resize_text_positions(positions, len(own))
    elif own.ndim == 3:
        fitted = resize_timm_positions(positions, tower)
    else:
        fitted = resize_visual_positions(positions, tower.grid_size)
    log_interpolation(name, positions, fitted)
    return fitted


def log_interpolation(name: str, before: Tensor, after: Tensor) -> None:
    """Log that positions were interpolated."""
    if before.shape != after.shape:
        print_log(
            f'{name}: positions of shape {tuple(before.shape)} are interpolated to '
            f'{tuple(after.shape)}.',
            logger='current',
        )


def load_clip_tower(
    module: nn.Module,
    tower: str,
    arch: str | dict,
    config: dict,
    pretrained: str,
    known: dict[Path, ClipFile] | None = None,
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
        known (dict[Path, ClipFile], optional): See :func:`read_clip_file`.

    Raises:
        ValueError: The file cannot be read, is not of this architecture, or was
            trained with another activation.
    """
    quick_gelu = bool(config.get('quick_gelu', False))
    state, path = read_clip_tower(tower, arch, quick_gelu, pretrained, known)
    # The module may be a part of the tower; the file must have all of it.
    with torch.device('meta'):
        whole = build_tower(tower, config)
    complete = dict(state)
    name = positions_name(module)
    if name is not None and name in state:
        state[name] = fit_positions(
            tower, state[name], module, f'{pretrained}: {tower}'
        )
        # Those of the module are checked below: `whole` may be of another size.
        complete[name] = whole.get_parameter(name)
    try:
        whole.load_state_dict(complete, assign=True)
        used = module.state_dict().keys()
        module.load_state_dict(
            {key: state[key] for key in used if not is_adapter_weight(key)},
            strict=False,
        )
    except RuntimeError as error:
        raise ValueError(
            f'{path} is not the {tower} tower of {arch!r} ({config["vision_cfg"]}, '
            f'{config["text_cfg"]}): {error}'
        ) from error
    print_log(f'{tower} tower of CLIP: loaded from {path}', logger='current')


def freeze(module: nn.Module) -> None:
    """Train none of the weights."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)


def in_compute_dtype(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Let a tower's ``forward`` compute in its ``compute_dtype``."""

    @wraps(forward)
    def compute(tower: 'CLIPTower', inputs: Tensor) -> Any:
        if tower.compute_dtype is None:
            return forward(tower, inputs)
        kind = inputs.device.type
        with torch.autocast(kind, getattr(torch, tower.compute_dtype)):
            encoded = forward(tower, inputs)
        dtype = next(tower.parameters()).dtype
        if isinstance(encoded, tuple):
            return tuple(level.to(dtype) for level in encoded)
        return encoded.to(dtype)

    return compute


class CLIPTower(BaseModule):
    """What both towers share: weights, freezing, eval mode.

    The constructor builds; CLIP's weights are loaded by :meth:`init_weights`, or when
    a checkpoint is loaded that was saved without them. Positions of a checkpoint of
    another image size or context length are interpolated.

    Args:
        arch (str or dict): See :func:`clip_config`.
        pretrained (str, optional): A tag of open_clip or a local file; None: random
            weights.
        frozen (bool): Whether no weight is trained, and the tower stays in eval
            mode.
        with_cp (bool): Whether activations are recomputed in the backward pass.
        init_cfg (dict or list[dict], optional): Initialisation config, which is
            applied after ``pretrained``. Defaults to None.
        adapter (dict, optional): What of a frozen tower is trained; see :func:`adapt`.
            Defaults to None: nothing.
        compute_dtype (str, optional): 'float16' or 'bfloat16', in which the tower
            computes, by autocast; its weights and what it returns stay as they are.
            Defaults to None: that of the weights.

    Raises:
        ValueError: ``adapter`` is given without ``frozen``, or ``compute_dtype`` is
            unknown.
    """

    # 'visual' or 'text', and the attribute that holds open_clip's tower.
    kind: str
    net_name: str

    def __init__(
        self,
        arch: str | dict,
        pretrained: str | None,
        frozen: bool,
        with_cp: bool,
        init_cfg: OptMultiConfig = None,
        adapter: dict | None = None,
        compute_dtype: str | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if adapter is not None and not frozen:
            raise ValueError(
                f'adapter={adapter} with frozen=False, which trains the whole tower: '
                'leave one of them out.'
            )
        if compute_dtype not in (None, 'float16', 'bfloat16'):
            raise ValueError(
                f'compute_dtype={compute_dtype!r} of the {self.kind} tower; expected '
                "'float16', 'bfloat16' or None."
            )
        self.arch, self.pretrained = arch, pretrained
        self.adapter = adapter
        self.compute_dtype = compute_dtype
        self.config = clip_config(arch)
        self.frozen = frozen
        self.with_cp = with_cp
        self._has_pretrained = False
        self.clip_files: dict[Path, ClipFile] | None = None
        self.clip_names: list[str] = []
        self.frozen_names: list[str] = []

    def freeze_clip(self, trained: Sequence[str] = ()) -> None:
        """Train none of CLIP's weights but the adapter's, if the tower is frozen.

        Args:
            trained (Sequence[str]): Names of those that are trained all the same.
                Defaults to ().
        """
        net = getattr(self, self.net_name)
        if self.frozen:
            freeze(net)
        for name in trained:
            net.get_parameter(name).requires_grad_(True)
        names = [name for name, _ in net.named_parameters()]
        self.clip_names = [f'{self.net_name}.{name}' for name in names]
        if self.adapter is not None:
            adapt(net, **self.adapter)
        self.frozen_names = [
            f'{self.net_name}.{name}'
            for name, parameter in net.named_parameters()
            if not parameter.requires_grad
        ]

    def init_weights(self) -> None:
        """Load CLIP's weights."""
        self.load_pretrained()
        super().init_weights()

    def load_pretrained(self) -> None:
        """Load the weights that ``pretrained`` names, unless that is done.

        Raises:
            ValueError: They cannot be had, or do not fit.
        """
        # A checkpoint without frozen weights may have been loaded before.
        if self.pretrained is not None and not self._has_pretrained:
            net = getattr(self, self.net_name)
            load_clip_tower(
                *(net, self.kind, self.arch, self.config, self.pretrained),
                known=self.clip_files,
            )
            self._has_pretrained = True

    def file_positions(self) -> dict[str, Tensor]:
        """Position embeddings as the file of ``pretrained`` has them, by name."""
        name = positions_name(getattr(self, self.net_name))
        if self.pretrained is None or name is None:
            return {}
        quick_gelu = bool(self.config.get('quick_gelu', False))
        state, _ = read_clip_tower(
            self.kind, self.arch, quick_gelu, self.pretrained, self.clip_files
        )
        return {f'{self.net_name}.{name}': state[name].float()}

    def train(self, mode: bool = True) -> 'CLIPTower':
        """Stay in eval mode while frozen, but for what an adapter trains."""
        super().train(mode and not self.frozen)
        if mode and self.adapter is not None:
            self.training = True
            train_adapted(getattr(self, self.net_name))
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        """Fit the positions of a checkpoint."""
        net = getattr(self, self.net_name)
        name = f'{prefix}{self.net_name}.{positions_name(net)}'
        if name in state_dict:
            state_dict[name] = fit_positions(self.kind, state_dict[name], net, name)
        super()._load_from_state_dict(state_dict, prefix, *args)


@contextmanager
def clip_read_once(model: nn.Module) -> Iterator[None]:
    """Let the towers of a model share what they read of CLIP's files meanwhile."""
    files: dict[Path, ClipFile] = {}
    towers = [part for part in model.modules() if isinstance(part, CLIPTower)]
    for tower in towers:
        tower.clip_files = files
    try:
        yield
    finally:
        for tower in towers:
            tower.clip_files = None
