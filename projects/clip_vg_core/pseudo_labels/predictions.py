"""Reading what MMDetection predicted, and lists of images."""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.readers.common import entry_of, read_json, required
from ..utils.image_files import has_exif_rotation, open_image, size_of
from ..utils.safe_torch import load_dump
from .detection import Detection
from .entries import make_detection

__all__ = [
    'is_turned',
    'list_images',
    'read_image_size',
    'read_dumped_predictions',
    'read_inferencer_predictions',
]

# What photographs are stored in; PIL reads some of them with a plugin only.
_PHOTOGRAPHS = (
    *('.avif', '.bmp', '.gif', '.heic', '.heif', '.jfif', '.jp2', '.jpe', '.jpeg'),
    *('.jpg', '.jxl', '.png', '.ppm', '.tif', '.tiff', '.webp'),
)
_log = logging.getLogger(__name__)


def list_images(folder: Path) -> list[str]:
    """The images in a folder and those below it, as sorted relative names.

    Files of suffixes that this Pillow does not read are counted in the log.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: There is no image in it.
    """
    readable = _readable()
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder}: no such folder of images.')
    found, seen = [], set()
    others: Counter = Counter()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        for name in names:
            if name.startswith('.') or not os.path.isfile(Path(root, name)):
                continue
            suffix = Path(name).suffix.lower()
            if suffix in readable:
                found.append(os.path.relpath(Path(root, name), folder))
            else:
                others[suffix or '(no suffix)'] += 1
    found.sort()
    left_out = ', '.join(f'{number:,} {suffix}' for suffix, number in others.items())
    if not found:
        raise ValueError(
            f'{folder} has no images ({", ".join(sorted(readable))})'
            + (f'; it has {left_out}.' if others else '.')
        )
    if others:
        _log.warning(
            '%s: %s files are left out (%s); images are %s.',
            *(folder, f'{sum(others.values()):,}', left_out),
            ', '.join(sorted(readable)),
        )
    return found


def _readable() -> set[str]:
    """The suffixes of photographs that this Pillow reads."""
    known = Image.registered_extensions()
    return {s for s in _PHOTOGRAPHS if known.get(s) in Image.OPEN}


def read_image_size(path: Path, upright: bool = False) -> tuple[int, int]:
    """(width, height) from the head of an image.

    Args:
        path (Path): The file.
        upright (bool): Whether it is turned by its EXIF entry. Defaults to False.

    Raises:
        ValueError: It is no image.
    """
    try:
        with open_image(path) as image:
            return size_of(image, upright)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'{path}: no such image; is --images the folder that the file names '
            'start from?'
        ) from error
    except (OSError, ValueError) as error:
        raise ValueError(f'{path} cannot be read as an image: {error}.') from error


def is_turned(path: Path) -> bool:
    """Whether an image's EXIF entry has viewers, and MMDetection, turn it."""
    with open_image(path) as image:
        return has_exif_rotation(image)


def _detections(found: dict, classes: Sequence[str], where: str) -> Iterator[Detection]:
    """The detections of one image, from its labels, scores and bboxes."""
    entry_of(found, dict, where, 'labels, scores and bboxes')
    try:
        labels, scores, boxes = (
            np.asarray(required(found, key, where)).reshape(shape)
            for key, shape in (('labels', -1), ('scores', -1), ('bboxes', (-1, 4)))
        )
        labels = labels.astype(np.int64, casting='same_kind')
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f'{where}: labels, scores and bboxes are no arrays of whole numbers, '
            f'numbers, and boxes: {error}.'
        ) from error
    if not len(labels) == len(scores) == len(boxes):
        raise ValueError(
            f'{where}: {len(labels)} labels, {len(scores)} scores and {len(boxes)} '
            'boxes; expected as many of each.'
        )
    for number, (label, score, box) in enumerate(
        zip(labels.tolist(), scores.tolist(), boxes.tolist(), strict=True), 1
    ):
        at = f'{where}, detection {number}'
        if not 0 <= label < len(classes):
            raise ValueError(
                f'{at}: label {label}, but there are {len(classes)} classes: give the '
                "detector's own list (--classes)."
            )
        yield make_detection(classes[label], box, score, {}, at)


def read_dumped_predictions(
    path: Path, classes: Sequence[str]
) -> Iterator[tuple[dict, list[Detection]]]:
    """What ``DumpDetResults`` wrote.

    Args:
        path (Path): A pickle, read by :func:`load_dump`.
        classes (Sequence[str]): Names of the labels.

    Yields:
        tuple[dict, list[Detection]]: ``id``, ``file_name`` (the path that the detector
        read), ``width``, ``height``; and the detections.

    Raises:
        UnsafePickleError: The file asks for anything but arrays and tensors.
        ValueError: An entry is damaged; it says which.
    """
    samples = entry_of(load_dump(path), (list, tuple), str(path), 'a list')
    for number, sample in enumerate(samples, 1):
        where = f'{path}, image {number}'
        entry_of(sample, dict, where, 'a dict of an image')
        found = required(sample, 'pred_instances', where)
        name = str(required(sample, 'img_path', where))
        try:
            height, width = map(int, required(sample, 'ori_shape', where)[:2])
        except (TypeError, ValueError) as error:
            raise ValueError(
                f'{where}: ori_shape is {sample["ori_shape"]!r}; expected (H, W).'
            ) from error
        number = sample.get('img_id', name)
        if isinstance(number, np.integer):
            number = int(number)
        if not isinstance(number, (int, str)) or min(width, height) < 1:
            raise ValueError(
                f'{where}: img_id {number!r} and ori_shape {(height, width)}; expected '
                'a whole number or a string, and whole pixels.'
            )
        image = dict(id=number, file_name=name, width=width, height=height)
        yield image, list(_detections(found, classes, where))


def read_inferencer_predictions(
    folder: Path, classes: Sequence[str], images: Sequence[str]
) -> Iterator[tuple[str, list[Detection]]]:
    """What ``DetInferencer(out_dir=...)`` wrote: a JSON for each image.

    Args:
        folder (Path): With the JSON files, or their ``out_dir``.
        classes (Sequence[str]): Names of the labels.
        images (Sequence[str]): File names of the images.

    Yields:
        tuple[str, list[Detection]]: File name of the image, and its detections.

    Raises:
        ValueError: A file fits no image or several, or is damaged.
    """
    folder = folder / 'preds' if (folder / 'preds').is_dir() else folder
    by_stem: dict[str, list[str]] = {}
    for name in images:
        by_stem.setdefault(Path(name).stem, []).append(name)
    files = sorted(folder.glob('*.json'))
    if not files:
        raise ValueError(
            f'{folder} has no JSON files: expected what '
            'DetInferencer(out_dir=..., no_save_pred=False) writes.'
        )
    for path in files:
        fitting = by_stem.get(path.stem, [])
        if len(fitting) != 1:
            raise ValueError(
                f'{path}: {len(fitting)} images are called {path.stem!r} {fitting}; '
                "expected one. DetInferencer's files do not say which image they "
                'belong to: give the folder of the images (--images), or use a COCO '
                'result file.'
            )
        entry = entry_of(read_json(path), dict, str(path), 'a JSON object')
        yield fitting[0], list(_detections(entry, classes, str(path)))
