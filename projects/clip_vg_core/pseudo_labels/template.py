"""Template labels: ``[attribute] class [cloth] [where]`` (Pseudo-Q's first source)."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .attributes import use_attribute
from .cleaning import clean_detections
from .clothes import dress
from .detection import Detection, PseudoLabel, Scene, image_rng
from .location import locations
from .options import CheckedOptions
from .vocabulary import CLOTHES, PEOPLE, THINGS, Vocabulary

__all__ = ['PRESETS', 'Describe', 'TemplateOptions', 'phrases', 'template_labels']

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
    **{word: f'in the {word}' for word in ('front', 'behind', 'middle', 'center')},
}


@dataclass(frozen=True)
class TemplateOptions(CheckedOptions):
    """The constants of the template source.

    Args:
        objects (int): Objects of an image that get labels. Defaults to 3 (RefCOCO, as
            released).
        expressions (int): Most labels of an image. Defaults to 6 (RefCOCO, as
            released).
        use_location (bool): Whether to say where. Defaults to True.
        min_area (float): Least area of a person or thing, as a share of the image's.
            Defaults to 1 / 64 (as released).
        max_iou (float): IoU above which two boxes are one object. Defaults to 0.4 (as
            released).
        min_attribute_score (float): A less sure attribute is not said. Defaults to 0.3
            (as released).
        attribute_iou (float): IoU above which another detector's attribute is copied.
            Defaults to 0.5 (as released).
        min_inside (float): Share of a cloth that must be inside its wearer. Defaults
            to 0.75 (as released).
        hat_above (float): A hat's centre must be higher than this share of its
            wearer's height. Defaults to 0.75 (as released).
        pants_below (float): The centre of pants must be lower than this share of their
            wearer's height. Defaults to 0.5 (as released).
        min_spread (float): Least distance of centres for words of place, as a share of
            the image's long side. Defaults to 50 / 640 (as released, relative to its
            images).
        min_spread_pixels (float, optional): The same in pixels, instead. Defaults to
            None.
        behind (float): Objects below this share of the largest one's area are behind.
            Defaults to 0.4 (as released).
        front (float): Of more than three, those above this share are in front. Defaults
            to 0.8 (as released).
        unique (bool): Whether to leave out a text that fits several detections of the
            image ("person" where there are two). Defaults to False (as released).
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
    seed: int = 0


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
            said = _PREPOSITIONS[place]
            yield _rule('n {}', said), f'{noun} {said}'
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
                said = _PREPOSITIONS[place]
                # The three orders in which the place comes after the noun.
                yield _rule('n c {}', said), f'{noun} {cloth} {said}'
                yield _rule('c n {}', said), f'{cloth} {noun} {said}'
                yield _rule('n {} c', said), f'{noun} {said} {cloth}'


def _rule(pattern: str, said: str) -> str:
    return pattern.format(f'{said.split()[0]} the s')


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
        list[PseudoLabel]: At most ``options.expressions``.
    """
    options = options or TemplateOptions()
    dropped = Counter() if dropped is None else dropped
    kept = clean_detections(
        scene, vocabulary, options.min_area, options.max_iou, dropped
    )
    kept = _named(scene, kept, options, describe)
    found = _candidates(scene, kept, options)
    if options.unique:
        fits = Counter(label.text for labels in found for label in labels)
        for labels in found:
            clear = [label for label in labels if fits[label.text] == 1]
            dropped['text of several objects'] += len(labels) - len(clear)
            labels[:] = clear
    dropped['beyond the first objects'] += max(0, len(found) - options.objects)
    pool = [label for labels in found[: options.objects] for label in labels]
    if len(pool) <= options.expressions:
        return pool
    dropped['text not drawn'] += len(pool) - options.expressions
    rng = image_rng(options.seed, scene.image_id)
    chosen = rng.choice(len(pool), options.expressions, replace=False)
    return [pool[index] for index in sorted(chosen.tolist())]


def _named(
    scene: Scene,
    kept: Mapping[str, Sequence[Detection]],
    options: TemplateOptions,
    describe: Describe | None,
) -> dict[str, list[Detection]]:
    """The groups with every object called as it shall be said."""
    everything = [item for group in kept.values() for item in group]
    if describe is not None and everything:
        everything = describe(scene, everything)
    said = iter([use_attribute(d, options.min_attribute_score) for d in everything])
    return {group: [next(said) for _ in items] for group, items in kept.items()}


def _candidates(
    scene: Scene, kept: Mapping[str, Sequence[Detection]], options: TemplateOptions
) -> list[list[PseudoLabel]]:
    """All labels of each object: people first, each group by confidence."""
    people, things = (list(kept.get(group, ())) for group in (PEOPLE, THINGS))
    worn = dress(
        people,
        {s: kept.get(s, ()) for s in CLOTHES},
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
            found = locations(
                [targets[index] for index in indices],
                scene.width,
                scene.height,
                options.min_spread,
                options.min_spread_pixels,
                options.behind,
                options.front,
            )
            for index, words in zip(indices, found, strict=True):
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
                words=frozenset(word for word, said in words.items() if said),
            ),
        )
    return list(labels.values())
