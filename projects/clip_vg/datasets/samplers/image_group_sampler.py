"""Draw the labels of an image together."""

from collections.abc import Iterator

import numpy as np
from mmdet.registry import DATA_SAMPLERS
from mmengine.dataset import BaseDataset
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

__all__ = ['ImageGroupSampler', 'group_by_image']


def group_by_image(
    image_index: np.ndarray, max_size: int | None, rng: np.random.Generator | None
) -> list[tuple[int, ...]]:
    """Cut labels into groups of one image each.

    Args:
        image_index (np.ndarray): The image of each label, of shape (N, ).
        max_size (int, optional): Most labels in a group; None: all of the image.
        rng (np.random.Generator, optional): Shuffles labels within their image
            and the groups; None: both stay in order.

    Returns:
        list[tuple[int, ...]]: Every label once. The number of groups does not
        depend on ``rng``.
    """
    order = (
        np.arange(len(image_index))
        if rng is None
        else rng.permutation(len(image_index))
    )
    order = order[np.argsort(image_index[order], kind='stable')]
    images = image_index[order]
    firsts = np.flatnonzero(np.r_[True, images[1:] != images[:-1]])
    sizes = np.diff(np.r_[firsts, len(images)])
    within = np.arange(len(images)) - np.repeat(firsts, sizes)
    starts = within % max_size == 0 if max_size else within == 0
    groups = np.split(order, np.flatnonzero(starts)[1:])
    if rng is not None:
        groups = [groups[i] for i in rng.permutation(len(groups))]
    return [tuple(group.tolist()) for group in groups]


@DATA_SAMPLERS.register_module()
class ImageGroupSampler(Sampler):
    """Yields tuples of labels of one image: grouped samples.

    Each image is decoded and encoded once for all its expressions. Every label
    comes once an epoch. While shuffling (training), ranks get equally many
    groups, the first few being drawn again; else (evaluation) every label goes
    to exactly one rank, and ranks may differ by a group.

    Args:
        dataset (:obj:`RefExpDataset`): Has ``table.image_index``.
        shuffle (bool): Defaults to True.
        seed (int, optional): Defaults to None: drawn, the same on all ranks.
        max_expressions (int, optional): Most labels in a group. Defaults to None:
            all of the image.
    """

    def __init__(
        self,
        dataset: BaseDataset,
        shuffle: bool = True,
        seed: int | None = None,
        max_expressions: int | None = None,
    ) -> None:
        if not hasattr(dataset, 'table'):
            raise ValueError(
                f'ImageGroupSampler needs a RefExpDataset, got '
                f'{type(dataset).__name__}: give several `ann_file` to one '
                'RefExpDataset instead of wrapping it.'
            )
        if max_expressions is not None and max_expressions < 1:
            raise ValueError(f'max_expressions must be >= 1, got {max_expressions}.')
        self.image_index = dataset.table.image_index
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.max_expressions = max_expressions
        self.epoch = 0
        self.rank, self.world_size = get_dist_info()
        counts = np.bincount(self.image_index)
        self.num_groups = int(
            np.ceil(counts / (max_expressions or max(1, counts.max()))).sum()
        )

    def __len__(self) -> int:
        """Groups of this rank in an epoch."""
        if self.shuffle:
            return -(-self.num_groups // self.world_size)
        return len(range(self.rank, self.num_groups, self.world_size))

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        rng = np.random.default_rng((self.seed, self.epoch)) if self.shuffle else None
        groups = group_by_image(self.image_index, self.max_expressions, rng)
        if self.shuffle:
            groups += groups[: len(self) * self.world_size - len(groups)]
        yield from groups[self.rank :: self.world_size]

    def set_epoch(self, epoch: int) -> None:
        """Shuffle in another way in the next epoch."""
        self.epoch = epoch
