"""A 64-bit key for each label: what tells whether a score is of this very label."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from .image_roots import ImageRoots
from .label_table import LabelTable, PackedStrings

__all__ = [
    'content_keys',
    'hash_strings',
    'image_bytes',
    'images_fingerprint',
    'with_image_bytes',
]

# Odd, so that it has an inverse modulo 2 ** 64; the digits of the golden ratio.
_BASE = np.uint64(0x9E3779B97F4A7C15)
_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))
# Multipliers of SplitMix64 (Steele et al., OOPSLA 2014).
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_CHUNK = 1 << 20  # bytes hashed at once


def _mix(values: np.ndarray) -> np.ndarray:
    """Let every bit depend on all."""
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    return values ^ (values >> np.uint64(31))


def hash_strings(strings: PackedStrings) -> np.ndarray:
    """Hash strings without a Python object for each.

    Sums of byte times power, of which a string's part is cut out of the running sum of
    all.

    Args:
        strings (PackedStrings): N strings.

    Returns:
        np.ndarray: uint64 (N, ), the same on every machine.
    """
    hashes = np.empty(len(strings), np.uint64)
    powers = inverses = np.empty(0, np.uint64)
    starts = np.concatenate([[0], strings.ends[:-1]]).astype(np.int64)
    for first, last in _chunks(strings.ends):
        begin, end = int(starts[first]), int(strings.ends[last - 1])
        count = end - begin
        if count >= len(powers):
            powers, inverses = _powers(_BASE, count), _powers(_INVERSE, count)
        sums = np.zeros(count + 1, np.uint64)
        sums[1:] = strings.data[begin:end]
        sums[1:] += np.uint64(1)
        sums[1:] *= powers[:count]
        np.cumsum(sums, out=sums)
        left = starts[first:last] - begin
        right = strings.ends[first:last] - begin
        values = (sums[right] - sums[left]) * inverses[left]
        hashes[first:last] = _mix(values + (right - left).astype(np.uint64))
    return hashes


def _powers(base: np.uint64, count: int) -> np.ndarray:
    """Powers of a number from 0 to ``count``, modulo 2 ** 64."""
    powers = np.full(count + 1, base)
    powers[0] = 1
    return powers.cumprod()


def _chunks(ends: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of strings of about ``_CHUNK`` bytes together, at least one each."""
    first = 0
    while first < len(ends):
        begin = int(ends[first - 1]) if first else 0
        last = int(np.searchsorted(ends, begin + _CHUNK, 'right'))
        last = max(last, first + 1)
        yield first, last
        first = last


def content_keys(table: LabelTable) -> np.ndarray:
    """Keys of what the labels say: name, image name, expression and target boxes.

    The key of a label with one target does not depend on how many others have; the
    order of several targets does not matter.

    Args:
        table (LabelTable): N labels, before any is dropped or renamed.

    Returns:
        np.ndarray: uint64 (N, ).
    """
    if not len(table):
        return np.empty(0, np.uint64)
    keys = hash_strings(table.sample_ids)
    keys = _mix(keys ^ hash_strings(table.images)[table.image_index])
    keys = _mix(keys ^ hash_strings(table.texts) * _BASE)
    # + 0.0: no other key for -0.0.
    corners = np.ascontiguousarray(table.boxes + np.float32(0)).view(np.uint64)
    left_top, right_bottom = corners.reshape(len(table.boxes), 2).T
    if table.offsets is None:
        return _mix(_mix(keys ^ left_top) ^ right_bottom)
    counts, owners = table.target_counts(), table.box_owners()
    of_boxes = _mix(_mix(keys[owners] ^ left_top) ^ right_bottom)
    sums = np.zeros(len(table), np.uint64)
    np.add.at(sums, owners, of_boxes)
    return np.where(counts == 1, sums, _mix(sums ^ keys ^ counts.astype(np.uint64)))


def image_bytes(folder: str | Path | ImageRoots, names: PackedStrings) -> np.ndarray:
    """How many bytes the images have.

    Args:
        folder (str, Path or ImageRoots): That the names start from.
        names (PackedStrings): Of M images.

    Returns:
        np.ndarray: int64 (M, ), -1 where there is no such file.
    """
    sizes = np.full(len(names), -1, np.int64)
    path_of = (
        folder.path if isinstance(folder, ImageRoots) else partial(os.path.join, folder)
    )
    for index in range(len(names)):
        try:
            sizes[index] = os.stat(path_of(names[index])).st_size
        except OSError:
            continue
    return sizes


def images_fingerprint(folder: str | Path, names: Sequence[str]) -> str:
    """A sha256 of the names of images, in order, and of how many bytes they have."""
    packed = PackedStrings.pack(names)
    digest = hashlib.sha256(packed.sha256().encode())
    digest.update(image_bytes(folder, packed).tobytes())
    return digest.hexdigest()


def with_image_bytes(keys: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Keys of labels on images of these bytes.

    Args:
        keys (np.ndarray): Of :func:`content_keys`, of shape (N, ).
        sizes (np.ndarray): int64 (N, ), the bytes of each label's image.

    Returns:
        np.ndarray: uint64 (N, ).
    """
    return _mix(keys ^ sizes.astype(np.uint64) * _FIRST)
