"""From labels one by one, as readers meet them, to columns."""

from collections.abc import Callable, Sequence

import numpy as np

from .label_table import LabelTable, PackedStrings

__all__ = ['TableBuilder']


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
        self._image_index: list[int] = []
        self._boxes: list[Sequence[float]] = []
        self._texts: list[str] = []
        self._ids: list[str] = []
        self._splits: list[str] = []
        self._sources: list[str] = []

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
            ValueError: The expression is no string or the image has no name.
        """
        where = len(self._texts)
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
            index = self._images[image] = len(self._sizes)
            self._sizes.append(size or (-1, -1))
        self._image_index.append(index)
        self._boxes.append(box)
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
            ValueError: A box is not four numbers.
        """
        boxes = self._box_array()
        if int_boxes:
            boxes = np.trunc(boxes)
        if box_format == 'xywh':
            boxes = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        split_names, splits = _codes(self._splits)
        source_names, sources = _codes(self._sources)
        return LabelTable(
            PackedStrings.pack(self._images),
            np.array(self._sizes, np.int32).reshape(-1, 2),
            np.array(self._image_index, np.int32),
            boxes.astype(np.float32),
            PackedStrings.pack(self._texts),
            PackedStrings.pack(self._ids),
            splits,
            sources,
            split_names,
            source_names,
        )

    def _box_array(self) -> np.ndarray:
        try:
            return np.array(self._boxes, np.float64).reshape(-1, 4)
        except (TypeError, ValueError):
            for where, box in enumerate(self._boxes):
                try:
                    if np.array(box, np.float64).shape == (4,):
                        continue
                except (TypeError, ValueError):
                    pass
                raise ValueError(
                    f'{self._describe(where)}: a box must be 4 numbers, found {box!r}.'
                ) from None
            raise


def _codes(names: list[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Distinct names in order of appearance, and each entry's index into them."""
    distinct = {name: code for code, name in enumerate(dict.fromkeys(names))}
    codes = np.fromiter((distinct[name] for name in names), np.int16, len(names))
    return tuple(distinct), codes
