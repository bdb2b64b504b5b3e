"""Readers: an annotation file in, a table of labels out.

Every reader is ``read(ann_file, split_file=None, splits=None, source=...,
int_boxes=False, box_format=None) -> LabelTable``; it imports nothing of a training
framework, runs nothing that a file contains, and names file and entry in its errors.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from ..box_checks import BOX_FORMATS, check_fit
from ..label_table import LabelTable
from .mdetr import read_mdetr
from .odvg import odvg_line, read_odvg, write_odvg
from .refer import read_refer
from .transvg import read_transvg
from .vlm import read_vlm

__all__ = ['FORMATS', 'guess_format', 'odvg_line', 'read_annotations', 'write_odvg']

FORMATS: dict[str, Callable[..., LabelTable]] = {
    'refer': read_refer,
    'transvg': read_transvg,
    'mdetr': read_mdetr,
    'odvg': read_odvg,
    'vlm': read_vlm,
}


def guess_format(ann_file: Path, split_file: Path | None) -> str:
    """Tell the format of an annotation file.

    Args:
        ann_file (Path): The annotation file.
        split_file (Path, optional): The file of refs; only REFER has one.

    Returns:
        str: A key of ``FORMATS``.

    Raises:
        ValueError: It is none of them.
    """
    if split_file is not None:
        return 'refer'
    if ann_file.suffix in ('.pth', '.pt'):
        return 'transvg'
    if ann_file.suffix in ('.jsonl', '.odvg'):
        return 'odvg'
    if ann_file.suffix == '.json':
        with ann_file.open(encoding='utf-8-sig', errors='replace') as file:
            head = file.read(4096).lstrip()
        if head.startswith('['):
            return 'vlm'
        first_line = head.split('\n', 1)[0]
        if '"grounding"' in first_line or '"filename"' in first_line:
            return 'odvg'
        if ann_file.name == 'instances.json':
            raise ValueError(
                f'{ann_file} holds the boxes of a REFER data set; the expressions are '
                'in its refs file: give `split_file` too, e.g. '
                '"refcoco/refs(unc).p".'
            )
        return 'mdetr'
    raise ValueError(
        f'{ann_file}: cannot tell the format by the name. Expected instances.json with '
        'a `split_file` (REFER), .pth (TransVG, CLIP-VG), .jsonl (ODVG) or .json '
        f'(MDETR, VLM style); or say it: ann_format in {sorted(FORMATS)}.'
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
) -> LabelTable:
    """Read labels in any of the known formats.

    Args:
        ann_file (str or Path): The annotation file.
        split_file (str or Path, optional): REFER's ``refs(<split_by>).p``.
        splits (Sequence[str], optional): Splits to keep. Defaults to None: all.
        ann_format (str, optional): A key of ``FORMATS``. Defaults to None: told
            by the files.
        source (str, optional): Who made the labels, where the file does not
            say. Defaults to None: 'human'.
        int_boxes (bool): Whether boxes lose their fraction in the file's own
            format, as in the release. Defaults to False.
        box_format (str, optional): 'xywh' or 'xyxy', where the file's boxes are not
            what its format has. Defaults to None: as the format says (docs/data.md).
        check_boxes (bool): Whether boxes that pass the borders of images of known size,
            as boxes of another format do, are an error. Defaults to True.

    Returns:
        LabelTable: The labels in the file's order; ``notes`` says which expressions
        were left out, having no target or several.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged, an entry is wrong, a split is unknown, or the
            boxes look like another format or unit.
    """
    ann_file = Path(ann_file)
    split_file = None if split_file is None else Path(split_file)
    for path in (ann_file, split_file):
        if path is not None and not path.is_file():
            beside = sorted(p.name for p in path.parent.glob('*'))[:10]
            raise FileNotFoundError(
                f'{path}: no such annotation file. In {path.parent}: '
                f'{beside or "nothing (no such folder)"}. Set `data_root`, `ann_file` '
                'or `split_file` (docs/data.md has the layout).'
            )
    name = ann_format or guess_format(ann_file, split_file)
    if name not in FORMATS:
        raise ValueError(f'ann_format={name!r}; expected one of {sorted(FORMATS)}.')
    if box_format not in (None, *BOX_FORMATS):
        raise ValueError(f'box_format={box_format!r}; expected one of {BOX_FORMATS}.')
    table = FORMATS[name](
        ann_file,
        split_file=split_file,
        splits=splits,
        source=source,
        int_boxes=int_boxes,
        box_format=box_format,
    )
    if check_boxes:
        check_fit(table, str(ann_file))
    return table
