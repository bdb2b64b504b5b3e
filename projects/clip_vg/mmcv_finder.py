"""Where imports end that would fail: ``mmcv._ext``, and a hidden ``projects.clip_vg``.

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
        """The spec of ``mmcv_ext.py`` for ``mmcv._ext``, and of nothing else.

        Raises:
            ModuleNotFoundError: A package of ours is imported, and a package
                ``projects`` that is not ours (a folder with an ``__init__.py``) hides
                it; the message names it.
        """
        foreign = getattr(sys.modules.get('projects'), '__file__', None)
        if foreign and fullname in ('projects.clip_vg', 'projects.clip_vg_core'):
            own = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
            raise ModuleNotFoundError(
                f'No module named {fullname!r}: {foreign} makes a package of its '
                f'folder, which hides {own} wherever the two are on the path '
                '(sys.path). Remove that __init__.py (folders `projects` without one '
                'are found side by side), or take its parent folder off the path.',
                name=fullname,
            )
        if fullname != 'mmcv._ext':
            return None
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'mmcv_ext.py')
        return importlib.util.spec_from_file_location(fullname, path)


def install() -> None:
    """Append the finder to ``sys.meta_path``, once."""
    if not any(type(f).__name__ == MMCVExtFinder.__name__ for f in sys.meta_path):
        sys.meta_path.append(MMCVExtFinder())


install()
