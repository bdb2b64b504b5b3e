"""Draw the labels of an image together."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from mmdet.registry import DATA_SAMPLERS
from mmengine.dataset import BaseDataset
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from projects.clip_vg_core.data.grouping import ImageGroups

__all__ = ['ImageGroupSampler', 'image_index_of', 'is_grouped']


def image_index_of(dataset: BaseDataset, who: str) -> np.ndarray:
    """Index of each label's image.

    Args:
        dataset (BaseDataset): A :obj:`RefExpDataset`.
        who (str): Name of the caller, for the error.

    Returns:
        np.ndarray: Of shape (N, ).

    Raises:
        ValueError: The data set is another one.
    """
    if not hasattr(dataset, 'table'):
        raise ValueError(
            f'{who} needs a RefExpDataset, got {type(dataset).__name__}: give several '
            '`ann_file` to one RefExpDataset instead of wrapping it.'
        )
    return dataset.table.image_index


def is_grouped(sampler: Sampler | Mapping[str, Any]) -> bool:
    """Whether a sampler draws the labels of an image together.

    Args:
        sampler (Sampler or Mapping): A sampler, or the config of one.
    """
    if isinstance(sampler, Mapping):
        kind = sampler.get('type')
        return kind in ('ImageGroupSampler', ImageGroupSampler) or bool(
            sampler.get('grouped')
        )
    return bool(getattr(sampler, 'grouped', False))


@DATA_SAMPLERS.register_module()
class ImageGroupSampler(Sampler):
    """Sample the labels of an image together, as tuples of their indices.

    Each image is decoded and encoded once for all its expressions. Every label
    comes once an epoch. While shuffling (training), ranks get equally many
    groups, the first few being drawn again; else (evaluation) every label goes
    to exactly one rank, and ranks may differ by a group.

    Args:
        dataset (RefExpDataset): Has ``table.image_index``.
        shuffle (bool): Whether groups, and which labels of an image are together, are
            shuffled. Defaults to True.
        seed (int, optional): Defaults to None: drawn, the same on all ranks.
        max_expressions (int, optional): Most labels in a group. Defaults to None:
            all of the image.
    """

    grouped = True

    def __init__(
        self,
        dataset: BaseDataset,
        shuffle: bool = True,
        seed: int | None = None,
        max_expressions: int | None = None,
    ) -> None:
        if max_expressions is not None and max_expressions < 1:
            raise ValueError(f'max_expressions must be >= 1, got {max_expressions}.')
        self.groups = ImageGroups(
            image_index_of(dataset, type(self).__name__), max_size=max_expressions
        )
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        self.rank, self.world_size = get_dist_info()

    def __len__(self) -> int:
        """Groups of this rank in an epoch."""
        if self.shuffle:
            return -(-len(self.groups) // self.world_size)
        return len(range(self.rank, len(self.groups), self.world_size))

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        # Of seed and epoch alone, so that all ranks draw the same plan and share it.
        rng = np.random.default_rng((self.seed, self.epoch)) if self.shuffle else None
        length = len(self) * self.world_size if self.shuffle else len(self.groups)
        plan = self.groups.plan(length, rng)
        return iter(plan.take(slice(self.rank, None, self.world_size)))

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, by which each one is shuffled differently."""
        self.epoch = epoch
