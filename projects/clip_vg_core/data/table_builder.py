"""From labels one by one, as readers meet them, to columns."""

import reprlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..utils.file_names import leads_out
from .box_checks import check_units
from .box_formats import RESIZE, BoxKind, fitting_kinds, to_pixels, to_xyxy
from .label_table import LabelTable, PackedStrings

__all__ = ['TARGETS', 'TableBuilder', 'shown']

TARGETS = ('one', 'any')

_LONGEST = 1000  # characters of a name
_EXAMPLES = 3  # of what is left out
_EVIDENCE = 2000  # images whose boxes tell a format that nothing says


class TableBuilder:
    """Collects labels one by one and makes the columns of them.

    Args:
        describe (Callable): From the place of a label to words for an error,
            e.g. ``lambda i: f'{path}, entry {i}'``. A label's place is what was given
            with it, else its position.
        targets (str): 'one' leaves out labels with no target box or several, and counts
            them in the table's notes; 'any' takes them. Defaults to 'one'.
    """

    def __init__(self, describe: Callable[[int], str], targets: str = 'one') -> None:
        if targets not in TARGETS:
            raise ValueError(f'targets={targets!r}; expected one of {TARGETS}.')
        self._describe = describe
        self._targets = targets
        self._images: dict[str, int] = {}
        self._sizes: list[tuple[int, int]] = []
        # Numbers and bytes, not an object for each label: there may be millions.
        self._image_index = array('i')
        self._boxes, self._counts, self._places = array('d'), array('i'), array('q')
        self._texts, self._ids = _Strings(), _Strings()
        self._splits, self._sources, self._units = _Codes(), _Codes(), _Codes()
        self._left_out: dict[str, list] = {}
        self.kind: BoxKind | None = None  # of the boxes, once they are built

    def leave_out(self, targets: int, where: str) -> None:
        """Count an expression that has not one target, but none or several.

        Args:
            targets (int): How many it has.
            where (str): File and entry.
        """
        kind = 'several targets' if targets else 'no target'
        count_and_examples = self._left_out.setdefault(kind, [0])
        count_and_examples[0] += 1
        if len(count_and_examples) <= _EXAMPLES:
            count_and_examples.append(where)

    def _notes(self) -> tuple[str, ...]:
        total = len(self._image_index) + sum(c for c, *_ in self._left_out.values())
        return tuple(
            f'{count:,} of {total:,} expressions left out, {kind} (an expression '
            f'has one here): {"; ".join(places)}'
            f'{"; ..." if count > len(places) else ""}.'
            for kind, (count, *places) in self._left_out.items()
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
        """Add a label of one target; ``box`` has 4 numbers, ``size`` (height, width).

        Raises:
            ValueError: As :meth:`add_targets`.
        """
        self.add_targets(image, (box,), text, sample_id, split, source, size)

    def add_targets(
        self,
        image: str,
        boxes: Sequence[Sequence[float]],
        text: str,
        sample_id: str,
        split: str,
        source: str,
        size: tuple[int, int] | None = None,
        unit: str = '',
        place: int | None = None,
    ) -> None:
        """Add a label of any number of targets.

        Args:
            image (str): File name of the image, from the folder of images.
            boxes (Sequence): Target boxes, 4 numbers each.
            text (str): The expression.
            sample_id (str): A name that no other label has.
            split (str): E.g. 'train'.
            source (str): E.g. 'human'.
            size (tuple[int, int], optional): Height and width of the image. Defaults
                to None: unknown.
            unit (str): Of ``boxes``. Defaults to '': what ``build`` is told.
            place (int, optional): What ``describe`` is called with. Defaults to None:
                the label's position.

        Raises:
            ValueError: The expression is no string, the image has no name, or a box is
                not four numbers.
        """
        if place is None:
            place = len(self._image_index)
        if len(boxes) != 1 and self._targets == 'one':
            self.leave_out(len(boxes), self._describe(place))
            return
        self._check_names(place, image, text, (sample_id, source, split))
        index = self._index_of(image, size, place)
        self._append_boxes(boxes, place)
        self._image_index.append(index)
        self._counts.append(len(boxes))
        self._places.append(place)
        self._texts.append(text)
        self._ids.append(sample_id)
        self._splits.append(split)
        self._sources.append(source)
        self._units.append(unit)

    def _check_names(
        self, place: int, image: object, text: object, names: Sequence[object]
    ) -> None:
        if not isinstance(text, str):
            raise ValueError(
                f'{self._describe(place)}: the expression must be a string, found '
                f'{type(text).__name__} {shown(text)}.'
            )
        if not isinstance(image, str) or not image:
            raise ValueError(
                f"{self._describe(place)}: the image's file name must be a string, "
                f'found {shown(image)}.'
            )
        for name in names:
            if not isinstance(name, str) or len(name) > _LONGEST:
                raise ValueError(
                    f'{self._describe(place)}: sample_id, source and split must be '
                    f'strings of up to {_LONGEST} characters, found '
                    f'{str(name)[:80]!r}.'
                )
        if max(len(self._splits.names), len(self._sources.names)) >= _Codes.MOST:
            raise ValueError(
                f'{self._describe(place)}: over {_Codes.MOST:,} different names of '
                'splits or sources; expected a few, such as train and val.'
            )

    def _index_of(self, image: str, size: tuple[int, int] | None, place: int) -> int:
        """The number of an image, new or known."""
        index = self._images.get(image)
        if index is None:
            if len(image) > _LONGEST or leads_out(image):
                raise ValueError(
                    f"{self._describe(place)}: the image's file name {image[:200]!r} "
                    'is absolute or leads out of the folder of images: data_root and '
                    'data_prefix.img would not be used. Write names from that folder.'
                )
            index = self._images[image] = len(self._sizes)
            self._sizes.append(size or (-1, -1))
        elif size and self._sizes[index] == (-1, -1):
            self._sizes[index] = size
        return index

    def _append_boxes(self, boxes: Sequence[Sequence[float]], place: int) -> None:
        for box in boxes:
            try:
                left, top, third, fourth = box
                self._boxes.extend((left, top, third, fourth))
            except (TypeError, ValueError, OverflowError):
                raise ValueError(
                    f'{self._describe(place)}: a box must be 4 numbers, found '
                    f'{shown(box)}.'
                ) from None

    def build(
        self,
        box_format: str | Sequence[BoxKind],
        int_boxes: bool = False,
        resize: Mapping[str, int] | None = None,
        read_sizes: Callable[[Sequence[str]], np.ndarray] | None = None,
    ) -> LabelTable:
        """Make the table.

        Args:
            box_format (str or Sequence[BoxKind]): 'xywh', 'xyxy' or 'cxcywh', in
                pixels, as the boxes were added; or the kinds that they may be of, of
                which the numbers must leave one.
            int_boxes (bool): Whether to drop the fraction of the numbers *in
                that format*, as the official code does. Defaults to False.
            resize (Mapping, optional): Arguments of ``smart_resize``. Defaults to
                None: those of Qwen's own code.
            read_sizes (Callable, optional): From the file names of M images to their
                sizes (M, 2), height and width, -1 where unknown; called where the file
                does not say what is needed. Defaults to None: unknown.

        Raises:
            ValueError: The boxes look like fractions of the image, not pixels; they
                can be of several kinds or of none; or an image's size is needed and
                not known.
        """
        written = self.as_written()
        boxes, images, sizes = written.boxes, written.image_index, written.sizes
        owners = written.box_owners()
        kinds = box_format
        if isinstance(kinds, str):
            kinds = [BoxKind(kinds, 'pixel')]
        resize = resize or RESIZE

        def name_box(box: int) -> str:
            return self._describe(self._places[owners[box]])

        def complete(used: np.ndarray) -> None:
            """Look up the sizes of images, where they are needed and unknown."""
            unknown = used[(sizes[used] <= 0).any(1)]
            if len(unknown) and read_sizes is not None:
                names = list(self._images)
                sizes[unknown] = read_sizes([names[index] for index in unknown])

        if len(kinds) > 1 and len(boxes):
            used = np.unique(images[owners])
            few = used[
                np.linspace(0, len(used) - 1, min(_EVIDENCE, len(used))).astype(int)
            ]
            complete(few)
            shown_boxes = np.isin(images[owners], few)
            kinds = self._settle(
                boxes[shown_boxes],
                sizes[images[owners[shown_boxes]]],
                kinds,
                resize,
                name_box,
            )
        kind = kinds[0]
        units = np.array([unit or kind.unit for unit in self._units.names] or ['pixel'])
        of_boxes = units[self._units.codes()[owners]] if len(boxes) else units[:0]
        self.kind = BoxKind(
            kind.format, ' or '.join(sorted({*of_boxes.tolist()})) or kind.unit
        )
        pixels = of_boxes == 'pixel'
        check_units(boxes[pixels], lambda i: name_box(int(np.flatnonzero(pixels)[i])))
        if int_boxes:
            boxes = np.where(pixels[:, None], np.trunc(boxes), boxes)
        boxes = to_xyxy(boxes, kind.format)
        if not pixels.all():
            complete(np.unique(images[owners[~pixels]]))
            boxes = self._in_pixels(
                boxes, sizes[images[owners]], of_boxes, resize, name_box
            )
        with np.errstate(over='ignore'):  # of numbers that are invalid anyway
            boxes = boxes.astype(np.float32)
        return replace(written, boxes=boxes)

    def as_written(self) -> LabelTable:
        """The labels with their boxes as the file has them, float64 and not checked.

        No label may be added after.
        """
        counts = np.frombuffer(self._counts, np.int32)
        single = self._targets == 'one'
        return LabelTable(
            PackedStrings.pack(self._images),
            np.array(self._sizes, np.int32).reshape(-1, 2),
            np.frombuffer(self._image_index, np.int32).copy(),
            np.frombuffer(self._boxes, np.float64).reshape(-1, 4),
            self._texts.packed(),
            self._ids.packed(),
            self._splits.codes(),
            self._sources.codes(),
            tuple(self._splits.names),
            tuple(self._sources.names),
            notes=self._notes(),
            offsets=None if single else np.concatenate([[0], counts.cumsum()]),
        )

    @property
    def places(self) -> array:
        """What each label was added with as its place."""
        return self._places

    def _settle(
        self,
        boxes: np.ndarray,
        sizes: np.ndarray,
        kinds: Sequence[BoxKind],
        resize: Mapping[str, int],
        name_box: Callable[[int], str],
    ) -> list[BoxKind]:
        """The one kind that the boxes can be of."""
        possible = fitting_kinds(boxes, sizes, kinds, resize)
        if len(possible) == 1:
            return possible
        names = ' or '.join(
            f'box_format={kind.format!r}, box_unit={kind.unit!r}'
            for kind in possible or kinds
        )
        what = (
            'several kinds of boxes fit the numbers'
            if possible
            else 'none of the known kinds of boxes fits the numbers'
        )
        raise ValueError(
            f'{name_box(0)}: the box is {boxes[0].tolist()}, and {what} of the '
            f'{len(boxes):,} that were looked at: say {names} (--box-format, '
            '--box-unit).'
        )

    def _in_pixels(
        self,
        boxes: np.ndarray,
        sizes: np.ndarray,
        units: np.ndarray,
        resize: Mapping[str, int],
        name_box: Callable[[int], str],
    ) -> np.ndarray:
        unknown = (units != 'pixel') & (sizes <= 0).any(1)
        if unknown.any():
            first = int(np.flatnonzero(unknown)[0])
            names = list(self._images)
            raise ValueError(
                f'{name_box(first)}: the size of '
                f'{names[self._image_index[self._owner(first)]]!r} is needed, as boxes '
                f'are in the unit {str(units[first])!r}, and neither the file says it '
                'nor was the image found: give the folder of the images '
                '(data_prefix.img, --images).'
            )
        boxes = boxes.copy()
        for unit in set(units.tolist()):
            chosen = units == unit
            boxes[chosen] = to_pixels(boxes[chosen], sizes[chosen], unit, resize)
        return boxes

    def _owner(self, box: int) -> int:
        counts = np.frombuffer(self._counts, np.int32)
        return int(np.searchsorted(counts.cumsum(), box, 'right'))


def shown(value: object) -> str:
    """A short ``repr`` for an error, also of what is large or deep."""
    return reprlib.repr(value)[:200]


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

    MOST = 32_768  # what an int16 counts

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self._codes = array('h')

    def append(self, name: str) -> None:
        self._codes.append(self.names.setdefault(name, len(self.names)))

    def codes(self) -> np.ndarray:
        """Of shape (N, ), int16."""
        return np.frombuffer(self._codes, np.int16).copy()
