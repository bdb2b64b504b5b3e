"""Checkpoints of MMEngine, read without running what they contain."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler import OneCycleParamScheduler
from torch import Tensor

from projects.clip_vg_core.utils.safe_torch import load_torch
from projects.clip_vg_core.utils.stand_ins import Attributes, StandIn, UnsafePickleError

from .hub_folder import read_weights

__all__ = ['MMENGINE_NAMES', 'load_from_local', 'read_checkpoint']


class _Method(StandIn):
    """Stands for a function of MMEngine that a checkpoint names."""

    __slots__ = ('function',)

    def __init__(self, function: Any) -> None:
        self.function = function

    def thaw(self, held: tuple) -> Any:  # noqa: ARG002
        return self.function


class _History(Attributes):
    """Stands for ``HistoryBuffer``, the values of a loss or a metric."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        methods = state.get('statistics_methods', {})
        if type(methods) is not dict or any(
            type(method) is not _Method for method in methods.values()
        ):
            raise UnsafePickleError('it has a damaged HistoryBuffer')

    def thaw(self, held: tuple) -> HistoryBuffer:
        values, counts = (
            np.asarray(held[0].get(key, ()), float)
            for key in ('_log_history', '_count_history')
        )
        most = held[0].get('max_length', 1_000_000)
        fits = values.shape == counts.shape == (values.size,)
        if not fits or type(most) is not int or most < 1:
            raise UnsafePickleError('it has a damaged HistoryBuffer')
        return HistoryBuffer(
            held[0].get('_log_history', values),
            held[0].get('_count_history', counts),
            most,
        )


class _ConfigDict(StandIn):
    """Stands for a dict of a config."""

    __slots__ = ('items',)
    items: dict

    def __new__(cls, items: Any = None) -> '_ConfigDict':
        self = super().__new__(cls)
        if type(items) is not dict:
            raise UnsafePickleError('it has a damaged ConfigDict')
        self.items = items
        return self

    def held(self) -> tuple:
        return (self.items,)

    def thaw(self, held: tuple) -> ConfigDict:
        return ConfigDict(held[0])


class _OneCycle(StandIn):
    """Stands for ``OneCycleParamScheduler``, whose state holds one of its functions."""

    __slots__ = ()


def _method_of(owner: Any, name: Any) -> _Method:
    """What ``getattr`` in a checkpoint may mean, and nothing else.

    Statistics of a HistoryBuffer, and the two curves of the one-cycle schedule.
    """
    # Never `getattr` itself, which reaches every class of the process.
    if owner is _History and name in ('min', 'max', 'current', 'mean', 'statistics'):
        return _Method(getattr(HistoryBuffer, name))
    if owner is _OneCycle and name in ('_annealing_cos', '_annealing_linear'):
        return _Method(getattr(OneCycleParamScheduler, name))
    raise UnsafePickleError(f'it asks for "builtins.getattr" of {name!r:.80}')


# Beside tensors and containers, what a checkpoint of MMEngine names.
MMENGINE_NAMES = {
    'builtins.getattr': _method_of,
    'mmengine.config.config.ConfigDict': _ConfigDict,
    'mmengine.logging.history_buffer.HistoryBuffer': _History,
    f'{OneCycleParamScheduler.__module__}.OneCycleParamScheduler': _OneCycle,
}


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Read a local checkpoint of MMEngine without running what it contains.

    Args:
        filename (str): The checkpoint; or weights in safetensors, see
            :func:`read_weights`, which are read to the CPU.
        map_location (Any): As in ``torch.load``. Defaults to None.

    Returns:
        dict: The checkpoint.

    Raises:
        UnsafePickleError: The file asks for something a checkpoint never needs.
        FileNotFoundError: There is no such file.
        ValueError: The file is truncated, was not written by ``torch.save``, or is a
            checkpoint of the official CLIP-VG.
    """
    path = Path(filename).expanduser()
    if path.suffix == '.safetensors':
        return read_weights(path)
    checkpoint = load_torch(path, map_location=map_location, names=MMENGINE_NAMES)
    # MMEngine would take the whole dict for weights.
    model = checkpoint.get('model') if isinstance(checkpoint, dict) else None
    if isinstance(model, dict) and any(
        str(name).removeprefix('module.').startswith('image_encoder_clip_vg.')
        for name in model
    ):
        raise ValueError(
            f'{filename} is a checkpoint of the official CLIP-VG: convert it by '
            'tools/model_converters/official_clip_vg.py.'
        )
    return checkpoint


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint of MMEngine.

    Args:
        path (str or Path): The checkpoint.

    Returns:
        dict: ``state_dict`` (dict of tensors, without the prefix of a wrapper),
        ``meta`` (dict), and what else it has.

    Raises:
        UnsafePickleError: It asks for more than data.
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or is no dict of these.
    """
    checkpoint = load_from_local(str(path), map_location='cpu')
    if not isinstance(checkpoint, dict):
        raise ValueError(
            f'{path} holds a {type(checkpoint).__name__}; expected a checkpoint, which '
            'is a dict.'
        )
    state = checkpoint.get('state_dict')
    if not isinstance(state, Mapping) or not state:
        raise ValueError(
            f'{path} has no weights under "state_dict"; {_describe(checkpoint)}'
        )
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(
                f'{path}, state_dict, {str(name)[:80]!r}: expected a tensor, found '
                f'{type(value).__name__}.'
            )
    meta = checkpoint.get('meta', {})
    if not isinstance(meta, dict):
        raise ValueError(f'{path}, meta: expected a dict, found {type(meta).__name__}.')
    # The prefix of a model that was saved inside its wrapper.
    weights = {name.removeprefix('module.'): value for name, value in state.items()}
    return dict(checkpoint, state_dict=weights, meta=meta)


def _describe(checkpoint: Mapping[Any, Any]) -> str:
    """What a checkpoint of another layout holds."""
    keys = [str(key)[:40] for key in list(checkpoint)[:8]]
    parts = [
        f'{str(key)[:40]!r} holds {len(value)} tensors such as '
        f'{[str(name)[:60] for name in list(value)[:3]]}'
        for key, value in checkpoint.items()
        if isinstance(value, Mapping)
        and isinstance(next(iter(value.values()), 0), Tensor)
    ]
    text = f'its keys are {keys}. ' + ''.join(f'{part}. ' for part in parts)
    if parts:
        text += (
            'If these are weights of this project, save them as '
            'dict(state_dict=..., meta=dict(cfg=...)). '
        )
    return text + (
        'A checkpoint of the official CLIP-VG, which has "model", is converted by '
        'tools/model_converters/official_clip_vg.py.'
    )
