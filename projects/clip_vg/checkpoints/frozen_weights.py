"""Frozen weights of a model: their names, their hash, and what a checkpoint lacks."""

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

__all__ = [
    'FINGERPRINT',
    'PretrainedTower',
    'fill_frozen',
    'fingerprint',
    'frozen_names',
    'left_out_names',
    'without_frozen',
]

# The entry of a checkpoint that stands for all frozen weights.
FINGERPRINT = 'frozen_weights_sha256'
_POSITIONS = ('positional_embedding', 'pos_embed')


@runtime_checkable
class PretrainedTower(Protocol):
    """A tower with pretrained weights, as :obj:`CLIPTower`.

    Attributes:
        clip_names (list[str]): Its parameters that ``pretrained`` has.
        frozen_names (list[str]): Those that stay as ``pretrained`` has them.
    """

    clip_names: list[str]
    frozen_names: list[str]

    def get_parameter(self, target: str) -> nn.Parameter:
        """A parameter by its name."""

    def load_pretrained(self) -> None:
        """Load the weights that ``pretrained`` names, unless that is done."""

    def file_positions(self) -> dict[str, Tensor]:
        """Position embeddings as the file of ``pretrained`` has them, by name."""


def frozen_names(model: nn.Module) -> list[str]:
    """Sorted names of the parameters that stay as ``pretrained`` has them.

    Not all that have no gradient: of an averaged copy of a model, nothing is trained.
    """
    return sorted(
        f'{path}.{name}'
        for path, module in model.named_modules()
        if isinstance(module, PretrainedTower)
        for name in module.frozen_names
        if not module.get_parameter(name).requires_grad
    )


def left_out_names(model: nn.Module) -> list[str]:
    """Sorted names of the frozen parameters that a checkpoint can do without.

    Not of positions, which are small: those of another image size are interpolated, and
    could not be compared with the file's.
    """
    return [name for name in frozen_names(model) if not name.endswith(_POSITIONS)]


def fingerprint(state: Mapping[str, Tensor], names: list[str]) -> Tensor:
    """Sha256 of entries of a state dict: names, shapes and float32 values.

    Args:
        state (Mapping[str, Tensor]): The state dict.
        names (list[str]): Names of the entries.

    Returns:
        Tensor: Of shape (32, ), uint8.
    """
    digest = hashlib.sha256()
    for name in names:
        # The same hash whatever the weights are stored in or run on.
        value = state[name].detach().to('cpu', torch.float32).contiguous()
        digest.update(f'{name} {tuple(value.shape)}\n'.encode())
        digest.update(value.numpy().data)
    return torch.tensor(list(digest.digest()), dtype=torch.uint8)


def without_frozen(state: Mapping[str, Tensor], names: list[str]) -> dict[str, Tensor]:
    """A state dict without its frozen entries."""
    left_out = set(names)
    return {name: value for name, value in state.items() if name not in left_out}


def fill_frozen(state: dict[str, Any], prefix: str, model: nn.Module) -> None:
    """Put the model's own frozen weights where a checkpoint has their fingerprint.

    Args:
        state (dict[str, Any]): Changed in place.
        prefix (str): Of the model's entries.
        model (nn.Module): With towers of the CLIP that the checkpoint needs; what is
            not loaded yet, is loaded now.

    Raises:
        ValueError: The model's frozen weights are other ones, or cannot be had.
    """
    needed = state.pop(prefix + FINGERPRINT, None)
    if needed is None:
        return
    # What the training run had frozen, which this model may train; what it trained
    # is there and stays, though it may be frozen now.
    names: list[str] = []
    for path, module in model.named_modules():
        if isinstance(module, PretrainedTower):
            lacking = [f'{path}.{name}' for name in module.clip_names]
            lacking = [name for name in lacking if prefix + name not in state]
            if lacking:
                module.load_pretrained()
            names.extend(lacking)
    names.sort()
    own = model.state_dict()
    actual = fingerprint(own, names)
    if not torch.equal(actual, needed.cpu()):
        # Checkpoints once had no positions: CLIP's, which this model has interpolated.
        for path, module in model.named_modules():
            if isinstance(module, PretrainedTower):
                positions = module.file_positions()
                own.update({f'{path}.{name}': v for name, v in positions.items()})
    if not torch.equal(fingerprint(own, names), needed.cpu()):
        raise ValueError(
            'The checkpoint was saved without its frozen weights (SlimCheckpointHook), '
            f'and needs those of sha256 {_hex(needed)}; the {len(names)} weights of '
            f'this model that it lacks have {_hex(actual)}. Build the model with the '
            'config of the training run, its `pretrained` CLIP included.'
        )
    for name in names:
        state[prefix + name] = own[name]


def _hex(sha256: Tensor) -> str:
    return bytes(sha256.tolist()).hex()[:16] + '...'
