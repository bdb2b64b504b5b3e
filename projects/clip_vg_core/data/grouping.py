"""Which labels are shown together and in which order, in whole arrays.

Nothing here loops over labels: the plan of ten million takes well under a second.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

__all__ = ['ImageGroups', 'Plan', 'draw', 'split_by_weight']


@dataclass(frozen=True)
class Plan:
    """Groups of labels, one after another.

    Args:
        order (np.ndarray): Labels, int32 or int64; those of a group stand side by side.
        starts (np.ndarray): int64 (G, ), where each group begins in ``order``.
        sizes (np.ndarray): int64 (G, ), how many labels it has.
    """

    order: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, groups: np.ndarray | slice) -> 'Plan':
        """The groups at some places."""
        return Plan(self.order, self.starts[groups], self.sizes[groups])

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        for start, size in zip(self.starts, self.sizes, strict=True):
            yield tuple(self.order[start : start + size].tolist())


class ImageGroups:
    """Labels sorted by image, ready to be cut into groups of one image each.

    Args:
        image_index (np.ndarray): The image of every label of the data set.
        labels (np.ndarray, optional): The labels to group. Defaults to None: all.
        max_size (int, optional): Most labels in a group. Defaults to None: all of
            the image.
    """

    def __init__(
        self,
        image_index: np.ndarray,
        labels: np.ndarray | None = None,
        max_size: int | None = None,
    ) -> None:
        self._labels = None if labels is None else np.asarray(labels, np.int64)
        self._images = image_index if labels is None else image_index[self._labels]
        places = _by_image(self._images)
        self.order = self._label_at(places)
        images = self._images[places]
        firsts = np.flatnonzero(np.r_[True, images[1:] != images[:-1]])
        counts = np.diff(np.r_[firsts, len(images)])
        size = max_size or max(1, counts.max(initial=1))
        groups_of = -(-counts // size)
        within = np.arange(groups_of.sum()) - np.repeat(
            groups_of.cumsum() - groups_of, groups_of
        )
        self.starts = np.repeat(firsts, groups_of) + within * size
        self.sizes = np.minimum(np.repeat(counts, groups_of) - within * size, size)

    def __len__(self) -> int:
        return len(self.starts)

    def plan(self, length: int, rng: np.random.Generator | None) -> Plan:
        """Groups up to a length, each once before any comes again.

        Args:
            length (int): How many groups.
            rng (np.random.Generator, optional): Shuffles the groups, and which
                labels of an image come together. Defaults to None: in order.

        Returns:
            Plan: Of ``length`` groups.
        """
        order = self.order
        if rng is not None:
            lots = np.arange(len(order), dtype=np.int32)  # new memory is what is slow
            rng.shuffle(lots)
            order = self._label_at(lots[_by_image(self._images[lots])])
        return Plan(order, self.starts, self.sizes).take(draw(len(self), length, rng))

    def _label_at(self, places: np.ndarray) -> np.ndarray:
        return places if self._labels is None else self._labels[places]


def _by_image(images: np.ndarray) -> np.ndarray:
    """Places of labels, sorted by image and then by place.

    Sorts one integer of both, several times faster than a stable sort of the images.
    """
    keys = images.astype(np.int64)
    keys <<= 32
    keys |= np.arange(len(images), dtype=np.int32)
    keys.sort()
    keys &= 0xFFFFFFFF
    return keys


def draw(count: int, length: int, rng: np.random.Generator | None) -> np.ndarray:
    """Numbers below ``count``, each once before any comes again.

    Args:
        count (int): At least 1.
        length (int): How many numbers.
        rng (np.random.Generator, optional): Shuffles anew for each round. Defaults
            to None: in order.

    Returns:
        np.ndarray: int64, of shape (length, ).
    """
    rounds = -(-length // count) if length else 0
    if rng is None:
        return np.tile(np.arange(count), rounds)[:length]
    return np.concatenate(
        [rng.permutation(count) for _ in range(rounds)] or [np.arange(0)]
    )[:length]


def split_by_weight(length: int, weights: np.ndarray) -> np.ndarray:
    """Whole numbers in proportion to weights, by largest remainder.

    Args:
        length (int): Their sum.
        weights (np.ndarray): Not negative, of shape (S, ), not all 0.

    Returns:
        np.ndarray: int64, of shape (S, ).
    """
    exact = length * weights / weights.sum()
    shares = np.floor(exact).astype(np.int64)
    missing = length - shares.sum()
    shares[np.argsort(-(exact - shares), kind='stable')[:missing]] += 1
    return shares
