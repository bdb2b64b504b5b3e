"""What was read from each annotation file, and how several become one."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from .image_roots import ImageRoots
from .label_keys import content_keys, image_bytes, with_image_bytes
from .label_table import LabelTable, PackedStrings

__all__ = [
    'LabelFile',
    'describe_files',
    'describe_invalid',
    'in_folds',
    'of_images',
    'make_ids_unique',
]

# How many invalid labels are named in the log.
_NAMED = 3


@dataclass(frozen=True)
class LabelFile:
    """Labels of one annotation file, as reliability files know them.

    Args:
        file (str): Name of the label file.
        source (str): Name of the source.
        split (str, optional): The split that was read; None: all of the file.
        count (int): Labels read, in the file's order, invalid boxes included.
        sample_ids_sha256 (str): Of their ``sample_id``, each followed by a newline.
        content (np.ndarray): uint64 (count, ), a key of each label's ``sample_id``,
            image name, expression and box.
        add_image_bytes (Callable, optional): Maps these keys, or those of the labels
            ``rows``, to keys that depend on the bytes of the images as well. Defaults
            to None: the images are unknown.
    """

    file: str
    source: str
    split: str | None
    count: int
    sample_ids_sha256: str
    content: np.ndarray = field(compare=False, repr=False)
    add_image_bytes: Callable[..., np.ndarray] | None = field(
        default=None, compare=False, repr=False
    )

    def described(self) -> dict[str, Any]:
        """Entry ``labels`` of a manifest."""
        names = ('file', 'source', 'split', 'count', 'sample_ids_sha256')
        return {name: getattr(self, name) for name in names}

    @cached_property
    def keys(self) -> np.ndarray:
        """uint64 (count, ); a label's key changes with the label and its image."""
        # Cached: the images' sizes are read from the file system.
        if self.add_image_bytes is None:
            return self.content
        return self.add_image_bytes(self.content)

    def part(self, rows: np.ndarray, sample_ids_sha256: str) -> 'LabelFile':
        """Some of the labels; only their images are looked at.

        Args:
            rows (np.ndarray): int64 (n, ), which ones.
            sample_ids_sha256 (str): Of their ``sample_id``.
        """
        add = self.add_image_bytes
        return replace(
            self,
            count=len(rows),
            sample_ids_sha256=sample_ids_sha256,
            content=self.content[rows],
            add_image_bytes=add and partial(add, rows=rows),
        )

    @property
    def fingerprint(self) -> str:
        """A sha256 of all labels, and of their images where these are known."""
        return hashlib.sha256(self.keys.tobytes()).hexdigest()


def describe_files(
    tables: list[LabelTable],
    stems: list[str],
    splits: Sequence[str] | None,
    images: str | Path | ImageRoots | None = None,
) -> list[LabelFile]:
    """Name, source and keys of what was read from each file.

    Args:
        tables (list[LabelTable]): As read.
        stems (list[str]): Names of the files.
        splits (Sequence[str], optional): That were read.
        images (str, Path or ImageRoots, optional): The folder or folders of images,
            whose bytes the keys shall depend on. Defaults to None: they do not.

    Returns:
        list[LabelFile]: One for each table, no two of one source.
    """
    sources = [
        table.source_names[0] if len(set(table.source_names)) == 1 else stem
        for table, stem in zip(tables, stems, strict=True)
    ]
    if len(set(sources)) < len(sources):  # e.g. two files of human labels
        sources = _numbered(stems)
    return [
        LabelFile(
            stem,
            source,
            ','.join(splits) if splits else None,
            len(table),
            table.sample_ids.sha256(),
            content_keys(table),
            None
            if images is None
            else partial(_add_image_bytes, images, table.images, table.image_index),
        )
        for table, stem, source in zip(tables, stems, sources, strict=True)
    ]


def _numbered(stems: Sequence[str]) -> list[str]:
    """The names, with a number where one comes again: files of two folders."""
    return [
        stem if stem not in stems[:place] else f'{stem}_{stems[:place].count(stem) + 1}'
        for place, stem in enumerate(stems)
    ]


def _add_image_bytes(
    folder: str | Path | ImageRoots,
    names: PackedStrings,
    index: np.ndarray,
    keys: np.ndarray,
    rows: np.ndarray | None = None,
) -> np.ndarray:
    """Keys that depend on the bytes of the labels' images."""
    if rows is not None:
        images, index = np.unique(index[rows], return_inverse=True)
        names = names.take(images)
    return with_image_bytes(keys, image_bytes(folder, names)[index])


def in_folds(
    table: LabelTable, number: int, keep: Sequence[int], seed: int = 0
) -> np.ndarray:
    """The labels whose image falls into one of the parts to keep."""
    if not keep or not set(keep) <= set(range(number)):
        raise ValueError(
            f'image_folds: keep={list(keep)} of number={number}; expected some of 0 to '
            f'{number - 1}.'
        )
    part = np.fromiter(
        (_hash(f'{seed}:{name}') % number for name in table.images),
        np.int64,
        len(table.images),
    )
    return np.flatnonzero(np.isin(part, list(keep))[table.image_index])


def of_images(table: LabelTable, number: int, seed: int = 0) -> np.ndarray:
    """The labels of at most so many images of each split.

    Args:
        table (LabelTable): N labels.
        number (int): Images of a split. A larger number has those of a smaller one.
        seed (int): Decides which. Defaults to 0.

    Returns:
        np.ndarray: int64, indices of labels, ascending.

    Raises:
        ValueError: ``number`` is not positive.
    """
    if number < 1:
        raise ValueError(f'expected at least 1 image of each split, got {number}.')
    selected = np.zeros(len(table), bool)
    for code in np.unique(table.splits):
        of_split = table.splits == code
        images = np.unique(table.image_index[of_split])
        ranks = [_hash(f'{seed}:{table.images[index]}') for index in images]
        chosen = images[np.argsort(np.array(ranks, np.uint64))[:number]]
        selected |= of_split & np.isin(table.image_index, chosen)
    return np.flatnonzero(selected)


def _hash(text: str) -> int:
    """A number that depends on every bit, on every machine the same."""
    digest = hashlib.blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=8)
    return int.from_bytes(digest.digest(), 'little')


def make_ids_unique(tables: list[LabelTable], stems: list[str]) -> list[LabelTable]:
    """The tables, their sample_ids preceded by the file's name if two are alike."""
    if len(tables) == 1:
        return tables
    names = [name for table in tables for name in table.sample_ids]
    if len(set(names)) == len(names):
        return tables
    if len(set(stems)) < len(stems):  # e.g. the instances.json of two folders
        stems = [f'{stem}{number}' for number, stem in enumerate(stems)]
    return [
        replace(
            table,
            sample_ids=PackedStrings.pack([f'{stem}/{n}' for n in table.sample_ids]),
        )
        for stem, table in zip(stems, tables, strict=True)
    ]


def describe_invalid(
    table: LabelTable,
    reason: str,
    indices: np.ndarray,
    files: Sequence[Path],
    done: str,
) -> str:
    """How many labels are invalid, what was done with them, and the first of them."""
    named = '; '.join(
        f'{label["sample_id"]} ({label["image"]}) '
        f'{label["bbox"] if table.offsets is None else label["bboxes"]}'
        for label in (table[int(i)] for i in indices[:_NAMED])
    )
    return (
        f'{len(indices):,} of {len(table):,} labels {done}, box {reason}: {named}'
        f'{", ..." if len(indices) > _NAMED else ""}. From '
        f'{", ".join(map(str, files))}.'
    )
