"""The few lines of a config that train on annotation files."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from .inspection import Inspection, find_leaks, is_held_out
from .label_files import in_folds

__all__ = ['BASE', 'training_config']

BASE = './_base_/clip_vg_b16_released.py'
_BATCH = 64  # of ``BASE``; an incomplete batch is dropped
_FOLDS = (10, 5, 3, 2)  # parts of the images, of which one validates
_WIDTH = 88

# A file, and those of its splits that are wanted.
Part = tuple[Inspection, tuple[str, ...]]


def training_config(
    inspections: Sequence[Inspection], folders: Sequence[str] = (), base: str = BASE
) -> str:
    """A config of about ten lines, to be saved beside those of this project.

    Files are trained on and validated on by the splits that they have; where there is
    none to validate on, a part of the images is held out.

    Args:
        inspections (Sequence[Inspection]): Of the files.
        folders (Sequence[str]): Of the images. Defaults to (): to be filled in.
        base (str): What it inherits, with loaders named as in our configs. Defaults to
            the model, data and schedule of the official code.

    Returns:
        str: The config; '' where no file can be read with its boxes.
    """
    readable = [found for found in inspections if found.boxes.get('format')]
    if not readable:
        return ''
    root = _common_folder(readable, folders)
    training = _alike(readable, lambda split: not is_held_out(split))
    val = _alike(readable, lambda split: is_held_out(split) and not _is_test(split))
    test = _alike(readable, lambda split: is_held_out(split) and _is_test(split))
    if not any(found.training_split for found, _ in training):
        training, val = [], val or training
    loaders = dict(train=dict(_arguments(training, root), **_held_out(readable, root)))
    number = 0
    if val or test:
        loaders['val'] = _arguments(val or test, root)
        loaders['test'] = _arguments(test or val, root)
    else:
        number = _folds(training)
        held = _arguments(training, root)
        if number:
            held['image_folds'] = f'dict(number={number}, keep=[0])'
            kept = f'dict(number={number}, keep={[*range(1, number)]})'
            loaders['train']['image_folds'] = kept
        loaders.update(val=held, test=held)
    if not training:
        del loaders['train']
    first, *others = loaders.values()
    shared = {
        key: value
        for key, value in first.items()
        if all(other.get(key) == value for other in others)
    }
    images = [_within(folder, root) for folder in folders] or ['IMAGES/']
    data = dict(
        data_root=repr(f'{root}/' if root else ''),
        data_prefix=f'dict(img={_one(images)})',
        **shared,
        **_options(readable),
    )
    lines = [f'_base_ = {base!r}', '', *_packed(data)]
    if training and not (val or test or number):
        lines.append('# Too few images to hold some out: it validates on what it saw.')
    if not training:
        lines.append('# No split to train on: this config is for tools/test.py.')
    for name, arguments in loaders.items():
        if name == 'test' and arguments == loaders['val']:
            lines.append('test_dataloader = val_dataloader')
            continue
        own = [
            f'{key}={value}' for key, value in arguments.items() if key not in shared
        ]
        inner = f'dict({", ".join([*own, "**data"])})' if own else 'data'
        batch = _batch_size(training) if name == 'train' else ''
        lines.append(f'{name}_dataloader = dict({batch}dataset={inner})')
    return '\n'.join(lines) + '\n'


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
        if 0 < sum(len(in_folds(table, number, [0])) for table in tables) < total:
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
