"""What a layout of annotation files is: how it is recognised, and its labels."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..box_formats import BoxKind
from ..table_builder import shown
from .common import entry_of, image_size, required, split_of, targets_of
from .documents import Document

__all__ = [
    'PIXEL_XYWH',
    'PIXEL_XYXY',
    'UNSETTLED',
    'Label',
    'Layout',
    'Options',
    'labels_of_row',
    'read_rows',
    'refuse',
    'value_at',
]

PIXEL_XYXY = (BoxKind('xyxy', 'pixel'),)
PIXEL_XYWH = (BoxKind('xywh', 'pixel'),)
# Nothing but the numbers says which.
UNSETTLED = (*PIXEL_XYXY, *PIXEL_XYWH)


class Label(NamedTuple):
    """One label as a file has it.

    Args:
        place (int): Of its row, for errors.
        image (str): File name of the image.
        boxes (Sequence): 0 to n target boxes of 4 numbers.
        text (str): The expression.
        sample_id (str): Its name.
        split (str): Defaults to '': what the file's name says.
        source (str): Defaults to '': 'human'.
        size (tuple, optional): Height and width of the image. Defaults to None.
        unit (str): Of ``boxes``. Defaults to '': that of the layout.
        image_set (str): The data set of the image, where a file holds several.
            Defaults to ''.
    """

    place: int
    image: str
    boxes: Sequence
    text: str
    sample_id: str
    split: str = ''
    source: str = ''
    size: tuple[int, int] | None = None
    unit: str = ''
    image_set: str = ''


@dataclass(frozen=True)
class Options:
    """What a user says about a file; the arguments of ``read_annotations``."""

    split_file: Path | None = None
    splits: Sequence[str] | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    instruction: str | None = None


@dataclass(frozen=True)
class Layout:
    """One layout of annotation files.

    Args:
        name (str): What ``ann_format`` calls it.
        title (str): What it is, and who has it.
        matches (Callable): Whether a document is one.
        labels (Callable): Yields the :class:`Label` of a document.
        boxes (tuple[BoxKind, ...] or Callable): Format and unit of the boxes; several
            where the numbers must tell; a function of the document where it tells.
        since (str): The version that reads it first. Defaults to '0.2'.
        pitfalls (str): One sentence for the documentation. Defaults to ''.
        describe (Callable, optional): From a document and a label's place to words for
            an error. Defaults to None: file and row.
        refusal (str): Why the layout is refused. Defaults to '': it is read.
        training_split (bool): Whether the data set has one. Defaults to True.
        unique_names (bool): Whether files hold ``sample_id``, which may come twice.
            Defaults to False.
        takes_fields (bool): Whether ``fields`` names something in it; in other files it
            names columns of rows. Defaults to False.
    """

    name: str
    title: str
    matches: Callable[[Document], bool]
    labels: Callable[[Document, Options], Iterator[Label]]
    boxes: tuple[BoxKind, ...] | Callable[[Document], tuple[BoxKind, ...]]
    since: str = '0.2'
    pitfalls: str = ''
    describe: Callable[[Document, Options], Callable[[int], str]] | None = None
    refusal: str = ''
    training_split: bool = True
    unique_names: bool = False
    takes_fields: bool = False


def value_at(row: Any, path: str, where: str) -> Any:
    """The value of a key, or of ``a.b`` in a dict within a dict."""
    if isinstance(row, dict) and path in row:
        return row[path]
    for key in path.split('.'):
        row = required(row, key, where)
    return row


def labels_of_row(
    number: int,
    row: dict,
    image: str,
    text: Any,
    boxes: Sequence,
    stem: str,
    **columns: Any,
) -> Iterator[Label]:
    """Labels of one image and its targets, one for each expression.

    Args:
        number (int): Of the row.
        row (dict): With height and width, if they are known.
        image (str): File name of the image.
        text (str or list[str]): The expression, or several for the same targets.
        boxes (Sequence): The targets.
        stem (str): Of the file, that names begin with.
        **columns: Of :class:`Label`.
    """
    several = isinstance(text, list | tuple)
    for index, expression in enumerate(text if several else [text]):
        name = f'{stem}_{number}_{index}' if several else f'{stem}_{number}'
        columns.setdefault('size', image_size(row))
        yield Label(number, image, boxes, expression, name, **columns)


def read_rows(
    image: str | Callable[[dict, str], Any],
    text: str | Callable[[dict, str], Any],
    box: str,
    image_set: str = '',
    texts_in: str = '',
) -> Callable[[Document, Options], Iterator[Label]]:
    """A reader of rows that are dicts with an image, an expression and boxes.

    Args:
        image (str or Callable): The key of the file name, or a function of a row and
            where it is.
        text (str or Callable): The same for the expression or expressions.
        box (str): The key of the box or boxes.
        image_set (str): The key of the data set's name. Defaults to '': none.
        texts_in (str): Where expressions are dicts, their key. Defaults to ''.
    """

    def get(row: dict, key: Any, where: str) -> Any:
        return key(row, where) if callable(key) else required(row, key, where)

    def read(document: Document, options: Options) -> Iterator[Label]:
        del options
        stem, split = document.path.stem, split_of(document.path.stem)
        for number, row, where in document.records():
            expressions = get(row, text, where)
            if texts_in:
                entry_of(expressions, list, f'{where}, {text}', 'a list')
                expressions = [required(e, texts_in, where) for e in expressions]
            yield from labels_of_row(
                number,
                row,
                get(row, image, where),
                expressions,
                targets_of(required(row, box, where)),
                stem,
                split=str(row.get('split') or split),
                image_set=str(row.get(image_set) or ''),
            )

    return read


def refuse(reason: str) -> Callable[[Document, Options], Iterator[Label]]:
    """A reader of a layout that holds no labels."""

    def read(document: Document, options: Options) -> Iterator[Label]:
        del options
        raise ValueError(
            f'{document.path}: {reason} (found {shown(document.head[:1])}).'
        )
        yield  # a generator, as all readers

    return read
