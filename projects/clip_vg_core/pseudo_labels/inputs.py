"""What a run reads: which files, of which kinds, and how they get into the store."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..curriculum.reliability_file import file_sha256
from ..utils.json_stream import has_list, is_object
from .detection import Detection
from .entries import (
    read_categories,
    read_coco_detections,
    read_images,
    read_names,
)
from .predictions import (
    list_pictures,
    read_dumped_predictions,
    read_inferencer_predictions,
)

__all__ = ['UPRIGHT_MARK', 'InputFiles']

# Begins the detections that ``--detector`` wrote of upright images.
UPRIGHT_MARK = b'{"info": {"upright": true}, '

Image = tuple[Any, str, int | None, int | None]


@dataclass
class InputFiles:
    """The inputs of a run.

    Args:
        detections (Path, optional): COCO results or annotations (``.json``), what
            ``DumpDetResults`` wrote (``.pkl``), or the folder that ``DetInferencer``
            wrote. Defaults to None.
        instances (Path, optional): COCO file with ``images`` and ``categories``.
            Defaults to None: the detections, if they have both; else the pictures.
        images (Path, optional): Folder of the pictures. Defaults to None.
        classes (Path, optional): Names of a detector's labels, one a line or a JSON
            list. Defaults to None: the categories of ``instances``, in order.
        attributes (Path, optional): Further detections, used for their attributes
            alone; as ``detections``, of COCO's kind. Defaults to None.
        captions (Path, optional): COCO caption results. Defaults to None.
        triplets (Path, optional): Scene graphs. Defaults to None.
        min_score (float): Less sure detections are left out. Defaults to 0.
        ignore_unknown_images (bool): Whether what belongs to images that are not
            listed is left out, or an error. Defaults to False.
        upright (bool, optional): Whether images are turned by their EXIF entry before
            anything looks at them, so that the labels are of upright images. Defaults
            to None: True for a folder of photographs, and False where a COCO file lists
            the images, as boxes of published data sets are of the images as stored;
            but what ``--detector`` wrote says itself.
    """

    detections: Path | None = None
    instances: Path | None = None
    images: Path | None = None
    classes: Path | None = None
    attributes: Path | None = None
    captions: Path | None = None
    triplets: Path | None = None
    min_score: float = 0.0
    ignore_unknown_images: bool = False
    upright: bool | None = None

    def is_upright(self) -> bool:
        """Whether the labels are of images as their EXIF entry turns them."""
        if self.upright is not None:
            return self.upright
        listing = self.listing()
        if listing is None:
            return True
        with listing.open('rb') as file:
            return file.read(len(UPRIGHT_MARK)) == UPRIGHT_MARK

    def fingerprint(self) -> dict[str, Any]:
        """Name and sha256 of each file; of a folder of JSON files, that of all."""
        found: dict[str, Any] = {}
        for key in (
            'detections',
            'instances',
            'classes',
            'attributes',
            'captions',
            'triplets',
        ):
            path = getattr(self, key)
            if path is None:
                continue
            if not path.exists():
                raise FileNotFoundError(f'--{key} {path}: no such file.')
            found[key] = dict(name=path.name, sha256=_sha256(path))
        found['min_score'] = self.min_score
        found['ignore_unknown_images'] = self.ignore_unknown_images
        found['upright'] = self.is_upright()
        return found

    def origin(self) -> Path | None:
        """What lists the images."""
        return self.listing() or self.images or self.detections

    def listing(self) -> Path | None:
        """The COCO file that has the images."""
        if self.instances is not None:
            return self.instances
        path = self.detections
        if path is not None and path.is_file() and not self.is_pickle():
            return path if is_object(path) else None
        return None

    def named(self) -> dict[int, str] | None:
        """The categories of that file."""
        listing = self.listing()
        return read_categories(listing) if listing is not None else None

    def categories_of(self, path: Path) -> dict[int, str]:
        """Of a file of detections: its own, else those of the instances."""
        if has_list(path, 'categories'):
            return read_categories(path)
        named = self.named()
        if named is None:
            raise ValueError(
                f'{path} is a list of detections, which does not say what its images '
                'and categories are: give the COCO file with them by --instances.'
            )
        return named

    def is_pickle(self) -> bool:
        """Whether the detections are MMDetection's pickle."""
        path = self.detections
        return path is not None and path.suffix.lower() in ('.pkl', '.pickle')

    def _class_list(self) -> list[str]:
        if self.classes is not None:
            return read_names(self.classes)
        named = self.named()
        if named is None:
            raise ValueError(
                f'{self.detections} has numbers for classes: give their names by '
                '--classes (one a line) or --instances.'
            )
        return [named[key] for key in sorted(named)]

    def dumped(self) -> list[tuple[dict, list[Detection]]] | None:
        """MMDetection's pickle, which can only be read whole."""
        if self.detections is None or not self.is_pickle():
            return None
        return list(read_dumped_predictions(self.detections, self._class_list()))

    def list_images(self, dumped: list | None) -> Iterable[Image]:
        """Id, file name, width and height of each image; ``dumped`` as it gave it."""
        listing = self.listing()
        if listing is not None:
            return read_images(listing)
        if dumped is not None:
            return [
                (i['id'], self._relative(i['file_name']), i['width'], i['height'])
                for i, _ in dumped
            ]
        if self.images is None:
            raise ValueError(
                'Which images? Give a COCO file by --instances, or their folder by '
                '--images.'
            )
        return ((name, name, None, None) for name in list_pictures(self.images))

    def _relative(self, name: str) -> str:
        """A picture's name from the folder of pictures, as the labels have it."""
        if self.images is not None:
            folder = self.images.resolve()
            for path in (Path(name).resolve(), self.images / name):
                if path.resolve().is_relative_to(folder) and path.is_file():
                    return str(path.resolve().relative_to(folder))
        return Path(name).name

    def read_detections(
        self, dumped: list | None
    ) -> Iterator[tuple[Any, Detection | None]]:
        """Image id and detection; ``dumped`` as it gave it."""
        path = self.detections
        assert path is not None
        if dumped is not None:
            entries: Iterable[tuple[Any, Detection | None]] = (
                (image['id'], item) for image, items in dumped for item in items
            )
        elif path.is_dir():
            ids = {name: i for i, name, *_ in self.list_images(None)}
            read = read_inferencer_predictions(path, self._class_list(), list(ids))
            entries = ((ids[name], item) for name, items in read for item in items)
        else:
            entries = read_coco_detections(path, self.categories_of(path))
        return iter(entries)


def _sha256(path: Path) -> str:
    if not path.is_dir():
        return file_sha256(path)
    digest = hashlib.sha256()
    for file in sorted(path.rglob('*.json')):
        digest.update(f'{file.relative_to(path)} {file_sha256(file)}\n'.encode())
    return digest.hexdigest()
