"""Sizes of published sets of referring expressions, and which of them a file is."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ['PUBLISHED', 'Match', 'PublishedSet', 'match_published']

# A file of a known name that has this share of a split was meant to have all of it.
_NEARLY = 0.9


@dataclass(frozen=True)
class PublishedSet:
    """A published set and how many expressions its splits have.

    Args:
        name (str): With the way it was split.
        pattern (str): A regular expression that names of its files match.
        splits (dict[str, int]): Expressions of each split.
        config (str): The file in configs/ that trains on it.
        shares_images (bool): Whether it was split by objects, so that training and
            validation share images as published. Defaults to False.
    """

    name: str
    pattern: str
    splits: dict[str, int]
    config: str
    shares_images: bool = False


@dataclass(frozen=True)
class Match:
    """What a file has of a published set.

    Args:
        name (str): Of the set.
        complete (tuple[str, ...]): Splits that have the published number.
        others (dict[str, tuple[int, int]]): Of other splits that the file has, its
            number and the published one.
        absent (tuple[str, ...]): Splits that the file does not have.
        shares_images (bool): As of :class:`PublishedSet`.
    """

    name: str
    complete: tuple[str, ...]
    others: dict[str, tuple[int, int]]
    absent: tuple[str, ...]
    shares_images: bool

    @property
    def damaged(self) -> dict[str, tuple[int, int]]:
        """Of ``others``, the splits that nearly have the published number."""
        return {
            split: (count, known)
            for split, (count, known) in self.others.items()
            if _NEARLY * known <= count
        }


# RefCOCO last, as its name begins those of others.
PUBLISHED = (
    # Not counted here: numbers that papers give, of which the sums are checked (both
    # ways to split RefCOCOg have 95,010 expressions); 427,193 was counted in TransVG's
    # list by readers of QRNet's code.
    PublishedSet(
        'RefCOCOg (umd)',
        r'umd',
        dict(train=80_512, val=4_896, test=9_602),
        'clip_vg_refcocog_umd.py',
    ),
    PublishedSet(
        'RefCOCOg (google)',
        r'google|(?<![a-z])gref(?![a-z_])|gref_(train|val)',
        dict(train=85_474, val=9_536),
        'clip_vg_refcocog_google.py',
        # Split by objects: the catalogue of TensorFlow Datasets, ref_coco.
        shares_images=True,
    ),
    PublishedSet(
        'ReferItGame',
        r'referit|refclef',
        dict(train=54_127, val=5_842, test=60_103),
        'clip_vg_referit.py',
    ),
    PublishedSet(
        'Flickr30k Entities',
        r'flickr',
        dict(train=427_193, val=14_433, test=14_481),
        'clip_vg_flickr30k.py',
    ),
    # Counted in the annotations themselves.
    PublishedSet(
        'RefCOCO+ (unc)',
        r'refcoco(\+|_?plus)|(?<![a-z(])unc\+',
        dict(train=120_191, val=10_758, testA=5_726, testB=4_889),
        'clip_vg_refcoco_plus.py',
    ),
    PublishedSet(
        'RefCOCO (unc)',
        r'(?<!g)refcoco(?!\+|g|_?plus|_?g)|(?<![a-z(])unc(?!\+)',
        dict(train=120_624, val=10_834, testA=5_657, testB=5_095),
        'clip_vg_refcoco.py',
    ),
)


def match_published(counts: Mapping[str, int], names: str) -> Match | None:
    """The published set that labels are of.

    Args:
        counts (Mapping[str, int]): Expressions of each split.
        names (str): Of the folder and the files, which tell it where no number does.

    Returns:
        Match or None: None where neither numbers nor names say one.
    """
    fitting = {
        known.name: sum(counts.get(s) == n for s, n in known.splits.items())
        for known in PUBLISHED
    }
    best = max(PUBLISHED, key=lambda known: fitting[known.name])
    if not fitting[best.name]:
        named = [k for k in PUBLISHED if re.search(k.pattern, names.lower())]
        named = [k for k in named if k.splits.keys() & counts.keys()]
        if not named:
            return None
        best = named[0]
    return Match(
        best.name,
        tuple(s for s, n in best.splits.items() if counts.get(s) == n),
        {
            s: (counts[s], n)
            for s, n in best.splits.items()
            if s in counts and counts[s] != n
        },
        tuple(s for s in best.splits if s not in counts),
        best.shares_images,
    )
