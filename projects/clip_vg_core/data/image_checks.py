"""Whether the images of labels are there and upright, told before they are needed."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..utils.image_files import has_exif_rotation, open_image, size_of

__all__ = [
    'describe_missing',
    'describe_turned',
    'other_year_paths',
    'read_heads',
    'why_missing',
]

_NAMED = 20  # of the missing images


def _files(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return set()


def why_missing(path: Path) -> str:
    """What may be wrong with the name of a missing image; '' where nothing shows.

    Args:
        path (Path): Where it should be.
    """
    for find in (_other_separator, _other_year, _other_folder, _other_suffix):
        if reason := find(path):
            return reason
    return '' if path.parent.is_dir() else f'There is no folder {path.parent}.'


def _other_separator(path: Path) -> str:
    if '\\' not in path.name:
        return ''
    names = path.name.replace('\\', '/'), path.name.rpartition('\\')[2]
    hit = next((name for name in names if (path.parent / name).is_file()), None)
    return 'The name has a backslash; expected / between folders' + (
        '.' if hit is None else f' ({hit} is there).'
    )


def other_year_paths(path: Path) -> list[Path]:
    """Where an image of COCO may be under its name in the sets of another year.

    The sets of 2014 say the year in the name, ``COCO_train2014_000000000009.jpg``;
    those of 2017 do not.

    Args:
        path (Path): Under its name of one year; of another name, there is nothing.
    """
    if path.name.startswith('COCO_'):
        names, other = [path.name.rpartition('_')[2]], 2017
    elif path.stem.isdigit() and len(path.stem) == 12:
        names, other = (
            [f'COCO_{part}2014_{path.name}' for part in ('train', 'val')],
            2014,
        )
    else:
        return []
    folders = (
        path.parent,
        *(path.parent.parent / f'{p}{other}' for p in ('train', 'val')),
    )
    return [folder / name for folder in folders for name in names]


def _other_year(path: Path) -> str:
    """COCO's images have one name in the sets of 2014 and another in those of 2017."""
    there = next((place for place in other_year_paths(path) if place.is_file()), None)
    if there is None:
        return ''
    year, other = (2014, 2017) if path.name.startswith('COCO_') else (2017, 2014)
    return (
        f'It is the name of COCO {year}; {there}, the same image under its name of '
        f"COCO {other}, is there: set `check_images` to 'warn', which finds it."
    )


def _other_folder(path: Path) -> str:
    """A folder too much, in the name or in ``data_prefix.img``."""
    for above in list(path.parents)[1:4]:
        if (above / path.name).is_file():
            extra = path.parent.relative_to(above).as_posix()
            return (
                f'{path.name} is in {above}: the folder {extra}/ is too much, in the '
                'names of the images or in `data_prefix.img`.'
            )
    return ''


def _other_suffix(path: Path) -> str:
    stem = path.stem.lower()
    names = sorted(_files(path.parent))
    hit = next((name for name in names if Path(name).stem.lower() == stem), None)
    return f'{hit} is there: another suffix, or capital letters.' * bool(hit)


def describe_missing(
    folder: Path, missing: Sequence[str], total: int, folders: str = ''
) -> str:
    """One message for all missing images.

    Args:
        folder (Path): Where the names start from.
        missing (Sequence[str]): The names, at least one.
        total (int): Of all images of the labels.
        folders (str): All folders that were looked through. Defaults to '': one.
    """
    named = ', '.join(missing[:_NAMED])
    rest = f', and {len(missing) - _NAMED:,} more' if len(missing) > _NAMED else ''
    return (
        f'{len(missing):,} of {total:,} images of the labels are not in '
        f'{folders or folder}: {named}{rest}. Check `data_root` and `data_prefix.img`. '
        f'{why_missing(folder / missing[0])}'
    ).rstrip()


def describe_turned(
    names: Sequence[str], turned: np.ndarray, total: int, upright: bool
) -> str:
    """How many images have an EXIF entry that turns them, and what becomes of it.

    Args:
        names (Sequence[str]): N images that were looked at.
        turned (np.ndarray): bool (N, ), at least one True.
        total (int): Of all images of the labels.
        upright (bool): Whether the data set turns them.
    """
    looked = f'{total:,} images'
    if len(names) < total:
        looked = f'{len(names):,} of {looked} that were looked at'
    done = 'are turned upright' if upright else 'are read as they are stored'
    return (
        f'{int(turned.sum()):,} of {looked} have an EXIF entry that turns them, e.g. '
        f'{names[int(turned.argmax())]}: they {done}. If their boxes are of the images '
        f'as {"stored" if upright else "viewers show them"}, set '
        f'`upright={not upright}`.'
    )


def read_heads(
    folder: Path, names: Sequence[str], upright: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of images and whether EXIF turns them, from the heads of the files.

    Args:
        folder (Path): Where the names start from.
        names (Sequence[str]): N file names.
        upright (bool): Whether the sizes are of the turned images. Defaults to False.

    Returns:
        tuple[np.ndarray, np.ndarray]: int32 (N, 2), height and width, -1 where a file
        cannot be read; and bool (N, ), whether it is turned.
    """
    with ThreadPoolExecutor(8) as pool:
        heads = list(pool.map(lambda name: _head(folder / name, upright), names))
    sizes = np.array([head[:2] for head in heads], np.int32).reshape(-1, 2)
    return sizes, np.array([head[2] for head in heads], bool)


def _head(path: Path, upright: bool) -> tuple[int, int, bool]:
    try:
        with open_image(path) as image:
            width, height = size_of(image, upright)
            return height, width, has_exif_rotation(image)
    except (OSError, ValueError, SyntaxError):  # reading it will say what is wrong
        return -1, -1, False
