"""The data sets of a config, and their folder, set once for all data loaders."""

from collections.abc import Iterator, MutableMapping
from typing import Any

__all__ = ['data_sets_of', 'replace_data_root']

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
    found = [
        dataset
        for loader in _LOADERS
        if cfg.get(loader) is not None
        for dataset in data_sets_of(cfg[loader].get('dataset'))
    ]
    if not found:
        raise ValueError(
            f'--data-root {data_root}: the config has no data set; expected one in '
            f'{", ".join(_LOADERS)}.'
        )
    for dataset in found:
        dataset['data_root'] = data_root


def data_sets_of(dataset: Any) -> Iterator[MutableMapping]:
    """The configs of a loader's data sets, those in wrappers included.

    Args:
        dataset (Any): The loader's ``dataset``.
    """
    if isinstance(dataset, (list, tuple)):
        for item in dataset:
            yield from data_sets_of(item)
    elif isinstance(dataset, MutableMapping):
        inner = [key for key in _WRAPPED if key in dataset]
        for key in inner:
            yield from data_sets_of(dataset[key])
        if not inner:
            yield dataset
