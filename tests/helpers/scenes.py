"""Objects and scenes that the tests of the rules share."""

from dataclasses import replace

import numpy as np

from projects.clip_vg_core.pseudo_labels.detection import Detection, Scene
from projects.clip_vg_core.pseudo_labels.vocabulary import Vocabulary

VOCABULARY = Vocabulary.load()
SIZE = (640, 480)


def at(x, y, name='dog', size=(80, 80), **more):
    """A detection by its centre and size."""
    width, height = size
    box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return Detection(name, box, **more)


def scene(*detections, image_id=1, size=SIZE, **more):
    return Scene(image_id, f'{image_id}.jpg', *size, detections=detections, **more)


def scattered(seed, names, count=12, size=SIZE):
    """Random detections of at least 1 / 64 of the image, no two equally sure."""
    rng = np.random.default_rng(seed)
    scores = rng.permutation(np.linspace(0.3, 0.99, count))
    found = []
    for score in scores.tolist():
        width, height = (rng.uniform(0.13, 0.4, 2) * size).tolist()
        x, y = rng.uniform((width / 2, height / 2), np.array(size) - (width, height))
        name = str(rng.choice(names))
        found.append(at(float(x), float(y), name, (width, height), score=score))
    return found


def shuffled(items, seed):
    return [items[i] for i in np.random.default_rng(seed).permutation(len(items))]


def scaled(item, factor):
    return replace(item, box=tuple(edge * factor for edge in item.box))
