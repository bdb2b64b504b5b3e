"""Template labels: ``[attribute] class [cloth] [where]`` (Pseudo-Q's first source)."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .any_targets import absent_labels, plural_labels
from .cleaning import clean_detections, use_attribute
from .detection import (
    CheckedOptions,
    Detection,
    PseudoLabel,
    Scene,
    image_rng,
    intersection,
)
from .vocabulary import CLOTHES, PEOPLE, THINGS, Vocabulary

__all__ = [
    'PRESETS',
    'Describe',
    'TemplateOptions',
    'dress',
    'is_worn',
    'locations',
    'phrases',
    'template_labels',
]

Describe = Callable[[Scene, list[Detection]], list[Detection]]

# Objects and expressions an image. RefCOCO's are the official code's; it has none for
# the other data sets, whose numbers are ours. RefCOCO+'s expressions may not say where.
PRESETS: Mapping[str, Mapping[str, int | bool]] = {
    'refcoco': dict(objects=3, expressions=6),
    'refcoco+': dict(objects=3, expressions=12, use_location=False),
    'refcocog': dict(objects=2, expressions=4),
    'referit': dict(objects=6, expressions=15),
    'flickr30k': dict(objects=7, expressions=28),
}
_PREPOSITIONS = {
    'left': 'on the left',
    'right': 'on the right',
    **{word: f'in the {word}' for word in ('front', 'middle', 'center')},
    # The official code has "in the behind".
    'behind': 'in the back',
}


@dataclass(frozen=True)
class TemplateOptions(CheckedOptions):
    """The constants of the template source.

    Args:
        objects (int): Objects of an image that get labels. Defaults to 3,
            RefCOCO's official number.
        expressions (int): Most labels of an image. Defaults to 6, RefCOCO's
            official number.
        use_location (bool): Whether to say where. Defaults to True.
        min_area (float): Least area of a person or thing, as a share of the image's.
            Defaults to 1 / 64 (official).
        max_iou (float): IoU above which two boxes are one object. Defaults to 0.4
            (official).
        min_attribute_score (float): A less sure attribute is not said. Defaults to 0.3
            (official).
        attribute_iou (float): IoU above which another detector's attribute is copied.
            Defaults to 0.5 (official).
        min_inside (float): Share of a cloth that must be inside its wearer. Defaults
            to 0.75 (official).
        hat_above (float): A hat's centre must be higher than this share of its
            wearer's height. Defaults to 0.75 (official).
        pants_below (float): The centre of pants must be lower than this share of their
            wearer's height. Defaults to 0.5 (official).
        min_spread (float): Least distance of centres for words of place, as a share of
            the image's long side. Defaults to 50 / 640 (official, relative to its
            images).
        min_spread_pixels (float, optional): The same in pixels, instead. Defaults to
            None.
        behind (float): Objects below this share of the largest one's area are behind.
            Defaults to 0.4 (official).
        front (float): Of more than three, those above this share are in front. Defaults
            to 0.8 (official).
        unique (bool): Whether to leave out a text that fits several detections of the
            image ("person" where there are two). Defaults to False (official).
        plural (bool): Whether all detections of a class, and of an attribute and a
            class, get a label of several targets besides ("red cars"). Defaults to
            False.
        absent (int): Labels of an image without a target besides: names of classes of
            which nothing was detected. Defaults to 0.
        seed (int): Of the choice among expressions. Defaults to 0.
    """

    objects: int = 3
    expressions: int = 6
    use_location: bool = True
    min_area: float = 1 / 64
    max_iou: float = 0.4
    min_attribute_score: float = 0.3
    attribute_iou: float = 0.5
    min_inside: float = 0.75
    hat_above: float = 0.75
    pants_below: float = 0.5
    min_spread: float = 50 / 640
    min_spread_pixels: float | None = None
    behind: float = 0.4
    front: float = 0.8
    unique: bool = False
    plural: bool = False
    absent: int = 0
    seed: int = 0


def is_worn(
    slot: str,
    cloth: Detection,
    person: Detection,
    min_inside: float = 0.75,
    hat_above: float = 0.75,
    pants_below: float = 0.5,
) -> bool:
    """Whether a person wears a piece of clothing.

    Args:
        slot (str): 'hat', 'shirt', 'pants' or 'shoes'.
        cloth (Detection): The piece.
        person (Detection): The person.
        min_inside (float): More than this share of the cloth must be inside the
            person. Defaults to 0.75 (official).
        hat_above (float): A hat's centre must be higher than this share of the
            person's height, from below. Defaults to 0.75 (official).
        pants_below (float): The centre of pants must be lower than this. Defaults to
            0.5 (official).

    Returns:
        bool: Yes if so.
    """
    if intersection(cloth.box, person.box) <= min_inside * cloth.area:
        return False
    height = (person.box[3] - cloth.center[1]) / (person.box[3] - person.box[1])
    if slot == 'hat':
        return height > hat_above
    return height < pants_below if slot == 'pants' else True


def dress(
    people: Sequence[Detection],
    clothes: Mapping[str, Sequence[Detection]],
    *limits: float,
) -> list[list[Detection]]:
    """What each person wears.

    Args:
        people (Sequence[Detection]): N people.
        clothes (Mapping[str, Sequence[Detection]]): Pieces of each slot.
        limits (float): As in :func:`is_worn`, in its order.

    Returns:
        list[list[Detection]]: N lists of pieces, slot by slot, the surest first.
    """
    return [
        [
            item
            for slot in CLOTHES
            for item in sorted(clothes.get(slot, ()), key=lambda item: -item.score)
            if is_worn(slot, item, person, *limits)
        ]
        for person in people
    ]


def locations(
    detections: Sequence[Detection],
    width: int,
    height: int,
    min_spread: float = 50 / 640,
    min_spread_pixels: float | None = None,
    behind: float = 0.4,
    front: float = 0.8,
) -> list[list[str]]:
    """Words of place for each object of one class.

    Only along x is there a middle, as in the official code: the middle of a column is
    often the left or right extreme. The official code divides the height's quarters by
    the width; that is mended here.

    Args:
        detections (Sequence[Detection]): N objects of one class.
        width (int): Of the image, in pixels.
        height (int): Of the image, in pixels.
        min_spread (float): How far the centres must be apart before left and right,
            top and bottom mean something, as a share of the long side. Defaults to
            50 / 640: the official code's 50 pixels, which were meant for 640.
        min_spread_pixels (float, optional): The same in pixels, instead. Defaults to
            None.
        behind (float): An area below this share of the largest is behind. Defaults
            to 0.4 (official).
        front (float): An area above this share of the largest is in front, where
            there are more than three. Defaults to 0.8 (official).

    Returns:
        list[list[str]]: N lists of 'left', 'right', 'top', 'bottom', 'middle',
        'center', 'front', 'behind'; empty for a single object.
    """
    if len(detections) < 2:
        return [[] for _ in detections]
    spread = min_spread * max(width, height)
    if min_spread_pixels is not None:
        spread = min_spread_pixels
    words: list[dict[str, None]] = [{} for _ in detections]
    across, down = zip(*(item.center for item in detections), strict=True)
    _along(across, width, spread, ('left', 'right'), ('middle', 'center'), words)
    _along(down, height, spread, ('top', 'bottom'), (), words)
    _depth([item.area for item in detections], behind, front, words)
    return [list(places) for places in words]


def _along(
    centers: Sequence[float],
    side: int,
    spread: float,
    names: tuple[str, str],
    inner: Sequence[str],
    words: list[dict[str, None]],
) -> None:
    """Add the words of one axis: extremes, the third of three, or quarters.

    What is between the extremes is ``inner``, if that has words.
    """
    if max(centers) - min(centers) <= spread:
        return
    first = min(range(len(centers)), key=centers.__getitem__)
    last = max(range(len(centers)), key=centers.__getitem__)
    words[first][names[0]] = None
    words[last][names[1]] = None
    others = [i for i in range(len(centers)) if i not in (first, last)]
    third = len(centers) == 3 and bool(inner)
    for index in others:
        if not third and centers[index] < side / 4:
            words[index][names[0]] = None
        elif not third and centers[index] > 3 * side / 4:
            words[index][names[1]] = None
        else:
            words[index].update(dict.fromkeys(inner))


def _depth(
    areas: Sequence[float], behind: float, front: float, words: list[dict[str, None]]
) -> None:
    """Add 'behind' and 'front', by size."""
    largest = max(range(len(areas)), key=areas.__getitem__)
    smallest = min(range(len(areas)), key=areas.__getitem__)
    if areas[smallest] >= behind * areas[largest]:
        return
    words[smallest]['behind'] = None
    words[largest]['front'] = None
    if len(areas) > 3:
        for index, area in enumerate(areas):
            if area < behind * areas[largest]:
                words[index]['behind'] = None
            elif area > front * areas[largest]:
                words[index]['front'] = None


def phrases(
    noun: str, where: Sequence[str], clothes: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """All ways to say it.

    Args:
        noun (str): n, "[attribute ]class".
        where (Sequence[str]): Each s, a word of place.
        clothes (Sequence[str]): Each c, "[attribute ]cloth".

    Yields:
        tuple[str, str]: The template, such as 'n on the s', and the text.
    """
    yield 'n', noun
    for place in where:
        yield 'n s', f'{noun} {place}'
        yield 's n', f'{place} {noun}'
        if place in _PREPOSITIONS:
            phrase = _PREPOSITIONS[place]
            yield _rule('n {}', phrase), f'{noun} {phrase}'
    for cloth in clothes:
        yield 'n c', f'{noun} {cloth}'
        yield 'c n', f'{cloth} {noun}'
        for place in where:
            yield from (
                ('n c s', f'{noun} {cloth} {place}'),
                ('n s c', f'{noun} {place} {cloth}'),
                ('c n s', f'{cloth} {noun} {place}'),
                ('c s n', f'{cloth} {place} {noun}'),
                ('s n c', f'{place} {noun} {cloth}'),
                ('s c n', f'{place} {cloth} {noun}'),
            )
            if place in _PREPOSITIONS:
                phrase = _PREPOSITIONS[place]
                # The three orders in which the place comes after the noun.
                yield _rule('n c {}', phrase), f'{noun} {cloth} {phrase}'
                yield _rule('c n {}', phrase), f'{cloth} {noun} {phrase}'
                yield _rule('n {} c', phrase), f'{noun} {phrase} {cloth}'


def _rule(pattern: str, phrase: str) -> str:
    return pattern.format(f'{phrase.split()[0]} the s')


def template_labels(
    scene: Scene,
    vocabulary: Vocabulary,
    options: TemplateOptions | None = None,
    describe: Describe | None = None,
    dropped: Counter | None = None,
) -> list[PseudoLabel]:
    """Make the template labels of an image.

    Args:
        scene (Scene): The image and its detections.
        vocabulary (Vocabulary): Groups of classes.
        options (TemplateOptions, optional): Defaults to None: all defaults.
        describe (Callable, optional): Gives the detections that are left after
            cleaning their attributes. Defaults to None: those of their file.
        dropped (Counter, optional): Gets the number that each rule left out.

    Returns:
        list[PseudoLabel]: At most ``options.expressions`` of one target; then those of
        several, and of none, if the options say so.
    """
    options = options or TemplateOptions()
    dropped = Counter() if dropped is None else dropped
    labels = _single_labels(scene, vocabulary, options, describe, dropped)
    # Drawn apart, so that the labels of one target do not depend on the others.
    rng = image_rng(options.seed + 1, scene.image_id)
    if options.plural:
        limits = 0.0, options.max_iou
        everything = clean_detections(scene, vocabulary, *limits, Counter())
        named = _named(scene, everything, options, describe)
        labels += plural_labels(named, vocabulary, rng, dropped)
    if options.absent:
        labels += absent_labels(scene, vocabulary, options.absent, rng, dropped)
    return labels


def _single_labels(
    scene: Scene,
    vocabulary: Vocabulary,
    options: TemplateOptions,
    describe: Describe | None,
    dropped: Counter,
) -> list[PseudoLabel]:
    """The labels of one target of an image."""
    cleaned = clean_detections(
        scene, vocabulary, options.min_area, options.max_iou, dropped
    )
    cleaned = _named(scene, cleaned, options, describe)
    by_object = _candidates(scene, cleaned, options)
    if options.unique:
        fits = Counter(label.text for labels in by_object for label in labels)
        for labels in by_object:
            clear = [label for label in labels if fits[label.text] == 1]
            dropped['text of several objects'] += len(labels) - len(clear)
            labels[:] = clear
    dropped['beyond the first objects'] += max(0, len(by_object) - options.objects)
    pool = [label for labels in by_object[: options.objects] for label in labels]
    if len(pool) <= options.expressions:
        return pool
    dropped['text not drawn'] += len(pool) - options.expressions
    rng = image_rng(options.seed, scene.image_id)
    chosen = rng.choice(len(pool), options.expressions, replace=False)
    return [pool[index] for index in sorted(chosen.tolist())]


def _named(
    scene: Scene,
    cleaned: Mapping[str, Sequence[Detection]],
    options: TemplateOptions,
    describe: Describe | None,
) -> dict[str, list[Detection]]:
    """The groups with every object called as it shall be said."""
    everything = [item for group in cleaned.values() for item in group]
    if describe is not None and everything:
        everything = describe(scene, everything)
    named = iter([use_attribute(d, options.min_attribute_score) for d in everything])
    return {group: [next(named) for _ in items] for group, items in cleaned.items()}


def _candidates(
    scene: Scene, cleaned: Mapping[str, Sequence[Detection]], options: TemplateOptions
) -> list[list[PseudoLabel]]:
    """All labels of each object: people first, each group by confidence."""
    people, things = (list(cleaned.get(group, ())) for group in (PEOPLE, THINGS))
    worn = dress(
        people,
        {s: cleaned.get(s, ()) for s in CLOTHES},
        options.min_inside,
        options.hat_above,
        options.pants_below,
    )
    targets = [*people, *things]
    clothes = [*worn, *([] for _ in things)]
    where: list[list[str]] = [[] for _ in targets]
    if options.use_location:
        by_class: dict[str, list[int]] = {}
        for index, item in enumerate(targets):
            by_class.setdefault(item.name, []).append(index)
        for indices in by_class.values():
            places = locations(
                [targets[index] for index in indices],
                scene.width,
                scene.height,
                options.min_spread,
                options.min_spread_pixels,
                options.behind,
                options.front,
            )
            for index, words in zip(indices, places, strict=True):
                where[index] = words
    order = sorted(
        range(len(targets)), key=lambda i: (i >= len(people), -targets[i].score)
    )
    return [_labels(targets[i], where[i], clothes[i]) for i in order]


def _labels(
    target: Detection, where: Sequence[str], clothes: Sequence[Detection]
) -> list[PseudoLabel]:
    """The labels of one object, each text once."""
    labels: dict[str, PseudoLabel] = {}
    for rule, text in phrases(target.phrase, where, [c.phrase for c in clothes]):
        worn = clothes if 'c' in rule.split() else ()
        words = {
            'attribute': bool(target.attribute)
            or any(c.attribute and c.phrase in text for c in worn),
            'where': 's' in rule.split(),
            'cloth': 'c' in rule.split(),
        }
        labels.setdefault(
            text,
            PseudoLabel(
                text,
                target.box,
                rule,
                entities=1 + words['cloth'],
                score=target.score,
                words=frozenset(word for word, present in words.items() if present),
            ),
        )
    return list(labels.values())
