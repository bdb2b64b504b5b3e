"""Reading the inputs of a run into its store: what is known, what is left out."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from .detection import Detection
from .entries import read_captions, read_coco_detections, read_triplets
from .inputs import InputFiles
from .predictions import is_turned, picture_size
from .store import SceneStore, UnknownImageError

__all__ = ['WriteCaptions', 'fill_store', 'shard_range']

WriteCaptions = Callable[[list[int | str], list[str]], Path]


def fill_store(
    store: SceneStore,
    inputs: InputFiles,
    shard: tuple[int, int] = (1, 1),
    write_captions: WriteCaptions | None = None,
) -> None:
    """Read everything.

    Args:
        store (SceneStore): Gets it.
        inputs (InputFiles): Where it is.
        shard (tuple[int, int]): Number of this part, from 1, and of all. Defaults to
            (1, 1).
        write_captions (Callable, optional): Writes COCO caption results for the
            pictures of some ids and file names, and gives their path. Defaults to
            None: those of ``inputs`` are read.

    Raises:
        ValueError: An entry is damaged, or of an unknown image or category.
    """
    dumped = inputs.dumped()
    try:
        store.add_images(inputs.list_images(dumped))
    except ValueError as error:
        if str(inputs.origin()) in str(error):
            raise
        raise ValueError(f'{inputs.origin()}: {error}') from error
    ranks = shard_range(len(store), shard)
    store.keep(ranks)
    _measure(store, inputs, ranks)
    known = _Known(store, inputs, shard)
    if inputs.detections is not None:
        _check_turned(store, inputs, ranks)
        found = inputs.read_detections(dumped)
        store.add_detections(known(inputs.detections, found, inputs.min_score))
    if inputs.attributes is not None:
        named = inputs.categories_of(inputs.attributes)
        found = read_coco_detections(inputs.attributes, named)
        store.add_detections(known(inputs.attributes, found), described=True)
    captions = inputs.captions
    if write_captions is not None:
        listed = list(store.images(ranks))
        captions = write_captions([i[1] for i in listed], [i[2] for i in listed])
    if captions is not None:
        store.add_captions(known(captions, read_captions(captions)))
    if inputs.triplets is not None:
        edges = read_triplets(inputs.triplets, inputs.named())
        store.add_triplets(known(inputs.triplets, edges))
    store.count(known.left_out)


class _Known:
    """Passes on what belongs to the images of a shard, and counts the rest."""

    def __init__(
        self, store: SceneStore, inputs: InputFiles, shard: tuple[int, int]
    ) -> None:
        self.store, self.inputs, self.shard = store, inputs, shard
        self.left_out: Counter = Counter()

    def __call__(
        self, path: Path, entries: Iterable, min_score: float = 0.0
    ) -> Iterator[Any]:
        """The entries of a file, as (image id, item), that shall be stored."""
        for number, (image_id, item) in enumerate(entries, 1):
            try:
                mine = self.store.is_kept(self.store.rank_of(image_id))
            except UnknownImageError as error:
                if not self.inputs.ignore_unknown_images:
                    raise ValueError(
                        f'{path}, entry {number}: {error} of {self.inputs.origin()}. '
                        'Give the instances file of these images, or say '
                        '--ignore-unknown-images to leave such entries out.'
                    ) from None
                # Every shard meets them; the first counts them.
                self.left_out['left out: unknown image'] += self.shard[0] == 1
                continue
            if item is None:
                self.left_out['left out: crowd'] += mine
            elif isinstance(item, Detection) and item.score < min_score:
                self.left_out['left out: below --min-score'] += mine
            elif mine:
                yield image_id, item


def _measure(store: SceneStore, inputs: InputFiles, ranks: range) -> None:
    """Find out the sizes of images that no file tells."""
    missing = [
        (rank, name)
        for rank, _, name, width, height in store.images(ranks)
        if width is None or height is None
    ]
    if not missing:
        return
    if inputs.images is None:
        raise ValueError(
            f'{inputs.listing()}: the image {missing[0][1]!r} and {len(missing) - 1} '
            'more have no width and height: give the folder of the pictures by '
            '--images, they are read from there.'
        )
    folder = inputs.images
    upright = inputs.is_upright()
    store.set_sizes(
        (rank, *picture_size(folder / name, upright)) for rank, name in missing
    )


def _check_turned(store: SceneStore, inputs: InputFiles, ranks: range) -> None:
    """MMDetection turns pictures by their EXIF entry, and its boxes with them."""
    path = inputs.detections
    if inputs.images is None or path is None or inputs.is_upright():
        return
    if not path.is_dir() and not inputs.is_pickle():
        return
    for _, _, name, *_ in store.images(ranks):
        picture = inputs.images / name
        if picture.is_file() and is_turned(picture):
            raise ValueError(
                f'{picture} is turned by its EXIF entry: the boxes in {path} are of '
                'the turned picture, while labels are of the picture as it is stored. '
                'Make labels of upright pictures by --upright, for which data sets '
                'have `upright=True`; or save such pictures upright and without the '
                'entry, and detect again; or use --detector, which reads them as '
                'stored.'
            )


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
