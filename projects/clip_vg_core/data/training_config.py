"""The few lines of a config that train on annotation files."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .inspection import Inspection, find_leaks, is_held_out
from .label_files import in_folds

__all__ = ['training_config']

# In configs/_base_: the official schedule, that for few labels, and for few labels of
# which some have no target or several.
_OFFICIAL = 'clip_vg_b16_released.py'
_OWN = 'clip_vg_own_labels.py'
_OWN_ANY = 'clip_vg_own_labels_any.py'
_FEW = 20_000  # training labels, from which on the official schedule is meant
_BATCH = 64  # of the official schedule; an incomplete batch is dropped
_FOLDS = (5, 3, 2)  # parts of the images, of which the last one validates
_OWN_FOLDS, _OWN_BATCH = 5, 16  # as the bases for few labels have them
_GROUPED = 4  # expressions of an image that are trained on together
_WIDTH = 88
# Share of labels with several targets that is more than slips.
_SEVERAL = 0.05
_ANY = """\
model = dict(
    num_queries={queries}, confidence_head=dict(type='GroundingConfidenceHead')
)
val_evaluator = dict(_delete_=True, type='GeneralizedGroundingMetric', score_thr=0.5)
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best='grounding/f1_acc'))
"""
_QUERIES = 5, 20  # of the base; at most

# A file, and those of its splits that are wanted.
Part = tuple[Inspection, tuple[str, ...]]


def training_config(
    inspections: Sequence[Inspection],
    folders: Sequence[str] = (),
    base: str = '',
    configs: str = '.',
) -> str:
    """A config of about ten lines, to be saved beside those of this project.

    Files are trained on and validated on by the splits that they have; where there is
    none to validate on, a part of the images is held out. Where expressions have no
    target, or more than slips have several, the model has several boxes with scores.

    Args:
        inspections (Sequence[Inspection]): Of the files.
        folders (Sequence[str]): Of the images. Defaults to (): to be filled in.
        base (str): What it inherits, with loaders named as in our configs. Defaults to
            '': the official schedule for published sets and many labels, else
            ``clip_vg_own_labels.py``.
        configs (str): This project's folder of configs, from where the config will be.
            Defaults to '.': the same.

    Returns:
        str: The config; '' where no file can be read with its boxes.
    """
    readable = [found for found in inspections if found.boxes.get('format')]
    if not readable:
        return ''
    root = _common_folder(readable, folders)
    training, val, test = _parts(readable)
    any_targets = _has_any_targets(readable)
    is_own = not base and bool(training) and _is_own(training)
    if not base:
        name = _OWN_ANY if any_targets else _OWN
        base = f'{configs}/_base_/{name if is_own else _OFFICIAL}'
    loaders = dict(train=dict(_arguments(training, root), **_held_out(readable, root)))
    number = 0
    if val or test:
        loaders['val'] = _arguments(val or test, root)
        loaders['test'] = _arguments(test or val, root)
    else:
        number = _folds(training)
        held = _arguments(training, root)
        if number and not (is_own and number == _OWN_FOLDS):
            held['image_folds'] = f'dict(number={number}, keep=[{number - 1}])'
            kept = f'dict(number={number}, keep={[*range(number - 1)]})'
            loaders['train']['image_folds'] = kept
        loaders.update(val=held, test=held)
    if not training:
        del loaders['train']
    data = _shared(loaders)
    options = _options(readable)
    # Where the base has another.
    options |= dict(image_folds='None') if is_own and not number else {}
    options |= dict(targets="'any'") if any_targets and not is_own else {}
    images = [_within(folder, root) for folder in folders] or ['IMAGES/']
    where = dict(
        data_root=repr(f'{root}/' if root else ''),
        data_prefix=f'dict(img={_one(images)})',
    )
    lines = [f'_base_ = {base!r}', '', *_packed({**where, **data, **options})]
    if not training:
        lines.append('# No split to train on: this config is for tools/test.py.')
    elif not (val or test or number):
        lines.append('# Too few images to hold some out: it validates on what it saw.')
    batch = _grouping(training) if is_own else _batch_size(training)
    lines += _lines_of_loaders(loaders, data, batch)
    lines += _lines_of_model(_queries(readable), is_own) if any_targets else []
    return '\n'.join(lines) + '\n'


def _parts(readable: Sequence[Inspection]) -> tuple[list[Part], list[Part], list[Part]]:
    """What is trained on, validated on and tested on."""
    training = _alike(readable, lambda split: not is_held_out(split))
    val = _alike(readable, lambda split: is_held_out(split) and not _is_test(split))
    test = _alike(readable, lambda split: is_held_out(split) and _is_test(split))
    if not any(found.training_split for found, _ in training):
        training, val = [], val or training
    return training, val, test


def _shared(loaders: Mapping[str, dict[str, str]]) -> dict[str, str]:
    """Arguments that all loaders have alike."""
    first, *others = loaders.values()
    return {
        key: value
        for key, value in first.items()
        if all(other.get(key) == value for other in others)
    }


def _lines_of_loaders(
    loaders: Mapping[str, dict[str, str]], shared: Mapping[str, str], batch: str
) -> list[str]:
    """A line for each loader, of what the others do not have."""
    lines = []
    for name, arguments in loaders.items():
        if name == 'test' and arguments == loaders['val']:
            lines.append('test_dataloader = val_dataloader')
            continue
        own = [
            f'{key}={value}' for key, value in arguments.items() if key not in shared
        ]
        inner = f'dict({", ".join([*own, "**data"])})' if own else 'data'
        size = batch if name == 'train' else ''
        if 'sampler' in size:
            line = f'dict(\n    {size.strip()}\n    dataset={inner},\n)'
        else:
            line = f'dict({size}dataset={inner})'
        lines.append(f'{name}_dataloader = {line}')
    return lines


def _lines_of_model(queries: int, is_own: bool) -> list[str]:
    """A model of several boxes with scores, beyond what the base has."""
    if not is_own:
        return _ANY.format(queries=queries).splitlines()
    more = queries > _QUERIES[0]
    return [f'model = dict(num_queries={queries})'] if more else []


def _is_own(training: Sequence[Part]) -> bool:
    """Whether files are somebody's own labels, and few."""
    labels = sum(
        found.splits[split]['labels'] for found, names in training for split in names
    )
    return labels < _FEW and not any(found.published for found, _ in training)


def _has_any_targets(readable: Sequence[Inspection]) -> bool:
    """Whether expressions without a target, or with several, are meant."""
    none = sum(found.total['none'] for found in readable)
    # Of published sets, these are left out by custom.
    own = [found.total for found in readable if not found.published]
    several = sum(total['several'] for total in own)
    return none > 0 or several > _SEVERAL * sum(total['labels'] for total in own)


def _queries(readable: Sequence[Inspection]) -> int:
    """As many boxes as the expression of the most targets has, within bounds."""
    tables = [found.table for found in readable if found.table is not None]
    most = max(int(table.target_counts().max()) for table in tables)
    return min(max(most, _QUERIES[0]), _QUERIES[1])


def _is_test(split: str) -> bool:
    return re.search('test', split.lower()) is not None


def _alike(readable: Sequence[Inspection], wanted: Callable[[str], bool]) -> list[Part]:
    """Files with wanted splits, those whose splits are the same as the first's."""
    parts = []
    for found in readable:
        if names := tuple(filter(wanted, found.splits)):
            parts.append((found, names))
    return [part for part in parts if part[1] == parts[0][1]]


def _folds(training: Sequence[Part]) -> int:
    """Into how many parts images can be divided, each of them with labels; 0: none."""
    tables = [found.table for found, _ in training if found.table is not None]
    total = sum(map(len, tables))
    for number in _FOLDS:
        if (
            0
            < sum(len(in_folds(table, number, [number - 1])) for table in tables)
            < total
        ):
            return number
    return 0


def _arguments(parts: Sequence[Part], root: str) -> dict[str, str]:
    """Which labels a data set reads, as Python."""
    if not parts:
        return {}
    arguments = dict(ann_file=_one([_within(found.file, root) for found, _ in parts]))
    if any(found.split_file for found, _ in parts):
        refs = [f.split_file and _within(f.split_file, root) for f, _ in parts]
        arguments['split_file'] = _one(refs)
    splits = parts[0][1]
    # All labels are wanted of files that have no others.
    every = all(len(splits) == len(found.splits) for found, _ in parts)
    arguments['split'] = 'None' if every and splits == ('all',) else _one(splits)
    return arguments


def _held_out(readable: Sequence[Inspection], root: str) -> dict[str, str]:
    """What drops training labels of images that files validate or test on."""
    held = []
    for found in readable:
        others = ([found, other] for other in readable if other is not found)
        leaks = [leak for pair in ([found], *others) for leak in find_leaks(pair)]
        splits = tuple(filter(is_held_out, found.splits))
        if splits and any(leak.spoils_training for leak in leaks):
            arguments = _arguments([(found, splits)], root)
            inner = ', '.join(f'{key}={value}' for key, value in arguments.items())
            held.append(f'dict({inner})')
    return dict(held_out=f'[{", ".join(held)}]', on_leak="'drop'") if held else {}


def _batch_size(training: Sequence[Part]) -> str:
    """A batch that several of are in few labels; '' where there are enough."""
    count = sum(
        found.splits[split]['one'] for found, names in training for split in names
    )
    return f'batch_size={max(1, count // 8)}, ' if count < 2 * _BATCH else ''


def _grouping(training: Sequence[Part]) -> str:
    """Several expressions of an image as one sample, which is then encoded once.

    A step has about as many expressions as without; '' where images have one each.
    """
    counts = [found.splits[split] for found, names in training for split in names]
    labels, images = (sum(c[key] for c in counts) for key in ('labels', 'images'))
    several = min(_GROUPED, round(labels / images))
    if several < 2:
        return ''
    sampler = (
        f"dict(_delete_=True, type='ImageGroupSampler', max_expressions={several})"
    )
    return f'batch_size={_OWN_BATCH // several}, sampler={sampler}, '


def _one(values: Sequence[str | None]) -> str:
    return repr(values[0] if len(values) == 1 else list(values))


def _options(readable: Sequence[Inspection]) -> dict[str, str]:
    """What the data set must be told beyond its files."""
    options = {key: repr(value) for key, value in readable[0].options.items()}
    if any(found.images.get('upright') for found in readable):
        options['upright'] = 'True'
    return options


def _packed(arguments: dict[str, str]) -> list[str]:
    """``data = dict(...)`` in lines that are as full as can be."""
    lines = ['data = dict(']
    for key, value in arguments.items():
        part = f'{key}={value},'
        if len(lines) > 1 and len(lines[-1]) + 1 + len(part) <= _WIDTH:
            lines[-1] += f' {part}'
        else:
            lines.append(f'    {part}')
    return [*lines, ')']


def _common_folder(readable: Sequence[Inspection], folders: Sequence[str]) -> str:
    """The folder that all files are in, from here if it is below; '' for none."""
    files = [f for found in readable for f in (found.file, found.split_file) if f]
    common = os.path.commonpath(
        [
            *(Path(file).absolute().parent for file in files),
            *(Path(folder).absolute() for folder in folders),
        ]
    )
    here = Path(os.path.relpath(common)).as_posix()
    if Path(common).parent == Path(common):
        return ''
    return common if here.startswith('..') else here


def _within(path: str, root: str) -> str:
    """A path from the common folder; folders end as they are written."""
    full = Path(path).absolute()
    if not root:
        return str(full)
    return Path(os.path.relpath(full, Path(root).absolute())).as_posix()
