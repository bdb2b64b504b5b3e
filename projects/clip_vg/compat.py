"""Make MMCV, MMEngine and MMDetection work with today's PyTorch.

Importing this module does three things, each only where it is needed:

* where ``mmcv._ext`` cannot be imported (``mmcv-lite``), an import of it finds
  :mod:`projects.clip_vg.mmcv_ext`. A compiled MMCV always wins, because the
  finder comes last;
* MMEngine's loader of local checkpoints reads them with PyTorch's ``weights_only``
  loader and stand-ins for the few names of MMEngine, so that they load and resume on
  PyTorch >= 2.6;
* the file backend ``AtomicLocalBackend`` is registered, which checkpoint hooks
  can be given so that a killed process leaves no half-written file.
"""

import atexit
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler import OneCycleParamScheduler
from mmengine.runner import CheckpointLoader

from projects.clip_vg_core.utils.safe_torch import load_torch
from projects.clip_vg_core.utils.stand_ins import Attributes, StandIn, UnsafePickleError

from . import mmcv_finder  # noqa: F401  # its import installs the finder

__all__ = ['AtomicLocalBackend', 'load_from_local', 'setup_cpu_distributed']


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
    if owner is _History and name in ('min', 'max', 'current', 'mean', 'statistics'):
        return _Method(getattr(HistoryBuffer, name))
    if owner is _OneCycle and name in ('_annealing_cos', '_annealing_linear'):
        return _Method(getattr(OneCycleParamScheduler, name))
    raise UnsafePickleError(f'it asks for "builtins.getattr" of {name!r:.80}')


# Beside tensors and containers, what a checkpoint of MMEngine names.
_MMENGINE_NAMES = {
    'builtins.getattr': _method_of,
    'mmengine.config.config.ConfigDict': _ConfigDict,
    'mmengine.logging.history_buffer.HistoryBuffer': _History,
    f'{OneCycleParamScheduler.__module__}.OneCycleParamScheduler': _OneCycle,
}


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Read a local checkpoint of MMEngine without running what it contains.

    Args:
        filename (str): The checkpoint.
        map_location (Any): As in ``torch.load``. Defaults to None.

    Returns:
        dict: The checkpoint.

    Raises:
        UnsafePickleError: The file asks for something a checkpoint never needs.
        FileNotFoundError: There is no such file.
        ValueError: The file is truncated, was not written by ``torch.save``, or is a
            checkpoint of the official CLIP-VG.
    """
    checkpoint = load_torch(
        Path(filename).expanduser(), map_location=map_location, names=_MMENGINE_NAMES
    )
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


class AtomicLocalBackend(LocalBackend):
    """MMEngine's local files, written under another name and then renamed.

    For ``CheckpointHook(backend_args=dict(backend='AtomicLocalBackend'))``: a
    process killed while it writes leaves the previous file as it was.
    """

    def put(self, obj: bytes | memoryview, filepath: str | Path) -> None:
        """Write ``obj`` to ``filepath``; all of it or nothing."""
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f'.{path.name}.', delete=False
        ) as file:
            try:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
                umask = os.umask(0)
                os.umask(umask)
                os.chmod(file.name, 0o666 & ~umask)
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write the text ``obj`` to ``filepath``; all of it or nothing."""
        self.put(obj.encode(encoding), filepath)


def setup_cpu_distributed(cfg: Config) -> None:
    """Let a distributed launcher work on a machine without a GPU.

    MMEngine sets a CUDA device and hands DDP its index without asking whether
    there is one. Where there is none, this starts the process group with gloo
    before MMEngine would, and names the wrapper without a device.

    Args:
        cfg (Config): The config to run, changed in place.
    """
    if cfg.get('launcher', 'none') != 'pytorch' or torch.cuda.is_available():
        return
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')
        # Its threads, if still running when Python ends, abort the process.
        atexit.register(torch.distributed.destroy_process_group)
    if cfg.get('model_wrapper_cfg') is None:
        cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None)


CheckpointLoader.register_scheme('', load_from_local, force=True)
register_backend('AtomicLocalBackend', AtomicLocalBackend, force=True)
