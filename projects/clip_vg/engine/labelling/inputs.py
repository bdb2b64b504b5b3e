"""What a run reads: which files, of which kinds, and how they get into the store."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...curriculum.reliability_file import file_sha256
from ...pseudo_labels.detection import Detection
from .entries import (
    read_captions,
    read_categories,
    read_coco_detections,
    read_images,
    read_names,
    read_triplets,
)
from .json_stream import has_list, is_object
from .predictions import (
    is_turned,
    list_pictures,
    picture_size,
    read_dumped_predictions,
    read_inferencer_predictions,
)
from .store import SceneStore, UnknownImageError

__all__ = ['InputFiles', 'shard_range']

Image = tuple[Any, str, int | None, int | None]
WriteCaptions = Callable[[list[int | str], list[str]], Path]


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
        return found

    def fill(
        self,
        store: SceneStore,
        shard: tuple[int, int] = (1, 1),
        write_captions: WriteCaptions | None = None,
    ) -> None:
        """Read everything.

        Args:
            store (SceneStore): Gets it.
            shard (tuple[int, int]): Number of this part, and of all. Defaults to
                (1, 1).
            write_captions (Callable, optional): Writes COCO caption results for the
                pictures of some ids and file names, and gives their path. Defaults to
                None: ``captions`` is read.

        Raises:
            ValueError: An entry is damaged, or of an unknown image or category.
        """
        dumped = self._dumped()
        self._left_out: Counter = Counter()
        try:
            store.add_images(self._list_images(dumped))
        except ValueError as error:
            if str(self._origin()) in str(error):
                raise
            raise ValueError(f'{self._origin()}: {error}') from error
        ranks = shard_range(len(store), shard)
        store.keep(ranks)
        self._measure(store, ranks)
        if self.detections is not None:
            self._check_turned(store, ranks)
            found: Iterator = self._detections(dumped)
            self._add(store, self.detections, found, store.add_detections, shard)
        if self.attributes is not None:
            found = read_coco_detections(
                self.attributes, self._categories(self.attributes)
            )
            self._add(
                store,
                self.attributes,
                found,
                lambda entries: store.add_detections(entries, described=True),
                shard,
            )
        captions = self.captions
        if write_captions is not None:
            listed = list(store.images(ranks))
            captions = write_captions([i[1] for i in listed], [i[2] for i in listed])
        if captions is not None:
            texts = read_captions(captions)
            self._add(store, captions, texts, store.add_captions, shard)
        if self.triplets is not None:
            edges = read_triplets(self.triplets, self._named())
            self._add(store, self.triplets, edges, store.add_triplets, shard)
        store.count(self._left_out)

    def _add(
        self,
        store: SceneStore,
        path: Path,
        entries: Iterable,
        add: Callable[[Iterable], None],
        shard: tuple[int, int],
    ) -> None:
        """Store what belongs to known images; count what is left out."""

        def known() -> Iterator[Any]:
            for number, (image_id, item) in enumerate(entries, 1):
                try:
                    mine = store.is_kept(store.rank_of(image_id))
                except UnknownImageError as error:
                    if not self.ignore_unknown_images:
                        raise ValueError(
                            f'{path}, entry {number}: {error} of {self._origin()}. '
                            'Give the instances file of these images, or say '
                            '--ignore-unknown-images to leave such entries out.'
                        ) from None
                    # Every shard meets them; the first counts them.
                    self._left_out['left out: unknown image'] += shard[0] == 1
                    continue
                if item is None:
                    self._left_out['left out: crowd'] += mine
                elif isinstance(item, Detection) and item.score < self.min_score:
                    self._left_out['left out: below --min-score'] += mine
                else:
                    yield image_id, item

        add(known())

    def _origin(self) -> Path | None:
        """What lists the images."""
        return self._listing() or self.images or self.detections

    def _listing(self) -> Path | None:
        """The COCO file that has the images."""
        if self.instances is not None:
            return self.instances
        path = self.detections
        if path is not None and path.is_file() and not self._is_pickle():
            return path if is_object(path) else None
        return None

    def _named(self) -> dict[int, str] | None:
        listing = self._listing()
        return read_categories(listing) if listing is not None else None

    def _categories(self, path: Path) -> dict[int, str]:
        """Of a file of detections: its own, else those of the instances."""
        if has_list(path, 'categories'):
            return read_categories(path)
        named = self._named()
        if named is None:
            raise ValueError(
                f'{path} is a list of detections, which does not say what its images '
                'and categories are: give the COCO file with them by --instances.'
            )
        return named

    def _is_pickle(self) -> bool:
        path = self.detections
        return path is not None and path.suffix.lower() in ('.pkl', '.pickle')

    def _check_turned(self, store: SceneStore, ranks: range) -> None:
        """MMDetection turns pictures by their EXIF entry, and its boxes with them."""
        path = self.detections
        if self.images is None or path is None:
            return
        if not path.is_dir() and not self._is_pickle():
            return
        for _, _, name, *_ in store.images(ranks):
            picture = self.images / name
            if picture.is_file() and is_turned(picture):
                raise ValueError(
                    f'{picture} is turned by its EXIF entry: the boxes in {path} are '
                    'of the turned picture, while labels are of the picture as it is '
                    'stored. Save such pictures upright and without the entry, and '
                    'detect again; or use --detector, which reads them as stored.'
                )

    def _class_list(self) -> list[str]:
        if self.classes is not None:
            return read_names(self.classes)
        named = self._named()
        if named is None:
            raise ValueError(
                f'{self.detections} has numbers for classes: give their names by '
                '--classes (one a line) or --instances.'
            )
        return [named[key] for key in sorted(named)]

    def _dumped(self) -> list[tuple[dict, list[Detection]]] | None:
        """MMDetection's pickle, which can only be read whole."""
        if self.detections is None or not self._is_pickle():
            return None
        return list(read_dumped_predictions(self.detections, self._class_list()))

    def _list_images(self, dumped: list | None) -> Iterable[Image]:
        listing = self._listing()
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

    def _detections(
        self, dumped: list | None
    ) -> Iterator[tuple[Any, Detection | None]]:
        path = self.detections
        assert path is not None
        if dumped is not None:
            entries: Iterable[tuple[Any, Detection | None]] = (
                (image['id'], item) for image, items in dumped for item in items
            )
        elif path.is_dir():
            ids = {name: i for i, name, *_ in self._list_images(None)}
            read = read_inferencer_predictions(path, self._class_list(), list(ids))
            entries = ((ids[name], item) for name, items in read for item in items)
        else:
            entries = read_coco_detections(path, self._categories(path))
        return iter(entries)

    def _measure(self, store: SceneStore, ranks: range) -> None:
        """Find out the sizes of images that no file tells."""
        missing = [
            (rank, name)
            for rank, _, name, width, height in store.images(ranks)
            if width is None or height is None
        ]
        if missing and self.images is None:
            raise ValueError(
                f'{self._listing()}: the image {missing[0][1]!r} and '
                f'{len(missing) - 1} more have no width and height: give the folder '
                'of the pictures by --images, they are read from there.'
            )
        folder = self.images or Path()
        store.set_sizes((rank, *picture_size(folder / name)) for rank, name in missing)


def _sha256(path: Path) -> str:
    if not path.is_dir():
        return file_sha256(path)
    digest = hashlib.sha256()
    for file in sorted(path.rglob('*.json')):
        digest.update(f'{file.relative_to(path)} {file_sha256(file)}\n'.encode())
    return digest.hexdigest()


def shard_range(count: int, shard: tuple[int, int]) -> range:
    """Which images, in the order of their ids, a shard is.

    Args:
        count (int): Of all images.
        shard (tuple[int, int]): Number of the shard, from 1, and of all shards.

    Returns:
        range: The shards of a run cover all images, without overlap, in order.
    """
    number, total = shard
    return range(count * (number - 1) // total, count * number // total)
