"""Inputs of a generator: which files, and the scenes of a shard that are in them."""

import hashlib
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from ..utils.atomic import file_sha256
from ..utils.shards import Shard, shard_range
from .detection import Detection, GivenText, Scene
from .entries import OTHER, CocoFile, ListedImage, read_names
from .predictions import (
    is_turned,
    list_images,
    read_dumped_predictions,
    read_image_size,
    read_inferencer_predictions,
)
from .texts import read_texts

__all__ = [
    'UPRIGHT_MARK',
    'InputFiles',
    'WriteCaptions',
    'read_scenes',
]

# Writes COCO caption results for the images of some ids and file names.
WriteCaptions = Callable[[list[int | str], list[str]], Path]
# In the place of the entries of an image that is not listed.
_UNKNOWN: dict[str, list] = {}
# Begins the detections that ``--detector`` wrote of upright images.
UPRIGHT_MARK = b'{"info": {"upright": true}, '


@dataclass
class InputFiles:
    """The inputs of a run.

    Args:
        detections (Path, optional): COCO results or annotations (``.json``), what
            ``DumpDetResults`` wrote (``.pkl``), or the folder that ``DetInferencer``
            wrote. Defaults to None.
        instances (Path, optional): COCO file with ``images`` and ``categories``.
            Defaults to None: the detections, if they have both; else the images.
        images (Path, optional): Folder of the images. Defaults to None.
        classes (Path, optional): Names of a detector's labels, one a line or a JSON
            list. Defaults to None: the categories of ``instances``, in order.
        attributes (Path, optional): Further detections, used for their attributes
            alone; as ``detections``, of COCO's kind. Defaults to None.
        captions (Path, optional): COCO caption results. Defaults to None.
        triplets (Path, optional): Scene graphs. Defaults to None.
        texts (Path, optional): Texts without boxes, see :func:`read_texts`. Defaults to
            None.
        texts_split_file (Path, optional): REFER's refs of the texts. Defaults to None.
        text_fields (Mapping[str, str]): Columns of the texts, if they are rows.
            Defaults to none: by the usual names.
        ignore_boxes (bool): Whether boxes of the texts are not read. Defaults to False.
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
    texts: Path | None = None
    texts_split_file: Path | None = None
    text_fields: Mapping[str, Any] = field(default_factory=dict)
    ignore_boxes: bool = False
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
        fingerprint: dict[str, Any] = {}
        for key in (
            'detections',
            'instances',
            'classes',
            'attributes',
            'captions',
            'triplets',
            'texts',
            'texts_split_file',
        ):
            path = getattr(self, key)
            if path is None:
                continue
            if not path.exists():
                flag = key.replace('texts_', '').replace('_', '-')
                raise FileNotFoundError(f'--{flag} {path}: no such file.')
            fingerprint[key] = dict(name=path.name, sha256=_sha256(path))
        fingerprint['min_score'] = self.min_score
        fingerprint['ignore_unknown_images'] = self.ignore_unknown_images
        fingerprint['upright'] = self.is_upright()
        if self.texts is not None:
            fingerprint['text_fields'] = dict(self.text_fields)
            fingerprint['ignore_boxes'] = self.ignore_boxes
        return fingerprint

    def origin(self) -> Path | None:
        """File or folder that lists the images."""
        return self.listing() or self.images or self.detections

    def listing(self) -> Path | None:
        """The COCO file that has the images."""
        if self.instances is not None:
            return self.instances
        path = self.detections
        if path is not None and path.is_file() and not self.is_pickle():
            return path if _is_object(path) else None
        return None

    def is_pickle(self) -> bool:
        """Whether the detections are MMDetection's pickle."""
        path = self.detections
        return path is not None and path.suffix.lower() in ('.pkl', '.pickle')


def _is_object(path: Path) -> bool:
    """Whether a JSON file is an object, as COCO's annotations are, told by its head."""
    with path.open('rb') as file:
        return file.read(1 << 16).removeprefix(BOM_UTF8).lstrip().startswith(b'{')


def _sha256(path: Path) -> str:
    if not path.is_dir():
        return file_sha256(path)
    digest = hashlib.sha256()
    for file in sorted(path.rglob('*.json')):
        digest.update(f'{file.relative_to(path)} {file_sha256(file)}\n'.encode())
    return digest.hexdigest()


def read_scenes(
    inputs: InputFiles,
    shard: Shard = (1, 1),
    write_captions: WriteCaptions | None = None,
    batch_size: int = 1,
) -> tuple[list[Scene], Counter]:
    """Read what is known of the images of a shard.

    Args:
        inputs (InputFiles): The files.
        shard (tuple[int, int]): Number of the shard, from 1, and of all shards.
            Defaults to (1, 1).
        write_captions (Callable, optional): Writes COCO caption results for the images
            of some ids and file names, and returns their path. Defaults to None: those
            of ``inputs`` are read.
        batch_size (int): Images that stay together in a shard. Defaults to 1.

    Returns:
        tuple[list[Scene], Counter]: The scenes by image id, numbers before names; and
        how many entries were left out, 'left out: <reason>'.

    Raises:
        ValueError: An entry is damaged, or of an unknown image or category.
    """
    reader = _Reader(inputs, shard, batch_size)
    if inputs.detections is not None:
        _check_turned(inputs, [image[1] for image in reader.images])
        reader.add('detections', inputs.detections, reader.detections())
    if inputs.attributes is not None:
        file = reader.load(inputs.attributes)
        entries = file.detections(reader.categories_of(inputs.attributes))
        reader.add('described', inputs.attributes, entries)
    captions = inputs.captions
    if write_captions is not None:
        ids, names = [i[0] for i in reader.images], [i[1] for i in reader.images]
        captions = write_captions(ids, names)
    if captions is not None:
        reader.add('captions', captions, reader.load(captions).captions())
    if inputs.triplets is not None:
        edges = reader.load(inputs.triplets).triplets(reader.categories())
        reader.add('triplets', inputs.triplets, edges)
    if inputs.texts is not None:
        reader.add('texts', inputs.texts, reader.texts(inputs.texts))
    return reader.scenes(), reader.left_out


class _Reader:
    """Reads the files of a generator, each once, and sorts their entries by image."""

    def __init__(self, inputs: InputFiles, shard: Shard, batch_size: int) -> None:
        self.inputs, self.first = inputs, shard[0] == 1
        self._files: dict[Path, CocoFile] = {}
        self.has_others = shard[1] > 1
        self.dumped = None
        if inputs.is_pickle() and inputs.detections is not None:
            self.dumped = list(
                read_dumped_predictions(inputs.detections, self._class_list())
            )
        self.listed = self._listed()
        mine = shard_range(len(self.listed), shard, batch_size)
        self.images = _with_sizes(self.listed[mine.start : mine.stop], inputs)
        # Entries of each image of the shard; None for those of other shards.
        self.entries: dict[int | str, dict[str, list] | None] = dict.fromkeys(
            image[0] for image in self.listed
        )
        self.entries.update((image[0], {}) for image in self.images)
        self.left_out: Counter = Counter()
        # Detections of each image, of any score: what numbers of regions count.
        self.regions: Counter = Counter()

    def load(self, path: Path) -> CocoFile:
        """A file, read once; of what other shards label, only the images are kept."""
        if path not in self._files:
            is_whole = path == self.inputs.listing() or not self.has_others
            self._files[path] = CocoFile(path, None if is_whole else self._is_other)
        return self._files[path]

    def _is_other(self, image_id: Any) -> bool:
        """Whether an image is listed, but not in this shard."""
        is_id = isinstance(image_id, (int, str))
        return is_id and self.entries.get(image_id, _UNKNOWN) is None

    def categories(self) -> dict[int, str] | None:
        """Of the file that lists the images."""
        listing = self.inputs.listing()
        return self.load(listing).categories() if listing is not None else None

    def categories_of(self, path: Path) -> dict[int, str]:
        """Of a file of detections: its own, else those of the instances."""
        if self.load(path).has('categories'):
            return self.load(path).categories()
        categories = self.categories()
        if categories is None:
            raise ValueError(
                f'{path} is a list of detections, which does not say what its images '
                'and categories are: give the COCO file with them by --instances.'
            )
        return categories

    def class_names(self) -> tuple[str, ...]:
        """All classes of the detections, in the order of their numbers."""
        path = self.inputs.detections
        if path is None:
            return ()
        if self.dumped is not None or path.is_dir():
            return tuple(self._class_list())
        categories = self.categories_of(path)
        return tuple(categories[number] for number in sorted(categories))

    def _class_list(self) -> list[str]:
        if self.inputs.classes is not None:
            return read_names(self.inputs.classes)
        categories = self.categories()
        if categories is None:
            raise ValueError(
                f'{self.inputs.detections} has numbers for classes: give their names '
                'by --classes (one a line) or --instances.'
            )
        return [categories[key] for key in sorted(categories)]

    def _listed(self) -> list[ListedImage]:
        """All images by their ids, each id and each file name once."""
        inputs, listing = self.inputs, self.inputs.listing()
        if listing is not None:
            images = list(self.load(listing).images())
        elif self.dumped is not None:
            images = [
                (i['id'], self._relative(i['file_name']), i['width'], i['height'])
                for i, _ in self.dumped
            ]
        elif inputs.images is not None:
            images = [(name, name, None, None) for name in list_images(inputs.images)]
        else:
            raise ValueError(
                'Which images? Give a COCO file by --instances, or their folder by '
                '--images.'
            )
        for column, what in enumerate(('id', 'file name')):
            # 1 and "1" would give labels of one name.
            counted = Counter(str(image[column]) for image in images)
            for name, times in counted.most_common(1):
                if times > 1:
                    raise ValueError(
                        f'{inputs.origin()}: the image {what} {name!r} is listed '
                        'twice; it must be unique.'
                    )
        # Numbers by their value, then names.
        return sorted(images, key=lambda image: (isinstance(image[0], str), image[0]))

    def _relative(self, name: str) -> str:
        """An image's name from the folder of images, as the labels have it."""
        if self.inputs.images is not None:
            folder = self.inputs.images.resolve()
            for path in (Path(name).resolve(), self.inputs.images / name):
                if path.resolve().is_relative_to(folder) and path.is_file():
                    return str(path.resolve().relative_to(folder))
        return Path(name).name

    def detections(self) -> Iterable[tuple[int | str, Detection | None]]:
        """Image id and detection, in the order of the file."""
        path = self.inputs.detections
        assert path is not None
        if self.dumped is not None:
            return ((image['id'], d) for image, items in self.dumped for d in items)
        if path.is_dir():
            ids = {name: i for i, name, *_ in self.listed}
            read = read_inferencer_predictions(path, self._class_list(), list(ids))
            return ((ids[name], d) for name, items in read for d in items)
        return self.load(path).detections(self.categories_of(path))

    def texts(self, path: Path) -> Iterator[tuple[int | str, GivenText]]:
        """Image id and text, in the order of the file."""
        inputs = self.inputs
        ids = {name: number for number, name, *_ in self.listed}
        # Texts may name images without their folder, where that is clear.
        bare: dict[str, list[int | str]] = {}
        for name, number in ids.items():
            bare.setdefault(PurePath(name).name, []).append(number)
        entries = read_texts(
            path, inputs.texts_split_file, inputs.text_fields, inputs.ignore_boxes
        )
        for where, image, text in entries:
            own = [image] if image in self.entries else bare.get(str(image), [])
            image_id = ids.get(str(image), own[0] if len(own) == 1 else None)
            if image_id is None:
                self._leave_out_unknown(where, image)
                continue
            if (
                text.region is not None
                and self.entries[image_id] is not None
                and text.region >= self.regions[image_id]
            ):
                raise ValueError(
                    f'{where}: region {text.region} of image {image!r}, which has '
                    f'{self.regions[image_id]} detections in {inputs.detections}; '
                    'expected the number of one of them, from 0.'
                )
            yield image_id, text

    def add(
        self, what: str, path: Path, entries: Iterable[tuple[int | str, Any]]
    ) -> None:
        """Sort the entries of a file by image; count those that are left out.

        Args:
            what (str): Of :class:`Scene`, what they are.
            path (Path): The file.
            entries (Iterable[tuple]): Image id, and item or None.
        """
        min_score = self.inputs.min_score if what == 'detections' else 0.0
        for number, (image_id, item) in enumerate(entries, 1):
            if image_id is OTHER:
                continue
            if image_id not in self.entries:
                self._leave_out_unknown(f'{path}, entry {number}', image_id)
                continue
            mine = self.entries[image_id]
            if what == 'detections' and self.inputs.texts is not None:
                if item is not None:
                    item = replace(item, region=self.regions[image_id])
                self.regions[image_id] += 1
            if item is None:
                self.left_out['left out: crowd'] += mine is not None
            elif isinstance(item, Detection) and item.score < min_score:
                self.left_out['left out: below --min-score'] += mine is not None
            elif mine is not None:
                mine.setdefault(what, []).append(item)

    def _leave_out_unknown(self, where: str, image_id: int | str) -> None:
        if not self.inputs.ignore_unknown_images:
            raise ValueError(
                f'{where}: image {image_id!r} is not among the '
                f'{len(self.entries):,} images of {self.inputs.origin()}. Give the '
                'instances file of these images, or say --ignore-unknown-images to '
                'leave such entries out.'
            )
        # Every shard meets them; the first counts them.
        self.left_out['left out: unknown image'] += self.first

    def scenes(self) -> list[Scene]:
        """The scenes of the shard, by image id."""
        scenes = []
        classes = self.class_names()
        for image in self.images:
            items: dict[str, Any] = self.entries[image[0]] or {}
            items = {what: tuple(values) for what, values in items.items()}
            scenes.append(Scene(*image, **items, classes=classes))
        return scenes


def _with_sizes(
    images: Sequence[ListedImage], inputs: InputFiles
) -> list[tuple[int | str, str, int, int]]:
    """The images with their sizes, read from the images where no file has them."""
    missing = [name for _, name, *size in images if None in size]
    if missing and inputs.images is None:
        raise ValueError(
            f'{inputs.listing()}: the image {missing[0]!r} and {len(missing) - 1} '
            'more have no width and height: give the folder of the images by '
            '--images, they are read from there.'
        )
    upright = bool(missing) and inputs.is_upright()
    sized = []
    for number, name, width, height in images:
        if width is None or height is None:
            assert inputs.images is not None
            width, height = read_image_size(inputs.images / name, upright)
        sized.append((number, name, width, height))
    return sized


def _check_turned(inputs: InputFiles, names: Iterable[str]) -> None:
    """MMDetection turns images by their EXIF entry, and its boxes with them."""
    path = inputs.detections
    if inputs.images is None or path is None or inputs.is_upright():
        return
    if not path.is_dir() and not inputs.is_pickle():
        return
    for name in names:
        image = inputs.images / name
        if image.is_file() and is_turned(image):
            raise ValueError(
                f'{image} is turned by its EXIF entry: the boxes in {path} are of '
                'the turned image, while labels are of the image as it is stored. '
                'Make labels of upright images by --upright, for which data sets '
                'have `upright=True`; or save such images upright and without the '
                'entry, and detect again; or use --detector, which reads them as '
                'stored.'
            )
