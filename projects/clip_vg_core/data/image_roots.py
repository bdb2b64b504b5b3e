"""Where the images of labels are: folders in order, and names that have changed."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from .image_checks import other_year_paths, read_heads

__all__ = ['ImageRoots']

_UPLOADED = re.compile('[0-9a-f]{8}-')
_NAMED = 3  # of the images that were found under another name


class ImageRoots:
    """Folders that hold the images of labels.

    An image that is in none of them under its name is looked for under the name that
    COCO gives it in the sets of another year, with / for backslashes, without folders
    at its beginning that the folder ends with (``train2014/train2014/``), and without
    the eight digits that Label Studio puts before names (``0a1b2c3d-name.jpg``).

    Args:
        folders (Sequence[str or Path]): One or several, in order.
    """

    def __init__(self, folders: Sequence[str | Path]) -> None:
        self.folders = [Path(folder) for folder in folders]
        self._elsewhere: dict[str, str] = {}
        self._listed: dict[str, frozenset[str]] = {}

    def __str__(self) -> str:
        return ', '.join(map(str, self.folders))

    def path(self, name: str) -> str:
        """The file of an image; in the first folder, if it was found nowhere."""
        if name not in self._elsewhere and len(self.folders) > 1:
            self.locate([name])
        return self._elsewhere.get(name) or os.path.join(self.folders[0], name)

    def locate(self, names: Iterable[str]) -> tuple[list[str], list[str]]:
        """Look for images, each folder being listed once.

        Args:
            names (Iterable[str]): File names, with folders or without.

        Returns:
            tuple[list[str], list[str]]: Names that are missing, and names that were
            found as other ones.

        Raises:
            ValueError: Two folders have different files of one name.
        """
        missing, renamed = [], []
        for name in names:
            paths = [os.path.join(folder, name) for folder in self.folders]
            there = [path for path in paths if self._is_file(path)]
            if len(there) > 1 and not os.path.samefile(there[0], there[1]):
                raise ValueError(
                    f'The image {name!r} is in {Path(there[0]).parent} and in '
                    f'{Path(there[1]).parent}: which is meant is not known; give each '
                    'data set its folder, data_prefix=dict(img=dict(NAME=FOLDER)).'
                )
            if there:
                if there[0] != paths[0]:
                    self._elsewhere[name] = there[0]
                continue
            other = next(filter(self._is_listed, self._other_paths(name)), None)
            if other is None:
                missing.append(name)
            else:
                self._elsewhere[name] = other
                renamed.append(name)
        return missing, renamed

    def _other_paths(self, name: str) -> Iterator[str]:
        plain = name.replace('\\', '/')
        for folder in self.folders:
            shorter = _without_tail(folder, plain)
            for path in (folder / plain, folder / shorter):
                yield str(path)
                yield from map(str, other_year_paths(path))
            if _UPLOADED.match(plain):
                yield str(folder / plain[9:])

    def _is_listed(self, path: str) -> bool:
        folder, base = os.path.split(path)
        if folder not in self._listed:
            try:
                with os.scandir(folder or '.') as entries:
                    files = frozenset(e.name for e in entries if e.is_file())
            except OSError:
                files = frozenset()
            self._listed[folder] = files
        return base in self._listed[folder]

    def _is_file(self, path: str) -> bool:
        # A file system may find names that it does not list, such as of other case.
        return self._is_listed(path) or os.path.isfile(path)

    def describe_renamed(self, renamed: Sequence[str]) -> str:
        """How many images were found under other names, and which, for the log."""
        named = ', '.join(f'{n} as {self._elsewhere[n]}' for n in renamed[:_NAMED])
        return (
            f'{len(renamed):,} images of the labels have other names on disk, such as '
            f'those of COCO 2017 for 2014, and are read from there: {named}'
            f'{", ..." if len(renamed) > _NAMED else ""}.'
        )

    def heads(
        self, names: Sequence[str], upright: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Sizes (M, 2) and EXIF rotations (M, ) of images; see :func:`read_heads`."""
        return read_heads(Path(), [self.path(name) for name in names], upright)

    def size_reader(self, upright: bool) -> Callable[[Sequence[str]], np.ndarray]:
        """A function from file names to sizes (M, 2), -1 where unknown."""

        def read_sizes(names: Sequence[str]) -> np.ndarray:
            self.locate(names)
            return self.heads(names, upright)[0]

        return read_sizes

    def __getstate__(self) -> dict:
        # Workers need what was found, not what was looked through.
        return dict(self.__dict__, _listed={})


def _without_tail(folder: Path, name: str) -> str:
    """A name without the folders at its beginning that ``folder`` ends with."""
    parts, tail = name.split('/'), folder.parts
    for count in range(len(parts) - 1, 0, -1):
        if tuple(parts[:count]) == tail[-count:]:
            return '/'.join(parts[count:])
    return name
