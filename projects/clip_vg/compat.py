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

import torch
from mmengine.config import Config
from mmengine.fileio import LocalBackend, register_backend
from mmengine.runner import CheckpointLoader

from . import mmcv_finder  # noqa: F401  # its import installs the finder
from .checkpoints.safe_loading import load_from_local

__all__ = ['AtomicLocalBackend', 'load_from_local', 'setup_cpu_distributed']


class AtomicLocalBackend(LocalBackend):
    """MMEngine's local files, written under another name and then renamed.

    For ``CheckpointHook(backend_args=dict(backend='AtomicLocalBackend'))``: a
    process killed while it writes leaves the previous file as it was.
    """

    def put(self, obj: bytes | memoryview, filepath: str | Path) -> None:
        """Write ``obj`` to ``filepath``; all of it or nothing."""
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder, as a rename does not cross file systems.
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f'.{path.name}.', delete=False
        ) as file:
            try:
                file.write(obj)
                file.flush()
                # Or a power cut leaves the new name with an empty file.
                os.fsync(file.fileno())
                # As `open` would have made it; temporary files are private.
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


# `force`: these replace MMEngine's own loader of local files.
CheckpointLoader.register_scheme('', load_from_local, force=True)
register_backend('AtomicLocalBackend', AtomicLocalBackend, force=True)
