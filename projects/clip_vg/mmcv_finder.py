"""Where an import of ``mmcv._ext`` ends if MMCV was installed without it.

Kept apart from :mod:`projects.clip_vg.compat`, and without imports that cost
anything: ``clip_vg_mmcv_ops.pth``, which ``setup.py`` installs, runs this file
whenever Python starts. MMDetection's own tools import the ops before they read the
config that would import us.
"""

import importlib.util
import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

__all__ = ['MMCVExtFinder', 'install']


class MMCVExtFinder(MetaPathFinder):
    """Finds the stand-in for ``mmcv._ext``.

    It is the last finder, so a compiled extension always wins.
    """

    def find_spec(self, fullname: str, *_: Any) -> ModuleSpec | None:
        """The spec of ``mmcv_ext.py`` for ``mmcv._ext``, and of nothing else."""
        if fullname != 'mmcv._ext':
            return None
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'mmcv_ext.py')
        return importlib.util.spec_from_file_location(fullname, path)


def install() -> None:
    """Append the finder to ``sys.meta_path``, once."""
    if not any(type(f).__name__ == MMCVExtFinder.__name__ for f in sys.meta_path):
        sys.meta_path.append(MMCVExtFinder())


install()
