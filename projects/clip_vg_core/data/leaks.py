"""Images of training labels that are validation or test images of another data set.

RefCOCOg (google) trains on images that RefCOCO and RefCOCO+ test on: a model that is
trained on all three has seen their test images.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

import numpy as np

from .label_table import LabelTable

__all__ = ['describe_leaks', 'image_key', 'leaking_labels']

# 'COCO_train2014_000000581857_16' of 2014, a ref of it, or '000000581857' of 2017.
_COCO = re.compile(r'(?:coco_(?:train|val|test)\d{4}_)?(\d{12})(?:_\d+)?')
_NAMED = 3


def image_key(name: str) -> str:
    """What an image is called in all sets: its COCO number, or its name without suffix.

    Args:
        name (str): A file name, with folders or without. Folders count where there is
            no COCO number: ``train/1.jpg`` and ``val/1.jpg`` are two images.
    """
    path = PurePosixPath(name.replace('\\', '/').lower())
    match = _COCO.fullmatch(path.stem)
    if match is None:
        return str(path.with_suffix('')) if path.name else str(path)
    return f'coco {int(match[1])}'


def leaking_labels(training: LabelTable, held_out: Iterable[LabelTable]) -> np.ndarray:
    """Labels whose image is an image of held-out labels.

    Args:
        training (LabelTable): N labels to train on.
        held_out (Iterable[LabelTable]): Labels to validate and to test on.

    Returns:
        np.ndarray: int64, indices into ``training``, ascending.
    """
    keys = {
        image_key(table.images[index])
        for table in held_out
        for index in np.unique(table.image_index)
    }
    leaks = np.fromiter(
        (image_key(name) in keys for name in training.images),
        bool,
        len(training.images),
    )
    return np.flatnonzero(leaks[training.image_index])


def describe_leaks(
    training: LabelTable, leaking: np.ndarray, held_out: Sequence[str]
) -> str:
    """How many labels leak, of which images, and which files hold these out.

    Args:
        training (LabelTable): The labels.
        leaking (np.ndarray): Of :func:`leaking_labels`, at least one.
        held_out (Sequence[str]): Names of the held-out files.
    """
    images = np.unique(training.image_index[leaking])
    named = ', '.join(training.images[index] for index in images[:_NAMED])
    return (
        f'{len(leaking):,} of {len(training):,} training labels are of {len(images):,} '
        f'images that are held out by {", ".join(held_out)}: {named}'
        f'{", ..." if len(images) > _NAMED else ""}'
    )
