"""CLIP's weights: from a tag of open_clip, or from any file that they come in."""

import json
import logging
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import timm
import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from mmengine.logging import print_log
from open_clip.model import convert_to_custom_text_state_dict
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from projects.clip_vg_core.utils.pickle_machine import Machine
from projects.clip_vg_core.utils.safe_torch import TENSOR_NAMES, load_torch, storage_of
from projects.clip_vg_core.utils.stand_ins import (
    Attributes,
    UnsafePickleError,
    check_value,
    thaw,
)

__all__ = [
    'ClipFile',
    'is_cached',
    'read_clip_file',
    'read_clip_tower',
    'read_clip_weights',
    'resolve_weights',
    'timm_name',
    'timm_pretrained_cfg',
    'trained_normalization',
]

# The folder that holds `projects/`: relative paths of our configs work from any
# working directory.
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
# Kept in OpenAI's archives beside the weights.
_NUMBERS = ('input_resolution', 'context_length', 'vocab_size')
# Names of Hugging Face's CLIPModel and open_clip's; layers below.
_HF_TABLE = (
    ('vision_model.embeddings.class_embedding', 'visual.class_embedding'),
    ('vision_model.embeddings.patch_embedding.weight', 'visual.conv1.weight'),
    (
        'vision_model.embeddings.position_embedding.weight',
        'visual.positional_embedding',
    ),
    ('vision_model.pre_layrnorm.', 'visual.ln_pre.'),
    ('vision_model.post_layernorm.', 'visual.ln_post.'),
    ('vision_model.encoder.layers.', 'visual.transformer.resblocks.'),
    ('text_model.embeddings.token_embedding.', 'token_embedding.'),
    ('text_model.embeddings.position_embedding.weight', 'positional_embedding'),
    ('text_model.final_layer_norm.', 'ln_final.'),
    ('text_model.encoder.layers.', 'transformer.resblocks.'),
    ('logit_scale', 'logit_scale'),
)
_HF_LAYER = (
    ('.layer_norm1.', '.ln_1.'),
    ('.layer_norm2.', '.ln_2.'),
    ('.mlp.fc1.', '.mlp.c_fc.'),
    ('.mlp.fc2.', '.mlp.c_proj.'),
    ('.self_attn.out_proj.', '.attn.out_proj.'),
    ('.self_attn.q_proj.', '.attn.in_proj_'),
)


def resolve_weights(arch: str | dict, pretrained: str) -> Path:
    """The local file of ``pretrained``; that of a tag is downloaded if needed.

    Args:
        arch (str or dict): The architecture the weights are for.
        pretrained (str): A file or a folder with one, as open_clip and Hugging Face
            name them (absolute, or relative to the working directory or to the folder
            that holds ``projects/``), or a tag of open_clip; for a visual tower of
            timm alone, a tag of timm.

    Returns:
        Path: The file.

    Raises:
        ValueError: Neither a file nor a known tag, a folder without weights, or the
            download failed.
    """
    candidates = (Path(pretrained).expanduser(), _ROOT / pretrained)
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    name = arch if isinstance(arch, str) else None
    config = open_clip.get_pretrained_cfg(name, pretrained) if name else None
    of_timm = timm_pretrained_cfg(arch, pretrained)
    if not config and of_timm is None:
        for candidate in candidates:
            if candidate.is_dir():
                return _file_in(candidate)
        tags = open_clip.list_pretrained_tags_by_model(name) if name else []
        raise ValueError(
            f'pretrained={pretrained!r} is neither a file (looked in {Path.cwd()} and '
            f'{_ROOT}) nor a tag that open_clip knows for {arch!r}; its tags: '
            f'{tags or "none"}.'
        )
    try:
        if of_timm is not None:
            return Path(hf_hub_download(of_timm.hf_hub_id, 'model.safetensors'))
        return Path(open_clip.download_pretrained(config))
    except Exception as error:  # every network layer raises its own kind
        raise ValueError(
            f'The weights {pretrained!r} of {arch!r} could not be downloaded '
            f'({type(error).__name__}: {error}). Fetch {_address(config, of_timm)} '
            'where there is a network and name it instead: `--cfg-options '
            'model.visual_encoder.pretrained=FILE '
            'model.text_encoder.pretrained=FILE`.'
        ) from error


def is_cached(arch: str, tag: str) -> bool:
    """Whether the weights of a tag of open_clip are in the cache of Hugging Face."""
    repository = open_clip.get_pretrained_cfg(arch, tag).get('hf_hub', '').rstrip('/')
    return any(
        isinstance(try_to_load_from_cache(repository, name), str)
        for name in (_FILES[:2] if repository else ())
    )


def _address(config: dict | None, of_timm: Any) -> str:
    """Where weights are, for somebody who fetches them by hand."""
    config = config or {}
    hub = config.get('hf_hub') or getattr(of_timm, 'hf_hub_id', None) or ''
    # Some name a file as well.
    hub = '/'.join(hub.split('/')[:2])
    places = [config.get('url'), hub and f'https://huggingface.co/{hub}']
    return ' or '.join(filter(None, places)) or 'the file'


def timm_name(arch: str | dict) -> str | None:
    """The model of timm whose own weights an architecture's visual tower can have.

    That of a dict: the towers of open_clip's architectures have CLIP's weights.
    """
    return None if isinstance(arch, str) else arch['vision_cfg'].get('timm_model_name')


def timm_pretrained_cfg(arch: str | dict, tag: str) -> Any:
    """What timm knows of its weights of a tag; None if they are none of timm."""
    name = timm_name(arch)
    if name is None:
        return None
    try:
        return timm.models.get_pretrained_cfg(f'{name}.{tag}')
    except RuntimeError:  # it has no such tag, or no such model
        return None


def trained_normalization(
    arch: str | dict, pretrained: str
) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation that weights were trained with, RGB of [0, 255].

    Args:
        arch (str or dict): The architecture.
        pretrained (str): A tag, or a file, of which all tags of ``arch`` tell.

    Returns:
        tuple or None: None if it is not known.
    """
    name = arch if isinstance(arch, str) else ''
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained in tags:
        tags = [pretrained]
    known = [open_clip.get_pretrained_cfg(name, tag) for tag in tags]
    of_timm = timm_pretrained_cfg(arch, pretrained)
    if of_timm is not None:
        known = [dict(mean=of_timm.mean, std=of_timm.std)]
    values = {(tuple(entry['mean']), tuple(entry['std'])) for entry in known}
    if len(values) != 1:
        return None
    mean, std = values.pop()
    return [255 * value for value in mean], [255 * value for value in std]


def _file_in(folder: Path) -> Path:
    """The weights in a folder.

    Raises:
        ValueError: There are none, or several; it names what there is.
    """
    for name in _FILES:
        if (folder / name).is_file():
            return folder / name
    files = sorted(path for path in folder.iterdir() if path.is_file())
    weights = [path for path in files if path.suffix in _SUFFIXES]
    if len(weights) == 1:
        return weights[0]
    names = [path.name for path in weights or files][:8]
    raise ValueError(
        f'pretrained={str(folder)!r} is a folder, and which file of it holds the '
        f'weights cannot be told: it has {names}. Name the file.'
    )


class ClipFile(NamedTuple):
    """CLIP's weights as a file has them.

    Attributes:
        state (dict[str, Tensor]): In open_clip's naming.
        quick_gelu (bool, optional): Whether their activation is QuickGELU; None where
            neither the file nor the config beside it tells.
    """

    state: dict[str, Tensor]
    quick_gelu: bool | None


def read_clip_file(path: Path, known: dict[Path, ClipFile] | None = None) -> ClipFile:
    """Read a file of CLIP, or look it up among those that were read.

    Args:
        path (Path): As :func:`read_clip_weights` takes it.
        known (dict[Path, ClipFile], optional): Files of this model that were read, to
            which this one is added: both towers are usually in one file, of up to
            gigabytes. Defaults to None: the file is read.
    """
    if known is None:
        return ClipFile(*read_clip_weights(path))
    if path not in known:
        known[path] = ClipFile(*read_clip_weights(path))
    return known[path]


def read_clip_tower(
    tower: str,
    arch: str | dict,
    quick_gelu: bool,
    pretrained: str,
    known: dict[Path, ClipFile] | None = None,
) -> tuple[dict[str, Tensor], Path]:
    """Weights of one tower of CLIP.

    Args:
        tower (str): 'visual' or 'text'.
        arch (str or dict): The architecture as the user named it.
        quick_gelu (bool): Whether the tower is built with QuickGELU.
        pretrained (str): See :func:`resolve_weights`.
        known (dict[Path, ClipFile], optional): See :func:`read_clip_file`.

    Returns:
        tuple[dict[str, Tensor], Path]: Float32 weights in the naming of open_clip's
        tower, and the file that they are from.

    Raises:
        ValueError: The file cannot be read, has no such tower, or was trained with
            another activation.
    """
    path = resolve_weights(arch, pretrained)
    whole, trained_with = read_clip_file(path, known)
    if tower == 'visual' and timm_name(arch):
        trained_with = quick_gelu  # timm has the activation of its model
    if trained_with is None and not Path(pretrained).expanduser().is_file():
        trained_with = _quick_gelu_of_tag(arch, pretrained)
    _check_activation(trained_with, quick_gelu, arch, pretrained)
    state = _tower_state(whole, tower)
    if not state and tower == 'visual' and timm_name(arch):
        # A file of timm; what classifies there is not read here.
        state = {
            f'trunk.{key}': value.to(torch.float32)
            for key, value in whole.items()
            if not key.startswith(('head.', 'fc.'))
        }
    if not state:
        raise ValueError(
            f'{path} holds no {tower} tower of CLIP: expected names as open_clip, '
            f'OpenAI or Hugging Face have them, found {len(whole)} entries such as '
            f'{[key[:60] for key in list(whole)[:5]]}.'
        )
    return state, path


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


def _quick_gelu_of_tag(arch: str | dict, pretrained: str) -> bool | None:
    """Whether weights of an open_clip tag want QuickGELU; None if it is no tag."""
    if not isinstance(arch, str):
        return None
    config = open_clip.get_pretrained_cfg(arch, pretrained)
    return bool(config.get('quick_gelu', False)) if config else None


def _check_activation(
    wanted: bool | None, built: bool, arch: str | dict, pretrained: str
) -> None:
    """Refuse weights of another activation; warn where it is not known."""
    names = {True: 'QuickGELU', False: 'GELU'}
    if wanted is None:
        print_log(
            f'{pretrained} does not tell which activation it was trained with; '
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


def read_clip_weights(path: Path) -> tuple[dict[str, Tensor], bool | None]:
    """Read CLIP weights in any of their usual files.

    Args:
        path (Path): OpenAI's TorchScript archive (``ViT-B-16.pt``), a file of
            ``torch.save`` (a state dict, or one under 'state_dict' or 'model'), or
            safetensors, in open_clip's or Hugging Face's naming; also as DDP,
            ``torch.compile`` or Lightning prefix them.

    Returns:
        tuple[dict[str, Tensor], bool or None]: The weights in open_clip's naming,
        and whether their activation is QuickGELU, as far as the file or the config
        beside it tells; None where neither does.

    Raises:
        ValueError: The file is damaged or of another kind.
        UnsafePickleError: The file asks for something weights never need.
    """
    state: Any
    try:
        if path.suffix == '.safetensors':
            state = load_file(path)
        elif _is_archive(path):
            return _read_archive(path), True
        else:
            state = load_torch(path)
            for key in ('state_dict', 'model'):
                if isinstance(state, dict) and isinstance(state.get(key), dict):
                    state = state[key]
            if not isinstance(state, dict):
                raise ValueError(f'expected a state dict, found {type(state).__name__}')
            state = {k: v for k, v in state.items() if isinstance(v, Tensor)} or state
        state = _without_prefixes(state)
    except UnsafePickleError:
        raise
    except Exception as error:  # each kind of file has exceptions of its own
        raise ValueError(
            f'{path} cannot be read as CLIP weights: {type(error).__name__}: {error}'
        ) from error
    if any(key.startswith('vision_model.') for key in state):
        state = _from_hugging_face(state)
    return state, _activation(path)


class _Scripted(Attributes):
    """Stands for a module of a TorchScript archive: what it holds, and no code."""

    __slots__ = ()

    def thaw(self, held: tuple) -> dict[str, Any]:
        return held[0]


class _ArchiveMachine(Machine):
    """Takes the classes that an archive defines for containers."""

    def push_name(self, module: Any, name: Any) -> None:
        """Every class of the archive's own code is a module."""
        if type(module) is str and module.split('.')[0] == '__torch__':
            module, name = '__torch__', 'Module'
        super().push_name(module, name)


def _as_listed(items: Any, *_: Any) -> Any:
    """The list that ``build_intlist`` and the like are given."""
    return items


_ARCHIVE_NAMES = {
    **TENSOR_NAMES,
    '__torch__.Module': _Scripted,
    **{
        f'torch.jit._pickle.build_{kind}list': _as_listed
        for kind in ('bool', 'double', 'int', 'tensor')
    },
}


def _read_archive(path: Path) -> dict[str, Tensor]:
    """The weights of a TorchScript archive (OpenAI's files), without its code."""
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].split('/')[0]
        begin = f'{root}/data/'
        sizes = {
            entry.filename.removeprefix(begin): entry.file_size
            for entry in archive.infolist()
            if entry.filename.startswith(begin)
            and entry.compress_type == zipfile.ZIP_STORED
        }
        machine = _ArchiveMachine(
            archive.read(f'{root}/data.pkl'),
            _ARCHIVE_NAMES,
            storage=lambda saved: storage_of(
                saved, sizes, lambda key: archive.read(begin + key)
            ),
        )
        value = machine.load()
        check_value(value, machine.instructions, machine.limits)
        tensors = _tensors(thaw(value))
    return {k: v for k, v in tensors.items() if k not in _NUMBERS}


def _tensors(module: Any, prefix: str = '') -> dict[str, Tensor]:
    """All tensors of nested dicts, by dotted name."""
    tensors: dict[str, Tensor] = {}
    for name, value in module.items() if isinstance(module, dict) else ():
        if isinstance(value, Tensor):
            tensors[prefix + name] = value
        else:
            tensors.update(_tensors(value, f'{prefix}{name}.'))
    return tensors


def _without_prefixes(state: Mapping[Any, Any]) -> dict[str, Any]:
    """A state dict without what DDP, ``torch.compile`` and Lightning put before names.

    Raises:
        ValueError: Two entries would have one name.
    """
    bare: dict[str, Any] = {}
    for key, value in state.items():
        name = re.sub(r'^(?:(?:module|_orig_mod|model)\.)+', '', str(key))
        if name in bare:
            raise ValueError(f'it has {name!r} twice, once as {key!r}')
        bare[name] = value
    return bare


def _is_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any('/code/' in name for name in archive.namelist())


def _from_hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of Hugging Face's CLIPModel in open_clip's naming."""
    converted: dict[str, Tensor] = {}
    for name, value in state.items():
        if name in ('visual_projection.weight', 'text_projection.weight'):
            key = name.replace('visual_projection.weight', 'visual.proj')
            converted[key.removesuffix('.weight')] = value.T.contiguous()
            continue
        if name.endswith('.position_ids') or re.search(r'\.[kv]_proj\.', name):
            continue  # a constant, and what the queries below bring along
        if '.q_proj.' in name:
            names = (name.replace('.q_proj.', f'.{part}_proj.') for part in 'qkv')
            value = torch.cat([state[n] for n in names])
        renamed = name
        for theirs, ours in _HF_TABLE:
            if name.startswith(theirs):
                renamed = ours + name.removeprefix(theirs)
        for theirs, ours in _HF_LAYER:
            renamed = renamed.replace(theirs, ours)
        converted[renamed] = value
    return converted


def _activation(path: Path) -> bool | None:
    """Whether a file of weights, or the config beside it, tells QuickGELU.

    ``quick_gelu`` in the metadata of safetensors, ``hidden_act`` in Hugging Face's
    ``config.json``, or open_clip's ``open_clip_config.json``.
    """
    if path.suffix == '.safetensors':
        with safe_open(path, 'pt') as file:
            noted = (file.metadata() or {}).get('quick_gelu')
        if noted is not None:
            return noted == 'true'
    for name in ('open_clip_config.json', 'config.json'):
        beside = path.with_name(name)
        if not beside.is_file():
            continue
        try:
            config = json.loads(beside.read_text(encoding='utf-8'))
        except ValueError as error:
            raise ValueError(f'{beside} is not valid JSON: {error}') from error
        if 'model_cfg' in config:
            return bool(config['model_cfg'].get('quick_gelu', False))
        acts = {
            config.get(part, {}).get('hidden_act')
            for part in ('vision_config', 'text_config')
        }
        if 'vision_config' in config or 'text_config' in config:
            # CLIPConfig leaves its default, quick_gelu, out of the file.
            return acts <= {'quick_gelu', None}
    return None
