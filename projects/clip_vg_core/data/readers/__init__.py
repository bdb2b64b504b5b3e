"""Readers: an annotation file in, a table of labels out.

A layout (:class:`.layout.Layout`) says how it is recognised by the content of a file,
what its labels are, and the format and unit of its boxes; ``LAYOUTS`` has all. Nothing
here imports a training framework or runs what a file contains; errors are
``ValueError`` or ``FileNotFoundError`` that name file and entry (``ImportError`` where
a parquet file needs pyarrow).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...utils.atomic import replacing
from ...utils.file_names import leads_out
from ..box_checks import check_fit
from ..box_formats import BOX_FORMATS, BoxKind, kind_of
from ..label_table import LabelTable
from ..table_builder import TARGETS, TableBuilder, shown
from .common import keep_splits
from .documents import Document, images_inside, open_document
from .layout import Layout, Options
from .odvg import odvg_line, write_odvg
from .rows import FIELDS, lacking_fields, parse_fields
from .tables import LAYOUTS, kinds_of, nearest_layout, without_ref_number

__all__ = [
    'FIELDS',
    'LAYOUTS',
    'Collected',
    'check_unique_names',
    'collect_labels',
    'extract_images',
    'layout_of',
    'odvg_line',
    'parse_fields',
    'read_annotations',
    'write_odvg',
]


_ROWS = 'Rows are dicts with an image, an expression and a box each.'


@dataclass(frozen=True)
class Collected:
    """Labels of a file whose boxes are not looked at yet.

    Args:
        layout (Layout): What the file is.
        kinds (list[BoxKind]): What its boxes may be; the numbers must leave one.
        resize (Mapping[str, int]): Arguments of ``smart_resize``.
        builder (TableBuilder): Holds the labels.
        describe (Callable): From a label's place to words for an error.
    """

    layout: Layout
    kinds: list[BoxKind]
    resize: Mapping[str, int]
    builder: TableBuilder
    describe: Callable[[int], str]


def layout_of(document: Document, split_file: Path | None = None) -> Layout:
    """The layout of a document, by its content.

    Args:
        document (Document): An annotation file.
        split_file (Path, optional): REFER's refs, or VOC's list of a split.

    Raises:
        ValueError: It is none of ``LAYOUTS``; the nearest is named.
    """
    if split_file is not None and document.kind != 'xml':
        return LAYOUTS['refer']
    for layout in LAYOUTS.values():
        if layout.matches(document):
            return layout
    keys = sorted(document.keys) or (
        sorted(map(str, document.value)) if isinstance(document.value, dict) else []
    )
    what = str(keys)[:500] if keys else type(document.value).__name__
    rows = lacking_fields(document) if document.keys else ''
    nearest = f'The nearest is {nearest_layout(document)}. '
    raise ValueError(
        f'{document.path}: this layout of annotations is not known; found {what}. '
        f'{nearest if document.kind != "csv" else ""}{rows or _ROWS} docs/data.md has '
        'all layouts.'
    )


def read_annotations(
    ann_file: str | Path,
    split_file: str | Path | None = None,
    splits: Sequence[str] | None = None,
    ann_format: str | None = None,
    source: str | None = None,
    int_boxes: bool = False,
    box_format: str | None = None,
    check_boxes: bool = True,
    *,
    box_unit: str | Mapping | None = None,
    fields: Mapping[str, Any] | None = None,
    instruction: str | None = None,
    targets: str = 'one',
    training: bool = False,
    read_sizes: Callable[[Sequence[str]], np.ndarray] | None = None,
    image_folders: Mapping[str, str] | None = None,
) -> LabelTable:
    """Read labels of any of the known layouts.

    Args:
        ann_file (str or Path): The annotation file, or a folder of VOC's XML files.
        split_file (str or Path, optional): REFER's ``refs(<split_by>).p``, or the list
            of a split of VOC files.
        splits (Sequence[str], optional): Splits to keep. Defaults to None: all.
        ann_format (str, optional): A key of ``LAYOUTS``. Defaults to None: told by
            what is in the file.
        source (str, optional): Who made the labels. Defaults to None: what the file
            says, else 'human'.
        int_boxes (bool): Whether boxes in pixels lose their fraction in the file's own
            format, as in the official code. Defaults to False.
        box_format (str, optional): 'xywh', 'xyxy' or 'cxcywh', where the file's boxes
            are not what its layout has. Defaults to None: as the layout says
            (docs/data.md).
        check_boxes (bool): Whether boxes that pass the borders of images of known size,
            as boxes of another format do, are an error. Defaults to True.
        box_unit (str or Mapping, optional): 'pixel', '1', '999', '1000', '1024',
            'square' (0 to 1 of the image padded to a square) or 'resized' (pixels of
            the image as Qwen2.5-VL resizes it; as ``dict(type='resized',
            max_pixels=...)`` with other limits). Defaults to None: as the layout says.
        fields (Mapping, optional): Columns of a file of rows, e.g. ``dict(image='file',
            text='caption', box='bbox')``; ``box`` may be four columns. Defaults to
            None: by the usual names.
        instruction (str, optional): The form of questions in chat files, with
            ``{expression}``. Defaults to None: the known forms.
        targets (str): 'one' leaves out expressions with no target or several, 'any'
            reads all. Defaults to 'one'.
        training (bool): Whether the labels are to be trained on: data sets without a
            training split are refused, unless ``splits`` says what is meant. Defaults
            to False.
        read_sizes (Callable, optional): From file names of M images to their sizes
            (M, 2), height and width, -1 where unknown; called where units or formats
            need sizes that the file does not say. Defaults to None: unknown.
        image_folders (Mapping[str, str], optional): For files with images of several
            data sets: the folder of each, which image names then begin with. Keys are
            names of data sets in the file (e.g. 'coco', 'referit', 'flickr' of HiVG's
            mixed lists), or sources. Defaults to None: one folder.

    Returns:
        LabelTable: The labels in the file's order; ``notes`` says which expressions
        were left out.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged or of an unknown layout, an entry is wrong, a
            split is unknown, or the boxes look like another format or unit.
    """
    found = collect_labels(
        ann_file,
        split_file,
        splits,
        ann_format,
        source,
        box_format,
        box_unit=box_unit,
        fields=fields,
        instruction=instruction,
        targets=targets,
        image_folders=image_folders,
    )
    ann_file, layout, builder = Path(ann_file), found.layout, found.builder
    table = builder.build(found.kinds, int_boxes, found.resize, read_sizes)
    check_unique_names(ann_file, table, found)
    if training and not layout.training_split and splits is None:
        raise ValueError(
            f'{ann_file} is of {layout.title}, which has no training split: labels of '
            f'{", ".join(table.split_names)} must not be trained on. Use it with '
            'test_mode=True, or name the split if this is meant.'
        )
    if len(table) or layout.name != 'transvg':
        table = keep_splits(table, splits, ann_file)
    if check_boxes:
        check_fit(table, str(ann_file))
    return table


def collect_labels(
    ann_file: str | Path,
    split_file: str | Path | None = None,
    splits: Sequence[str] | None = None,
    ann_format: str | None = None,
    source: str | None = None,
    box_format: str | None = None,
    *,
    box_unit: str | Mapping | None = None,
    fields: Mapping[str, Any] | None = None,
    instruction: str | None = None,
    targets: str = 'one',
    image_folders: Mapping[str, str] | None = None,
) -> Collected:
    """Read labels without a decision on what their boxes are.

    The arguments are those of :func:`read_annotations`.

    Returns:
        Collected: The labels of all splits.

    Raises:
        FileNotFoundError, ValueError: As :func:`read_annotations`, but for boxes.
    """
    ann_file = Path(ann_file)
    split_file = None if split_file is None else Path(split_file)
    _check_options(ann_file, split_file, ann_format, box_format, targets)
    unit, resize = kind_of(box_unit)
    options = Options(split_file, splits, fields or {}, instruction)
    try:
        document = open_document(ann_file)
        layout = _layout(document, ann_format, options)
        kinds = _kinds(layout, document, box_format, unit)
        describe = (
            document.where
            if layout.describe is None
            else layout.describe(document, options)
        )
        builder = TableBuilder(describe, targets)
        for label in layout.labels(document, options):
            made_by = source or label.source or 'human'
            image = label.image
            if image_folders is not None:
                image = _in_folder(label, made_by, image_folders, describe)
            builder.add_targets(
                image,
                label.boxes,
                label.text,
                label.sample_id,
                label.split or 'all',
                made_by,
                label.size,
                '' if unit else label.unit,
                label.place,
            )
    except RecursionError:
        raise ValueError(
            f'{ann_file}: values are nested too deep; expected annotations.'
        ) from None
    return Collected(layout, kinds, resize, builder, describe)


def _check_options(
    ann_file: Path,
    split_file: Path | None,
    ann_format: str | None,
    box_format: str | None,
    targets: str,
) -> None:
    for path in (ann_file, split_file):
        if path is not None and not path.is_file() and not path.is_dir():
            beside = sorted(p.name for p in path.parent.glob('*'))[:10]
            raise FileNotFoundError(
                f'{path}: no such annotation file. In {path.parent}: '
                f'{beside or "nothing (no such folder)"}. Set `data_root`, `ann_file` '
                'or `split_file` (docs/data.md has the layout).'
            )
    if ann_format is not None and ann_format not in LAYOUTS:
        raise ValueError(f'ann_format={ann_format!r}; expected one of {[*LAYOUTS]}.')
    if box_format not in (None, *BOX_FORMATS):
        raise ValueError(f'box_format={box_format!r}; expected one of {BOX_FORMATS}.')
    if targets not in TARGETS:
        raise ValueError(f'targets={targets!r}; expected one of {TARGETS}.')


def _layout(document: Document, ann_format: str | None, options: Options) -> Layout:
    if ann_format is not None:
        return LAYOUTS[ann_format]
    # Whoever names columns means them, unless the layout has some to name.
    if options.fields:
        layouts = (layout for layout in LAYOUTS.values() if layout.takes_fields)
        return next((x for x in layouts if x.matches(document)), LAYOUTS['rows'])
    return layout_of(document, options.split_file)


def _kinds(
    layout: Layout, document: Document, box_format: str | None, unit: str | None
) -> list[BoxKind]:
    """Kinds of boxes that remain after what the user says."""
    if box_format and unit:
        return [BoxKind(box_format, unit)]
    if box_format and callable(layout.boxes) and layout.name == 'transvg':
        return [BoxKind(box_format, 'pixel')]  # names that disagree do not matter
    kinds = kinds_of(layout, document)
    return list(
        dict.fromkeys(
            BoxKind(box_format or kind.format, unit or kind.unit) for kind in kinds
        )
    )


def _in_folder(
    label: Any, source: str, folders: Mapping[str, str], describe: Callable
) -> Any:
    """The name of a label's image, from the folder of its data set."""
    for name in (label.image_set, source):
        if name in folders and isinstance(label.image, str):
            return f'{str(folders[name]).rstrip("/")}/{label.image}'
    if not isinstance(label.image, str):
        return label.image
    raise ValueError(
        f'{describe(label.place)}: no folder of images for its data set '
        f'{label.image_set!r} or source {source!r}; data_prefix.img has '
        f'{sorted(folders)}.'
    )


def extract_images(path: str | Path, folder: str | Path) -> int:
    """Write the images inside a parquet file into a folder, under their labels' names.

    A loader works on files, as reading a single row of parquet decodes hundreds.

    Args:
        path (str or Path): The parquet file, with an image in each row.
        folder (str or Path): Output folder; what is there already stays.

    Returns:
        int: How many images were written.

    Raises:
        ValueError: There is no column of images, or a name leads out of the folder.
    """
    path, folder = Path(path), Path(folder)
    written = 0
    for number, row, content in images_inside(path):
        name = without_ref_number(row.get('file_name'))
        if name is None:
            image = row.get('image')
            name = image.get('path') if isinstance(image, dict) else None
            name = name or f'{path.stem}_{number}.jpg'
        if not isinstance(name, str) or leads_out(name):
            raise ValueError(
                f'{path}, row {number}: the image name {shown(name)} is absolute or '
                'leads out of the folder of images.'
            )
        target = folder / name
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as partial:
                partial.write_bytes(content)
            written += 1
    return written


def check_unique_names(path: Path, table: LabelTable, found: Collected) -> None:
    """Refuse two labels of one name in a layout that names its labels.

    Args:
        path (Path): The annotation file.
        table (LabelTable): All its labels.
        found (Collected): What they were made of.

    Raises:
        ValueError: A ``sample_id`` comes twice.
    """
    if not found.layout.unique_names:
        return
    builder, describe = found.builder, found.describe
    names = table.sample_ids
    hashes = np.fromiter(map(hash, names), np.int64, len(names))
    order = np.argsort(hashes, kind='stable')
    same = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
    for first, second in zip(order[same], order[same + 1], strict=True):
        name = names[second]
        if names[first] == name:
            earlier = describe(builder.places[first]).removeprefix(f'{path}, ')
            raise ValueError(
                f'{describe(builder.places[second])}: the sample_id {name!r} was used '
                f'in {earlier} already; it must be unique.'
            )
