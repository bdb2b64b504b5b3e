"""Scenes, which generators read, and labels, which they make."""

import hashlib
import math
from dataclasses import dataclass, field, fields

import numpy as np

__all__ = [
    'Box',
    'CheckedOptions',
    'Detection',
    'GivenText',
    'PseudoLabel',
    'Scene',
    'Triplet',
    'image_rng',
    'intersection',
    'iou',
]

Box = tuple[float, float, float, float]
_MAY_BE_ZERO = ('seed', 'captions_per_image', 'absent')
_MAY_PASS_ONE = ('min_spread_pixels',)


@dataclass(frozen=True)
class Detection:
    """One detected object.

    Args:
        name (str): Class name, lower case.
        box (tuple[float, float, float, float]): xyxy in pixels of the original image.
        score (float): Confidence in [0, 1]. Defaults to 1.
        attribute (str, optional): Its most likely attribute, such as a colour.
            Defaults to None.
        attribute_score (float): Confidence of that in [0, 1]. Defaults to 0.
        region (int, optional): Its number among the detections of its image, from 0,
            in the order of their file. Defaults to None: nothing refers to it.
    """

    name: str
    box: Box
    score: float = 1.0
    attribute: str | None = None
    attribute_score: float = 0.0
    region: int | None = None

    @property
    def area(self) -> float:
        """Of the box, in square pixels."""
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])

    @property
    def center(self) -> tuple[float, float]:
        """Of the box, (x, y) in pixels."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def phrase(self) -> str:
        """'[attribute ]class'."""
        return f'{self.attribute} {self.name}' if self.attribute else self.name


@dataclass(frozen=True)
class Triplet:
    """One edge of a scene graph.

    Args:
        subject (Detection): Whose box a label gets.
        predicate (str): Such as 'holding'.
        object (Detection): What it is related to.
        score (float): Confidence of the predicate in [0, 1]. Defaults to 1.
    """

    subject: Detection
    predicate: str
    object: Detection
    score: float = 1.0


@dataclass(frozen=True)
class GivenText:
    """An expression or caption that somebody wrote about an image.

    Args:
        text (str): As it is in its file.
        box (tuple[float, float, float, float], optional): xyxy in pixels, where the
            file has the box it is about. Defaults to None.
        region (int, optional): :attr:`Detection.region` of what it is about. Defaults
            to None: not said.
        negative (bool): Whether it has no referent in the image. Defaults to False.
    """

    text: str
    box: Box | None = None
    region: int | None = None
    negative: bool = False


@dataclass(frozen=True)
class Scene:
    """One image and what models predicted on it.

    Args:
        image_id (int or str): Names it in ``sample_id`` and seeds what is random.
        file_name (str): Of the image, relative to the folder of the images.
        width (int): In pixels.
        height (int): In pixels.
        detections (tuple[Detection, ...]): In the order of their file.
        captions (tuple[str, ...]): In the order of their file.
        triplets (tuple[Triplet, ...]): In the order of their file.
        described (tuple[Detection, ...]): Of a second detector, used for their
            attributes alone; in the order of their file.
        texts (tuple[GivenText, ...]): In the order of their file.
        classes (tuple[str, ...]): All that the detector knows; the same for every
            image. Defaults to (): not known.
    """

    image_id: int | str
    file_name: str
    width: int
    height: int
    detections: tuple[Detection, ...] = ()
    captions: tuple[str, ...] = ()
    triplets: tuple[Triplet, ...] = ()
    described: tuple[Detection, ...] = ()
    texts: tuple[GivenText, ...] = ()
    classes: tuple[str, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True)
class PseudoLabel:
    """One expression and the box, or boxes, that it is taken to mean.

    Args:
        text (str): The expression.
        box (tuple[float, float, float, float], optional): xyxy in pixels of the
            original image; None for an expression that has no referent.
        rule (str): Which rule made it.
        entities (int): How many things the expression names.
        score (float): Confidence of what it was made from.
        words (frozenset[str]): Which kinds of words it has: 'attribute', 'where',
            'cloth', 'relation'.
        others (tuple[Box, ...]): Further boxes that it means as well. Defaults to ():
            none.
    """

    text: str
    box: Box | None
    rule: str
    entities: int = 1
    score: float = 1.0
    words: frozenset[str] = field(default_factory=frozenset)
    others: tuple[Box, ...] = ()

    @property
    def boxes(self) -> tuple[Box, ...]:
        """All target boxes."""
        return () if self.box is None else (self.box, *self.others)


def iou(one: Box, other: Box) -> float:
    """Intersection over union of two xyxy boxes."""
    shared = intersection(one, other)
    if not shared:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def intersection(one: Box, other: Box) -> float:
    """Area that two xyxy boxes share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0


def image_rng(seed: int, image_id: int | str) -> np.random.Generator:
    """A generator that depends on nothing but the seed and the image.

    Args:
        seed (int): Of the whole run.
        image_id (int or str): Of the image.

    Returns:
        np.random.Generator: The same in any order, shard or process.
    """
    digest = hashlib.blake2b(str(image_id).encode(), digest_size=8).digest()
    return np.random.default_rng([seed, int.from_bytes(digest, 'little')])


class CheckedOptions:
    """A dataclass of constants: counts from 1, and shares and scores in [0, 1]."""

    def __post_init__(self) -> None:
        for constant in fields(self):  # type: ignore[arg-type]
            value = getattr(self, constant.name)
            if value is None or isinstance(value, bool):
                continue
            if isinstance(value, int) and not isinstance(constant.default, float):
                least, most = int(constant.name not in _MAY_BE_ZERO), math.inf
            else:
                least, most = 0, math.inf if constant.name in _MAY_PASS_ONE else 1
            if not least <= value <= most:  # nor is nan
                raise ValueError(
                    f'{constant.name}={value}: expected a number of at least {least}'
                    + (f' and at most {most}.' if most < math.inf else '.')
                )
