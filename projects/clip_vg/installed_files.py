"""Paths of the configs, tools and demos of this package."""

from pathlib import Path

__all__ = ['get_path']

_PACKAGE = Path(__file__).resolve().parent


def get_path(name: str = '') -> Path:
    """A config, tool or demo of this package, wherever it is installed.

    In a checkout (``pip install -e .``) it is the repository's own file. A wheel brings
    them in the folder ``.mim`` of the package, as MMDetection's does.

    Args:
        name (str): As in the repository, such as 'configs/clip_vg_refcoco.py',
            'tools/train.py' or 'demo'. Defaults to '': the folder that holds them.

    Returns:
        Path: The file or folder.

    Raises:
        FileNotFoundError: There is none of this name.

    Examples:
        >>> from mmengine.config import Config
        >>> cfg = Config.fromfile(get_path('configs/clip_vg_refcoco.py'))
    """
    # MIM, the installer of MMDetection, looks for configs and tools in this folder.
    wheel = _PACKAGE / '.mim'
    root = wheel if wheel.is_dir() else _PACKAGE.parents[1]
    path = root / name
    if not path.exists():
        folder = next(parent for parent in path.parents if parent.is_dir())
        there = sorted(p.name for p in folder.iterdir() if p.name[:2] != '__')
        raise FileNotFoundError(f'{path}: no such file; {folder} has {there}.')
    return path
