"""The folder of the data, set once for all data loaders of a config."""

from collections.abc import MutableMapping
from typing import Any

__all__ = ['replace_data_root']

_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
_WRAPPED = ('dataset', 'datasets')  # of MMEngine's and MMDetection's wrappers


def replace_data_root(cfg: MutableMapping, data_root: str) -> None:
    """Read the training, validation and test data of a config from ``data_root``.

    Args:
        cfg (MutableMapping): A config, changed in place. Loaders that it has not, or
            that are None, stay so.
        data_root (str): In the place of ``data_root`` of each loader's data set, those
            in wrappers included.

    Raises:
        ValueError: The config has no data set.
    """
    changed = [
        _replace(cfg[loader].get('dataset'), data_root)
        for loader in _LOADERS
        if cfg.get(loader) is not None
    ]
    if not any(changed):
        raise ValueError(
            f'--data-root {data_root}: the config has no data set; expected one in '
            f'{", ".join(_LOADERS)}.'
        )


def _replace(dataset: Any, data_root: str) -> bool:
    """Whether there was a data set."""
    if isinstance(dataset, (list, tuple)):
        return any([_replace(item, data_root) for item in dataset])
    if not isinstance(dataset, MutableMapping):
        return False
    inner = [key for key in _WRAPPED if key in dataset]
    if inner:
        return any([_replace(dataset[key], data_root) for key in inner])
    dataset['data_root'] = data_root
    return True
