"""From labels one by one, as readers meet them, to columns."""

from array import array
from collections.abc import Callable, Sequence

import numpy as np

from ..utils.file_names import leads_out
from .box_checks import check_units
from .label_table import LabelTable, PackedStrings

__all__ = ['TableBuilder']

_LONGEST = 1000  # characters of a name
_EXAMPLES = 3  # of what is left out


class TableBuilder:
    """Collects labels one by one and makes the columns of them.

    Args:
        describe (Callable): From the position of a label to words for an error,
            e.g. ``lambda i: f'{path}, entry {i}'``.
    """

    def __init__(self, describe: Callable[[int], str]) -> None:
        self._describe = describe
        self._images: dict[str, int] = {}
        self._sizes: list[tuple[int, int]] = []
        # Numbers and bytes, not an object for each label: there may be millions.
        self._image_index = array('i')
        self._boxes = array('d')
        self._texts, self._ids = _Strings(), _Strings()
        self._splits, self._sources = _Codes(), _Codes()
        self._left_out: dict[str, list[str]] = {}

    def leave_out(self, targets: int, where: str) -> None:
        """Count an expression that has not one target, but none or several.

        Args:
            targets (int): How many it has.
            where (str): File and entry.
        """
        kind = 'several targets' if targets else 'no target'
        self._left_out.setdefault(kind, []).append(where)

    def _notes(self) -> tuple[str, ...]:
        total = len(self._image_index) + sum(map(len, self._left_out.values()))
        return tuple(
            f'{len(places):,} of {total:,} expressions left out, {kind} (an expression '
            f'has one here): {"; ".join(places[:_EXAMPLES])}'
            f'{"; ..." if len(places) > _EXAMPLES else ""}.'
            for kind, places in self._left_out.items()
        )

    def add(
        self,
        image: str,
        box: Sequence[float],
        text: str,
        sample_id: str,
        split: str,
        source: str,
        size: tuple[int, int] | None = None,
    ) -> None:
        """Add a label; ``box`` has 4 numbers, ``size`` is (height, width).

        Raises:
            ValueError: The expression is no string, the image has no name, or the box
                is not four numbers.
        """
        where = len(self._image_index)
        if not isinstance(text, str):
            raise ValueError(
                f'{self._describe(where)}: the expression must be a string, found '
                f'{type(text).__name__} {text!r}.'
            )
        if not isinstance(image, str) or not image:
            raise ValueError(
                f"{self._describe(where)}: the image's file name must be a string, "
                f'found {image!r}.'
            )
        index = self._images.get(image)
        if index is None:
            if leads_out(image):
                raise ValueError(
                    f"{self._describe(where)}: the image's file name {image[:200]!r} "
                    'is absolute or leads out of the folder of images: data_root and '
                    'data_prefix.img would not be used. Write names from that folder.'
                )
            index = self._images[image] = len(self._sizes)
            self._sizes.append(size or (-1, -1))
        for name in (sample_id, source, split):
            if not isinstance(name, str) or len(name) > _LONGEST:
                raise ValueError(
                    f'{self._describe(where)}: sample_id, source and split must be '
                    f'strings of up to {_LONGEST} characters, found '
                    f'{str(name)[:80]!r}.'
                )
        try:
            left, top, third, fourth = box
            self._boxes.extend((left, top, third, fourth))
        except (TypeError, ValueError):
            raise ValueError(
                f'{self._describe(where)}: a box must be 4 numbers, found {box!r}.'
            ) from None
        self._image_index.append(index)
        self._texts.append(text)
        self._ids.append(sample_id)
        self._splits.append(split)
        self._sources.append(source)

    def build(self, box_format: str, int_boxes: bool = False) -> LabelTable:
        """Make the table.

        Args:
            box_format (str): 'xywh' or 'xyxy', as the boxes were added.
            int_boxes (bool): Whether to drop the fraction of the numbers *in
                that format*, as the release does. Defaults to False.

        Raises:
            ValueError: The boxes look like fractions of the image, not pixels.
        """
        boxes = np.frombuffer(self._boxes, np.float64).reshape(-1, 4)
        check_units(boxes, self._describe)
        if int_boxes:
            boxes = np.trunc(boxes)
        if box_format == 'xywh':
            boxes = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        return LabelTable(
            PackedStrings.pack(self._images),
            np.array(self._sizes, np.int32).reshape(-1, 2),
            np.frombuffer(self._image_index, np.int32).copy(),
            boxes.astype(np.float32),
            self._texts.packed(),
            self._ids.packed(),
            self._splits.codes(),
            self._sources.codes(),
            tuple(self._splits.names),
            tuple(self._sources.names),
            notes=self._notes(),
        )


class _Strings:
    """Strings in one growing buffer."""

    def __init__(self) -> None:
        self._data, self._ends = bytearray(), array('q')

    def append(self, text: str) -> None:
        self._data += text.encode('utf-8', 'surrogatepass')
        self._ends.append(len(self._data))

    def packed(self) -> PackedStrings:
        """Of the same memory: nothing may be appended after."""
        return PackedStrings(
            np.frombuffer(self._data, np.uint8), np.frombuffer(self._ends, np.int64)
        )


class _Codes:
    """A few names, many times: a small number for each."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self._codes = array('h')

    def append(self, name: str) -> None:
        self._codes.append(self.names.setdefault(name, len(self.names)))

    def codes(self) -> np.ndarray:
        """Of shape (N, ), int16."""
        return np.frombuffer(self._codes, np.int16).copy()
