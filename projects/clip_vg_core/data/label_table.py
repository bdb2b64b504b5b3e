"""Labels as columns: what workers share instead of a Python object per label."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

__all__ = [
    'LabelTable',
    'PackedStrings',
    'box_faults',
    'concatenate',
    'invalid_boxes',
]


@dataclass(frozen=True)
class PackedStrings(Sequence):
    """Strings in one byte buffer.

    Args:
        data (np.ndarray): uint8, UTF-8 of all strings one after another.
        ends (np.ndarray): int64, where each string ends in ``data``.
    """

    data: np.ndarray
    ends: np.ndarray

    @classmethod
    def pack(cls, strings: Iterable[str]) -> 'PackedStrings':
        """Pack strings."""
        encoded = [string.encode('utf-8', 'surrogatepass') for string in strings]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        return cls(np.frombuffer(b''.join(encoded), np.uint8), lengths.cumsum())

    def __len__(self) -> int:
        return len(self.ends)

    def sha256(self) -> str:
        """Of the strings in UTF-8, each followed by a newline."""
        lines = np.insert(self.data, self.ends, ord('\n'))
        return hashlib.sha256(lines.tobytes()).hexdigest()

    def __getitem__(self, index: Any) -> Any:
        start = self.ends[index - 1] if index else 0
        data = self.data[start : self.ends[index]].tobytes()
        return data.decode('utf-8', 'surrogatepass')

    def take(self, indices: np.ndarray) -> 'PackedStrings':
        """The strings at ``indices``, packed anew."""
        starts = np.concatenate([[0], self.ends[:-1]])[indices]
        lengths = self.ends[indices] - starts
        ends = lengths.cumsum()
        # For each byte of the result, where it comes from.
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(
            ends - lengths, lengths
        )
        return PackedStrings(self.data[np.repeat(starts, lengths) + within], ends)


@dataclass
class LabelTable(Sequence):
    """Labels: one (image, expression, target boxes) each, as columns.

    ``table[i]`` is the i-th label as a dict with ``image`` (file name),
    ``height`` and ``width`` (or None), ``bbox`` (float32 xyxy, pixels of the
    original image), ``text``, ``sample_id``, ``split``, ``source``. A label has one
    target box, unless ``offsets`` says how many: then ``bboxes``, a list of boxes, is
    in the place of ``bbox``.

    Args:
        images (PackedStrings): The file names of the M images.
        sizes (np.ndarray): int32 (M, 2): height and width, -1 where unknown.
        image_index (np.ndarray): int32 (N, ), the image of each label.
        boxes (np.ndarray): float32 (B, 4), xyxy in pixels; B is N without ``offsets``.
        texts (PackedStrings): The N expressions.
        sample_ids (PackedStrings): N unique names.
        splits (np.ndarray): int16 (N, ), an index into ``split_names``.
        sources (np.ndarray): int16 (N, ), an index into ``source_names``.
        split_names (tuple[str, ...]): E.g. ('train', 'val').
        source_names (tuple[str, ...]): E.g. ('human', ).
        rows (np.ndarray, optional): int64 (N, ), the place of each label among all
            that were read; it stays when others are dropped. Defaults to None: in
            order, nothing dropped.
        notes (tuple[str, ...]): What the reader left out, as sentences for the log.
            Defaults to none.
        offsets (np.ndarray, optional): int64 (N + 1, ): the boxes of label i are
            ``boxes[offsets[i]:offsets[i + 1]]``. Defaults to None: one for each label.
    """

    images: PackedStrings
    sizes: np.ndarray
    image_index: np.ndarray
    boxes: np.ndarray
    texts: PackedStrings
    sample_ids: PackedStrings
    splits: np.ndarray
    sources: np.ndarray
    split_names: tuple[str, ...]
    source_names: tuple[str, ...]
    rows: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    offsets: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.image_index)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        if not -len(self) <= index < len(self):
            raise IndexError(f'label {index} of {len(self)}')
        index %= len(self)
        image = self.image_index[index]
        height, width = (int(side) if side > 0 else None for side in self.sizes[image])
        targets = self.targets(index).tolist()
        return dict(
            image=self.images[image],
            img_id=int(image),
            height=height,
            width=width,
            **(dict(bbox=targets[0]) if self.offsets is None else dict(bboxes=targets)),
            text=self.texts[index],
            sample_id=self.sample_ids[index],
            split=self.split_names[self.splits[index]],
            source=self.source_names[self.sources[index]],
        )

    def targets(self, index: int) -> np.ndarray:
        """The target boxes (T, 4) of a label, xyxy in pixels."""
        if self.offsets is None:
            return self.boxes[index : index + 1]
        return self.boxes[self.offsets[index] : self.offsets[index + 1]]

    def target_counts(self) -> np.ndarray:
        """How many target boxes each label has, of shape (N, )."""
        if self.offsets is None:
            return np.ones(len(self), np.int64)
        return np.diff(self.offsets)

    def box_owners(self) -> np.ndarray:
        """The label that each of ``boxes`` belongs to, of shape (B, )."""
        return np.repeat(np.arange(len(self)), self.target_counts())

    def take(self, indices: np.ndarray) -> 'LabelTable':
        """The labels at ``indices``; the images stay."""
        indices = np.asarray(indices, dtype=np.int64)
        places, offsets = indices, None
        if self.offsets is not None:
            counts = self.target_counts()[indices]
            offsets = np.concatenate([[0], counts.cumsum()])
            within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
            places = np.repeat(self.offsets[indices], counts) + within
        return LabelTable(
            self.images,
            self.sizes,
            self.image_index[indices],
            self.boxes[places],
            self.texts.take(indices),
            self.sample_ids.take(indices),
            self.splits[indices],
            self.sources[indices],
            self.split_names,
            self.source_names,
            indices if self.rows is None else self.rows[indices],
            self.notes,
            offsets,
        )


def concatenate(tables: Sequence[LabelTable]) -> LabelTable:
    """One table of several; images of the same name become one.

    Args:
        tables (Sequence[LabelTable]): At least one.

    Returns:
        LabelTable: The labels in order, their rows numbered anew.
    """
    if len(tables) == 1:
        return replace(tables[0], rows=None)
    images: dict[str, int] = {}
    sizes: list[np.ndarray] = []
    index, splits, sources = [], [], []
    split_names: dict[str, int] = {}
    source_names: dict[str, int] = {}
    for table in tables:
        renumbered = np.empty(len(table.images), np.int32)
        for old, name in enumerate(table.images):
            if name not in images:
                sizes.append(table.sizes[old])
            renumbered[old] = images.setdefault(name, len(images))
        index.append(renumbered[table.image_index])
        splits.append(_recode(table.splits, table.split_names, split_names))
        sources.append(_recode(table.sources, table.source_names, source_names))
    return LabelTable(
        PackedStrings.pack(images),
        np.array(sizes, np.int32).reshape(-1, 2),
        np.concatenate(index),
        np.concatenate([table.boxes for table in tables]),
        _join([table.texts for table in tables]),
        _join([table.sample_ids for table in tables]),
        np.concatenate(splits),
        np.concatenate(sources),
        tuple(split_names),
        tuple(source_names),
        notes=tuple(note for table in tables for note in table.notes),
        offsets=_join_offsets(tables),
    )


def _join_offsets(tables: Sequence[LabelTable]) -> np.ndarray | None:
    if all(table.offsets is None for table in tables):
        return None
    counts = np.concatenate([table.target_counts() for table in tables])
    return np.concatenate([[0], counts.cumsum()])


def _recode(
    codes: np.ndarray, names: tuple[str, ...], known: dict[str, int]
) -> np.ndarray:
    mapped = [known.setdefault(name, len(known)) for name in names]
    return np.array(mapped, np.int16)[codes] if names else codes


def _join(parts: Sequence[PackedStrings]) -> PackedStrings:
    offsets = np.cumsum([0] + [len(part.data) for part in parts[:-1]])
    return PackedStrings(
        np.concatenate([part.data for part in parts]),
        np.concatenate(
            [part.ends + offset for part, offset in zip(parts, offsets, strict=True)]
        ),
    )


def box_faults(
    boxes: np.ndarray, sizes: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """Which boxes cannot be right, and why.

    A box that passes the border is valid, as real files have many that do by a
    fraction of a pixel; one wholly outside of an image of known size is not.

    Args:
        boxes (np.ndarray): (N, 4), xyxy in pixels of the original image.
        sizes (np.ndarray): (N, 2), height and width of each box's image, -1 where
            unknown.

    Yields:
        tuple[str, np.ndarray]: A reason, and a bool mask (N, ) of the boxes it holds
        for. Of a box, one reason holds at most.
    """
    finite = np.isfinite(boxes).all(1)
    with np.errstate(invalid='ignore'):
        positive = (boxes[:, 2:] > boxes[:, :2]).all(1)
        outside = (boxes[:, 2:] <= 0).any(1) | (
            (sizes > 0) & (boxes[:, 1::-1] >= sizes)
        ).any(1)
    yield 'not finite', ~finite
    yield 'width or height not positive', finite & ~positive
    yield 'outside of the image', finite & positive & outside


def invalid_boxes(table: LabelTable) -> Iterator[tuple[str, np.ndarray]]:
    """Which labels have a box that cannot be right, and why; see :func:`box_faults`.

    Args:
        table (LabelTable): The labels.

    Yields:
        tuple[str, np.ndarray]: A reason, and the indices of the labels it holds
        for. A label comes up once.
    """
    owners = table.box_owners()
    named = np.zeros(len(table), bool)
    for reason, mask in box_faults(table.boxes, table.sizes[table.image_index[owners]]):
        indices = np.unique(owners[mask])
        yield reason, indices[~named[indices]]
        named[indices] = True
