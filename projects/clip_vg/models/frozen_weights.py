"""Weights that no training changes: which they are, and whether two are the same."""

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.config import Config
from torch import Tensor, nn

__all__ = [
    'FINGERPRINT',
    'fill_frozen',
    'fingerprint',
    'frozen_names',
    'is_slim',
    'without_downloads',
    'without_frozen',
]

# The entry of a checkpoint that stands for all frozen weights.
FINGERPRINT = 'frozen_weights_sha256'


def frozen_names(model: nn.Module) -> list[str]:
    """Sorted names of the parameters that are not trained."""
    return sorted(n for n, p in model.named_parameters() if not p.requires_grad)


def fingerprint(state: Mapping[str, Tensor], names: list[str]) -> Tensor:
    """Sha256 of some entries of a state dict: names, shapes and float32 values.

    Args:
        state (Mapping[str, Tensor]): The state dict.
        names (list[str]): Which entries.

    Returns:
        Tensor: Of shape (32, ), uint8.
    """
    digest = hashlib.sha256()
    for name in names:
        value = state[name].detach().to('cpu', torch.float32).contiguous()
        digest.update(f'{name} {tuple(value.shape)}\n'.encode())
        digest.update(value.numpy().data)
    return torch.tensor(list(digest.digest()), dtype=torch.uint8)


def without_frozen(state: Mapping[str, Tensor], names: list[str]) -> dict[str, Tensor]:
    """A state dict without some of its entries."""
    left_out = set(names)
    return {name: value for name, value in state.items() if name not in left_out}


def fill_frozen(state: dict[str, Tensor], prefix: str, model: nn.Module) -> None:
    """Put the model's own frozen weights where a checkpoint has their fingerprint.

    Args:
        state (dict[str, Tensor]): Changed in place.
        prefix (str): Of the model's entries.
        model (nn.Module): With the weights of the CLIP that the checkpoint needs.

    Raises:
        ValueError: The model's frozen weights are other ones.
    """
    needed = state.pop(prefix + FINGERPRINT, None)
    if needed is None:
        return
    own = model.state_dict()
    # Not frozen_names(): of an averaged copy of a model, nothing is trained.
    names = sorted(n for n, _ in model.named_parameters() if prefix + n not in state)
    found = fingerprint(own, names)
    if not torch.equal(found, needed.cpu()):
        raise ValueError(
            'The checkpoint was saved without its frozen weights (SlimCheckpointHook), '
            f'and needs those of sha256 {_hex(needed)}; the {len(names)} frozen '
            f'weights of this model have {_hex(found)}. Build the model with the '
            'config of the training, its `pretrained` CLIP included.'
        )
    for name in names:
        state[prefix + name] = own[name]


def is_slim(checkpoint: str | Path) -> bool:
    """Whether a checkpoint was saved without its frozen weights; only looked into."""
    path = Path(checkpoint)
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        indices = [name for name in archive.namelist() if name.endswith('/data.pkl')]
        return any(FINGERPRINT.encode() in archive.read(name) for name in indices)


def without_downloads(cfg: Config, checkpoint: str | Path) -> None:
    """Build CLIP's towers without weights, if a checkpoint has them.

    Args:
        cfg (Config): Of a whole run, with ``model``; changed in place.
        checkpoint (str or Path): What will be loaded into the model.
    """
    if is_slim(checkpoint):
        return
    for part in ('visual_encoder', 'text_encoder'):
        if isinstance(cfg.model.get(part), dict):
            cfg.model[part].pretrained = None


def _hex(sha256: Tensor) -> str:
    return bytes(sha256.tolist()).hex()[:16] + '...'
