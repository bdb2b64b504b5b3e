"""What an annotation file holds, and what is wrong with it, in numbers."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from .box_checks import MANY_INVALID, check_fit
from .box_formats import BoxKind, contradicts
from .image_checks import describe_missing, describe_turned
from .image_roots import ImageRoots
from .label_checks import (
    Problem,
    find_duplicates,
    look_at_expressions,
    name_labels,
    part_keys,
)
from .label_table import LabelTable, invalid_boxes
from .leaks import describe_leaks, leaking_labels
from .published_sets import Match, match_published
from .readers import Collected, check_unique_names, collect_labels

__all__ = [
    'Inspection',
    'find_leaks',
    'find_parts',
    'inspect_file',
    'is_held_out',
]

# How a box could be read; other units than these have no numbers of their own.
_READINGS = tuple(
    map(BoxKind._make, product(('xywh', 'xyxy'), ('pixel', '1', '999', '1000')))
)
_SPLITS = ('train', 'trainval', 'val', 'testA', 'testB', 'test')
_NAMED = 3  # of the files that are no images
_HEADS = 5000  # images whose heads are read
_REFS = re.compile(r'g?refs?\(.+\)\.(?:p|pkl|pickle|json)')


@dataclass
class Inspection:
    """What was found in one annotation file.

    Args:
        file (str): The annotation file.
        split_file (str, optional): REFER's refs, or VOC's list of a split.
        options (dict): Further arguments of ``read_annotations``.
        layout (str): A key of ``LAYOUTS``; '' where the file cannot be read.
        title (str): What the layout is. Defaults to ''.
        training_split (bool): Whether the data set has one. Defaults to True.
        table (LabelTable, optional): The labels; boxes are xyxy in pixels where
            ``boxes`` has a format, else as the file has them.
        total (dict[str, int]): Numbers of ``labels``, ``images``, ``expressions``
            (different ones), ``objects`` (different targets), and of labels with
            ``none``, ``one`` or ``several`` targets.
        splits (dict[str, dict[str, int]]): The same of each split.
        sources (dict[str, int]): Labels of each source.
        lengths (dict): Words of expressions: ``mean``, ``p50``, ``p95``, ``p99``,
            ``longest``; and ``cut``, expressions of more than CLIP's 77 tokens.
        boxes (dict): ``format``, ``unit``, ``why``; ``readings``: how many boxes
            would pass the border or be empty, read so; ``total``; ``sized``: boxes of
            images of known size; ``largest``: the largest number.
        images (dict): Where a folder was given: ``missing``, ``renamed``, ``turned``,
            ``looked``, ``other_size``, and ``upright``, whether labels are of images
            as their EXIF entry turns them.
        manifest (dict, optional): What is recorded beside pseudo-labels.
        published (Match, optional): The published set that it is.
        problems (list[Problem]): What is wrong.
    """

    file: str
    split_file: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    layout: str = ''
    title: str = ''
    table: LabelTable | None = None
    training_split: bool = True
    total: dict[str, int] = field(default_factory=dict)
    splits: dict[str, dict[str, int]] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)
    lengths: dict[str, Any] = field(default_factory=dict)
    boxes: dict[str, Any] = field(default_factory=dict)
    images: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] | None = None
    published: Match | None = None
    problems: list[Problem] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The files, for a reader."""
        split_file = Path(self.split_file).name if self.split_file else ''
        return f'{self.file} with {split_file}' if split_file else self.file

    def described(self) -> dict[str, Any]:
        """Everything but the labels, as JSON."""
        found = {k: v for k, v in vars(self).items() if k not in ('table', 'options')}
        found['published'] = self.published and dict(
            vars(self.published), damaged=self.published.damaged
        )
        found['problems'] = [vars(problem) for problem in self.problems]
        return found


def find_parts(
    path: Path, split_file: Path | None = None
) -> list[tuple[Path, Path | None]]:
    """Annotation files with their refs, of whatever a user names.

    Args:
        path (Path): A file or folder; of REFER, ``instances.json``, the refs or their
            folder.
        split_file (Path, optional): As given. Defaults to None: what lies beside.

    Returns:
        list[tuple[Path, Path or None]]: One for each refs file, else one.
    """
    if split_file is not None:
        return [(path, split_file)]
    if path.is_dir() and (path / 'instances.json').is_file():
        path = path / 'instances.json'
    if _REFS.fullmatch(path.name) and (path.parent / 'instances.json').is_file():
        return [(path.parent / 'instances.json', path)]
    if path.name == 'instances.json' and path.is_file():
        refs = sorted(p for p in path.parent.iterdir() if _REFS.fullmatch(p.name))
        return [(path, ref) for ref in refs] or [(path, None)]
    return [(path, None)]


def inspect_file(
    ann_file: str | Path,
    split_file: str | Path | None = None,
    roots: ImageRoots | None = None,
    **options: Any,
) -> Inspection:
    """Read an annotation file and look at everything in it.

    Args:
        ann_file (str or Path): The file.
        split_file (str or Path, optional): REFER's refs, or VOC's list of a split.
        roots (ImageRoots, optional): Folders of the images. Defaults to None: images
            are not looked at.
        **options: ``ann_format``, ``box_format``, ``box_unit``, ``fields``,
            ``instruction`` of ``read_annotations``.

    Returns:
        Inspection: What was found; a file that cannot be read is one problem.
    """
    options = {key: value for key, value in options.items() if value}
    refs = None if split_file is None else str(split_file)
    found = Inspection(str(ann_file), refs, options)
    try:
        collected = collect_labels(ann_file, split_file, targets='any', **options)
    except (ValueError, OSError, ImportError) as error:
        found.problems.append(Problem('cannot be read', str(error), 0, True))
        return found
    found.layout, found.title = collected.layout.name, collected.layout.title
    found.training_split = collected.layout.training_split
    written = collected.builder.as_written()
    if not len(written):
        text = f'{found.name} has no labels; expected one at least.'
        found.problems.append(Problem('no labels', text, 0, True))
        return found
    found.table = _settle_boxes(found, collected, written, roots)
    try:
        check_unique_names(Path(ann_file), found.table, collected)
    except ValueError as error:
        found.problems.append(Problem('sample_id', str(error), 0, True))
    if roots is not None:
        found.table = _look_at_images(found, found.table, roots)
    _look_at_boxes(found, collected, written, found.table)
    _count(found, found.table)
    _look_at_targets(found, found.table)
    found.lengths, problems = look_at_expressions(found.table)
    found.problems += problems + find_duplicates(found.table)
    _explain_rows(found)
    _recognise(found)
    found.problems += find_leaks([found])
    if not found.training_split:
        text = (
            f'{found.title} has no training split: its labels are for evaluation, and '
            'training on them is refused.'
        )
        found.problems.append(Problem('no training split', text, len(written)))
    return found


# --- boxes -------------------------------------------------------------------------


def _settle_boxes(
    found: Inspection,
    collected: Collected,
    written: LabelTable,
    roots: ImageRoots | None,
) -> LabelTable:
    """The labels in pixels, or as they are written if it is not known how."""
    read_sizes = None if roots is None else roots.size_reader(False)
    try:
        table = collected.builder.build(
            collected.kinds, resize=collected.resize, read_sizes=read_sizes
        )
    except ValueError as error:
        found.problems.append(Problem('boxes', str(error), len(written.boxes), True))
        found.boxes = dict(format=None, unit=None, why='')
        with np.errstate(over='ignore'):
            return replace(written, boxes=written.boxes.astype(np.float32))
    kind = collected.builder.kind or collected.kinds[0]
    said = [k for k in ('box_format', 'box_unit') if k in found.options]
    if said:
        why = f'said by {" and ".join(said)}'
    elif len(collected.kinds) > 1:
        others = ', '.join(f'{k.format} {k.unit}' for k in collected.kinds if k != kind)
        why = (
            f'the only one of the kinds of the layout that fits the numbers ({others})'
        )
    elif callable(collected.layout.boxes):
        why = f'told by the entries and names of the layout {collected.layout.name}'
    else:
        why = f'the layout {collected.layout.name} has them so'
    found.boxes = dict(format=kind.format, unit=kind.unit, why=why)
    return table


def _look_at_boxes(
    found: Inspection, collected: Collected, written: LabelTable, table: LabelTable
) -> None:
    """Count what contradicts each reading, and boxes that cannot be right."""
    owners = table.box_owners()
    sizes = table.sizes[table.image_index[owners]]
    settled = BoxKind(found.boxes['format'] or '', found.boxes['unit'] or '')
    kinds = list(_READINGS)
    if found.boxes['format'] and ' ' not in settled.unit and settled not in kinds:
        kinds.insert(0, settled)
    found.boxes.update(
        total=len(owners),
        sized=int((sizes > 0).all(1).sum()),
        largest=_largest(written.boxes),
        readings=[
            dict(
                format=kind.format,
                unit=kind.unit,
                contradicted=_contradicted(written, sizes, kind, collected.resize),
            )
            for kind in kinds
        ],
    )
    if not found.boxes['format']:
        return
    count = 0
    for reason, labels in invalid_boxes(table):
        count += len(labels)
        if len(labels):
            text = (
                f'{len(labels):,} of {len(table):,} labels have a box that is invalid, '
                f'{reason}: '
                f'{name_labels(table, labels)}.'
            )
            found.problems.append(Problem('invalid boxes', text, len(labels)))
    if count > MANY_INVALID * len(table):
        zeros = int((written.boxes == 0).all(1).sum())
        text = (
            f'{count:,} of {len(table):,} labels have an invalid box, which is more '
            'than slips: '
        ) + (
            f'{zeros:,} have four zeros. An expression without a target has no box: an '
            'empty list, or empty cells.'
            if 2 * zeros > count
            else 'is the box format another one? Say --box-format.'
        )
        found.problems.append(Problem('boxes', text, count, True))
    try:
        check_fit(table, found.file)
    except ValueError as error:
        found.problems.append(Problem('boxes', str(error), 0, True))


def _largest(boxes: np.ndarray) -> float | None:
    """The largest number in boxes (N, 4), None where there is none."""
    finite = boxes[np.isfinite(boxes)]
    return float(finite.max()) if len(finite) else None


def _contradicted(
    written: LabelTable, sizes: np.ndarray, kind: BoxKind, resize: Mapping[str, int]
) -> int:
    return int(contradicts(written.boxes, sizes, kind, resize).sum())


# --- images ------------------------------------------------------------------------


def _look_at_images(
    found: Inspection, table: LabelTable, roots: ImageRoots
) -> LabelTable:
    """Look for the images and into their heads; the labels with sizes learnt so."""
    used = np.unique(table.image_index)
    names = [table.images[index] for index in used]
    try:
        missing, renamed = roots.locate(names)
    except ValueError as error:
        found.problems.append(Problem('images', str(error), 0, True))
        return table
    found.images = dict(missing=len(missing), renamed=len(renamed))
    if missing:
        text = describe_missing(roots.folders[0], missing, len(names), str(roots))
        found.problems.append(Problem('missing images', text, len(missing), True))
    if renamed:
        text = roots.describe_renamed(renamed)
        found.problems.append(Problem('other names', text, len(renamed)))
    lost = set(missing)
    there = np.array(
        [i for i, name in zip(used, names, strict=True) if name not in lost], int
    )
    if len(there) > _HEADS:
        there = there[np.linspace(0, len(there) - 1, _HEADS).astype(int)]
    names = [table.images[index] for index in there]
    heads, turned = roots.heads(names)
    upright = _is_upright(table.sizes[there], heads, turned)
    if upright:
        heads = roots.heads(names, upright=True)[0]
    found.images.update(looked=len(there), turned=int(turned.sum()), upright=upright)
    if turned.any():
        text = describe_turned(names, turned, len(used), upright)
        found.problems.append(Problem('EXIF', text, int(turned.sum())))
    _compare_sizes(found, table.sizes[there], heads, names)
    sizes = table.sizes.copy()
    unknown = (sizes[there] <= 0).any(1)
    sizes[there[unknown]] = heads[unknown]
    return replace(table, sizes=sizes)


def _is_upright(said: np.ndarray, heads: np.ndarray, turned: np.ndarray) -> bool:
    """Whether the file has most turned images with their sides exchanged."""
    telling = turned & (said > 0).all(1) & (heads[:, 0] != heads[:, 1])
    swapped = (said[telling] == heads[telling][:, ::-1]).all(1)
    return bool(telling.any()) and bool(swapped.mean() > 0.5)


def _compare_sizes(
    found: Inspection, said: np.ndarray, heads: np.ndarray, names: Sequence[str]
) -> None:
    unreadable = np.flatnonzero((heads <= 0).any(1))
    if len(unreadable):
        named = ', '.join(names[i] for i in unreadable[:_NAMED])
        text = f'{len(unreadable):,} files cannot be read as an image: {named}.'
        found.problems.append(Problem('unreadable images', text, len(unreadable), True))
    other = (said > 0).all(1) & (heads > 0).all(1) & (said != heads).any(1)
    found.images['other_size'] = int(other.sum())
    if other.any():
        first = int(np.flatnonzero(other)[0])
        text = (
            f'{int(other.sum()):,} images have another size than the file says, e.g. '
            f'{names[first]}: {_shown(said[first])} in the file, '
            f'{_shown(heads[first])} in the image (W x H). Boxes are of other images, '
            'or of resized ones.'
        )
        found.problems.append(Problem('image sizes', text, int(other.sum()), True))


def _shown(size: np.ndarray) -> str:
    return f'{size[1]} x {size[0]}'


# --- labels ------------------------------------------------------------------------


def _count(found: Inspection, table: LabelTable) -> None:
    """Fill the numbers of each split and source."""
    texts, objects = part_keys(table, image=False), part_keys(table, text=False)
    targets = table.target_counts()

    def count(chosen: np.ndarray) -> dict[str, int]:
        counts = targets[chosen]
        return dict(
            labels=len(counts),
            images=len(np.unique(table.image_index[chosen])),
            expressions=len(np.unique(texts[chosen])),
            objects=len(np.unique(objects[chosen][counts > 0])),
            none=int((counts == 0).sum()),
            one=int((counts == 1).sum()),
            several=int((counts > 1).sum()),
        )

    found.total = count(np.ones(len(table), bool))
    for code in sorted(range(len(table.split_names)), key=_place(table.split_names)):
        found.splits[table.split_names[code]] = count(table.splits == code)
    numbers = np.bincount(table.sources, minlength=len(table.source_names))
    found.sources = dict(zip(table.source_names, numbers.tolist(), strict=True))


def _look_at_targets(found: Inspection, table: LabelTable) -> None:
    """Say which labels training leaves out, and whether any is left to train on."""
    counts = table.target_counts()
    other = np.flatnonzero(counts != 1)
    if len(other):
        text = (
            f'{len(other):,} of {len(table):,} labels have no target box or several, '
            f'and are left out unless targets="any" is said: '
            f'{name_labels(table, other)}.'
        )
        found.problems.append(Problem('0 or several targets', text, len(other)))
    held = np.array([is_held_out(split) for split in table.split_names], bool)
    training = counts[~held[table.splits]]
    if len(training) and not (training == 1).any():
        text = (
            f'None of the {len(training):,} training labels has exactly one target '
            'box: there is nothing to train a box head on.'
        )
        found.problems.append(Problem('no single target', text, len(training), True))


def _explain_rows(found: Inspection) -> None:
    """Say how rows of one expression become one label of several targets."""
    if found.layout == 'rows' and 'label' not in found.options.get('fields', {}):
        found.problems = [
            replace(
                problem,
                text=f'{problem.text} If they are several targets of one expression: '
                '--fields label=IMAGE,TEXT, the columns that such rows have alike.',
            )
            if problem.kind == 'ambiguous expressions'
            else problem
            for problem in found.problems
        ]


def _place(names: Sequence[str]) -> Callable[[int], tuple[int, str]]:
    """How splits are ordered: as papers list them, then others by name."""
    places = {name: place for place, name in enumerate(_SPLITS)}
    return lambda code: (places.get(names[code], len(places)), names[code])


def _recognise(found: Inspection) -> None:
    """Compare the numbers of expressions with those of published sets."""
    counts = {name: split['labels'] for name, split in found.splits.items()}
    path = Path(found.file)
    names = f'{path.parent.name}/{path.name} {Path(found.split_file or "").name}'
    if set(found.sources) != {'human'} or 'pseudo' in names or 'grefs' in names:
        return
    found.published = match_published(counts, names)
    if found.published is None:
        return
    for split, (count, known) in found.published.damaged.items():
        more = 'missing' if count < known else 'too many'
        text = (
            f'{abs(known - count):,} expressions are {more}: {found.published.name} '
            f'{split} has {known:,}, this file {count:,}. Fetch it again.'
        )
        found.problems.append(Problem('published numbers', text, abs(known - count)))


# --- leaks -------------------------------------------------------------------------


def is_held_out(split: str) -> bool:
    """Whether a split is for validation or test by its name."""
    return re.match(r'(mini)?(val|test|dev)', split.lower()) is not None


def find_leaks(inspections: Sequence[Inspection]) -> list[Problem]:
    """Images that are trained on in one place and held out in another.

    Args:
        inspections (Sequence[Inspection]): One, whose splits are compared with each
            other; or several, which are compared with one another only.
    """
    problems = []
    alone = len(inspections) == 1
    for training, held in product(inspections, inspections):
        if training.table is None or held.table is None or (training is held) != alone:
            continue
        source = _of_splits(training.table, lambda split: not is_held_out(split))
        if not len(source):
            continue
        for split in filter(is_held_out, held.table.split_names):
            target = _of_splits(held.table, split.__eq__)
            leaking = leaking_labels(source, [target])
            if not len(leaking):
                continue
            where = f'{split} of {held.name}'
            published = training.published
            known = alone and published is not None and published.shares_images
            text = describe_leaks(source, leaking, [where])
            if known:
                text += '; so it was published, split by objects'
            else:
                text += ": drop them by held_out=... and on_leak='drop'"
            problems.append(Problem('leak', f'{text}.', len(leaking), not known))
    return problems


def _of_splits(table: LabelTable, wanted: Callable[[str], bool]) -> LabelTable:
    chosen = np.array([wanted(split) for split in table.split_names], bool)
    return table.take(np.flatnonzero(chosen[table.splits]))
