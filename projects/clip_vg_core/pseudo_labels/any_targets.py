"""Labels of several detections of a class, and of classes that are not there."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from .detection import Detection, PseudoLabel, Scene
from .plural import plural_of
from .vocabulary import PEOPLE, THINGS, Vocabulary

__all__ = ['absent_labels', 'plural_labels']


def plural_labels(
    cleaned: Mapping[str, Sequence[Detection]],
    vocabulary: Vocabulary,
    rng: np.random.Generator,
    dropped: Counter,
) -> list[PseudoLabel]:
    """Labels of all detections of a class, and of an attribute and a class.

    A plural means all there are, so a class is left out where another name can mean the
    same, and an attribute where not all of the class have one.

    Args:
        cleaned (Mapping[str, Sequence[Detection]]): Of ``clean_detections``, small ones
            included, called as they shall be said.
        vocabulary (Vocabulary): Which words mean the same.
        rng (np.random.Generator): Chooses among phrasings.
        dropped (Counter): Gets what each rule leaves out.

    Returns:
        list[PseudoLabel]: Of two targets or more each.
    """
    by_name: dict[str, list[Detection]] = {}
    for group in (PEOPLE, THINGS):
        for item in cleaned.get(group, ()):
            by_name.setdefault(item.name, []).append(item)
    labels = []
    for name, items in by_name.items():
        if len(items) > 1 and _has_another_name(name, by_name, vocabulary):
            dropped['plural of a class with another name'] += 1
            continue
        attributes = Counter(item.attribute for item in items)
        groups = [(name, items)]
        if None in attributes:
            dropped['plural of an attribute that some lack'] += len(attributes) > 1
        elif len(attributes) > 1:
            groups += [
                (f'{attribute} {name}', [i for i in items if i.attribute == attribute])
                for attribute in attributes
            ]
        for noun, members in groups:
            if len(members) > 1:
                labels.append(_plural(noun, members, rng))
    return labels


def _has_another_name(
    name: str, others: Mapping[str, Sequence[Detection]], vocabulary: Vocabulary
) -> bool:
    """Whether other objects of the image can be called by the same noun."""
    noun = name.rsplit(' ', 1)[-1]
    # Of people, "man" and "person" may be one; of things, the last words tell.
    is_person = vocabulary.group_of(name) == PEOPLE
    return any(
        other != name
        and (
            vocabulary.same(name, other)
            or other.rsplit(' ', 1)[-1] == noun
            or (is_person and vocabulary.group_of(other) == PEOPLE)
        )
        for other in others
    )


def _plural(
    noun: str, members: Sequence[Detection], rng: np.random.Generator
) -> PseudoLabel:
    words = ('', 'all ', 'both ') if len(members) == 2 else ('', 'all ')
    word = str(rng.choice(words))
    return PseudoLabel(
        f'{word}{plural_of(noun)}',
        members[0].box,
        f'{word}ns',
        score=min(item.score for item in members),
        words=frozenset(
            {'attribute'} if members[0].phrase == noun != members[0].name else ()
        ),
        others=tuple(item.box for item in members[1:]),
    )


def absent_labels(
    scene: Scene,
    vocabulary: Vocabulary,
    count: int,
    rng: np.random.Generator,
    dropped: Counter,
) -> list[PseudoLabel]:
    """Labels without a target: classes of which nothing was detected, however unsure.

    Half of them have an attribute that something else in the image has.

    Args:
        scene (Scene): With ``classes``, all that the detector knows.
        vocabulary (Vocabulary): Which words mean the same.
        count (int): How many to make, if there are as many classes.
        rng (np.random.Generator): Draws classes and phrasings.
        dropped (Counter): Gets what each rule leaves out.

    Returns:
        list[PseudoLabel]: Labels whose ``box`` is None, of different classes.
    """
    detected = {item.name: [item] for item in scene.detections}
    candidates = []
    for name in scene.classes:
        if name in detected or name in vocabulary.background:
            continue
        if _has_another_name(name, detected, vocabulary):
            dropped['absent class that may be another'] += 1
        else:
            candidates.append(name)
    attributes = sorted({i.attribute for i in scene.detections if i.attribute})
    labels = []
    for index in rng.permutation(len(candidates))[:count]:
        noun, rule, words = candidates[index], 'absent n', frozenset[str]()
        if attributes and rng.random() < 0.5:
            noun = f'{rng.choice(attributes)} {noun}'
            words = frozenset({'attribute'})
        if rng.random() < 0.5:
            noun, rule = plural_of(noun), 'absent ns'
        labels.append(PseudoLabel(noun, None, rule, words=words))
    return labels
