"""CLIP-VG for MMDetection: importing this package registers its modules."""

from projects.clip_vg_core.utils.quick_imports import collection_paused

with collection_paused():
    from . import compat  # noqa: F401, I001  # before anything imports mmcv.ops
    from . import datasets, deployment, engine, evaluation, models  # noqa: F401
    from .installed_files import get_path
    from .version import __version__

__all__ = ['__version__', 'get_path']
