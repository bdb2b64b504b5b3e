"""Caption labels: a whole caption, with the box of what it is about."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .cleaning import clean_detections
from .detection import CheckedOptions, Detection, PseudoLabel, Scene
from .vocabulary import Vocabulary, is_english

__all__ = [
    'PARSER',
    'CaptionOptions',
    'ParsedCaption',
    'caption_labels',
    'load_parser',
    'named_by',
    'parse_with',
]

PARSER = 'en_core_web_sm'  # of spaCy, which is an optional extra

_LONGEST = 3  # words of a synonym
_LONGEST_CAPTION = 10_000  # letters; a parser's memory grows with them


@dataclass(frozen=True)
class ParsedCaption:
    """A caption as a parser sees it.

    Args:
        words (tuple[str, ...]): Its tokens, lower case.
        lemmas (tuple[str, ...]): Their base forms, lower case.
        subject (int): Which token is the head noun of what the caption is about.
        entities (int): How many things it names.
    """

    words: tuple[str, ...]
    lemmas: tuple[str, ...]
    subject: int
    entities: int


@dataclass(frozen=True)
class CaptionOptions(CheckedOptions):
    """The constants of the caption source.

    Args:
        captions_per_image (int): Captions of an image that are used, 0 for all.
            Defaults to 1 (official).
        expressions (int): Most labels of an image. Defaults to 6 (official).
        keep_ambiguous (bool): Whether a caption whose subject may be several boxes
            gives a label for each (official), or none. Defaults to True.
        min_area (float): Least area of an object, as a share of the image's.
            Defaults to 1 / 64, as for templates.
        max_iou (float): IoU above which two boxes are one object. Defaults to 0.4, as
            for templates.
    """

    captions_per_image: int = 1
    expressions: int = 6
    keep_ambiguous: bool = True
    min_area: float = 1 / 64
    max_iou: float = 0.4


def _forms(parsed: ParsedCaption, length: int) -> set[str]:
    """The runs of so many words around the subject's head, in all their forms."""
    forms = set()
    for start in range(parsed.subject - length + 1, parsed.subject + 1):
        part = slice(start, start + length)
        if start < 0 or len(parsed.words[part]) < length:
            continue
        words, lemmas = parsed.words[part], parsed.lemmas[part]
        forms |= {
            ' '.join(words),
            ' '.join(lemmas),
            ' '.join((*words[:-1], lemmas[-1])),
        }
    return forms


def named_by(
    parsed: ParsedCaption, names: Sequence[str], vocabulary: Vocabulary
) -> set[str]:
    """The classes that a caption's subject can mean.

    Args:
        parsed (ParsedCaption): The caption.
        names (Sequence[str]): Class names, of one or several words.
        vocabulary (Vocabulary): Synonyms.

    Returns:
        set[str]: The names, or synonyms of the names, of most words: "traffic light"
        before "light".
    """
    spoken = {name: name.replace('-', ' ') for name in names}
    longest = max([_LONGEST, *(len(name.split()) for name in spoken.values())])
    for length in range(longest, 0, -1):
        forms = _forms(parsed, length)
        meant = {
            name
            for name, phrase in spoken.items()
            if any(vocabulary.same(phrase, form) for form in forms)
        }
        if meant:
            return meant
    return set()


def caption_labels(
    scene: Scene,
    vocabulary: Vocabulary,
    parse: Callable[[str], ParsedCaption | None],
    options: CaptionOptions | None = None,
    dropped: Counter | None = None,
) -> list[PseudoLabel]:
    """Make the caption labels of an image.

    Args:
        scene (Scene): The image, its detections and captions.
        vocabulary (Vocabulary): Groups of classes and synonyms.
        parse (Callable): Finds the subject of a caption; None where there is none.
        options (CaptionOptions, optional): Defaults to None: all defaults.
        dropped (Counter, optional): Gets the number that each rule left out.

    Returns:
        list[PseudoLabel]: At most ``options.expressions``.
    """
    options = options or CaptionOptions()
    dropped = Counter() if dropped is None else dropped
    cleaned = clean_detections(
        scene, vocabulary, options.min_area, options.max_iou, dropped
    )
    detections = [item for group in cleaned.values() for item in group]
    captions = [' '.join(text.split()) for text in scene.captions]
    if most := options.captions_per_image:
        dropped['further captions'] += max(0, len(captions) - most)
        captions = captions[:most]
    labels: list[PseudoLabel] = []
    for text in captions:
        labels += _of_caption(text, detections, vocabulary, parse, options, dropped)
    dropped['beyond the first labels'] += max(0, len(labels) - options.expressions)
    return labels[: options.expressions]


def _of_caption(
    text: str,
    detections: Sequence[Detection],
    vocabulary: Vocabulary,
    parse: Callable[[str], ParsedCaption | None],
    options: CaptionOptions,
    dropped: Counter,
) -> list[PseudoLabel]:
    if not text:
        dropped['empty caption'] += 1
        return []
    if len(text) > _LONGEST_CAPTION:
        dropped['caption too long'] += 1
        return []
    if not is_english(text):
        dropped['caption not English'] += 1
        return []
    parsed = parse(text)
    if parsed is None:
        dropped['caption without a subject'] += 1
        return []
    names = named_by(parsed, [item.name for item in detections], vocabulary)
    meant = [item for item in detections if item.name in names]
    if not meant:
        dropped['subject not detected'] += 1
        return []
    if len(meant) > 1 and not options.keep_ambiguous:
        dropped['ambiguous caption'] += 1
        return []
    rule = 'one box' if len(meant) == 1 else 'several boxes'
    return [
        PseudoLabel(
            text,
            item.box,
            rule,
            entities=parsed.entities,
            score=item.score,
            words=frozenset({'caption'}),
        )
        for item in sorted(meant, key=lambda item: -item.score)
    ]


def load_parser(model: str = PARSER) -> Callable[[str], ParsedCaption | None]:
    """A parser of English captions.

    Args:
        model (str): Name of a spaCy pipeline, or its folder. Defaults to
            'en_core_web_sm'.

    Returns:
        Callable: As :func:`parse_with` needs no more than a text.

    Raises:
        ModuleNotFoundError: spaCy or its model is missing; it says how to get it.
    """
    try:
        import spacy
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'Captions are parsed by spaCy, which is not installed: '
            "pip install -e '.[captions]' (or pip install spacy), then "
            f'python -m spacy download {PARSER}.'
        ) from error
    try:
        pipeline = spacy.load(model, exclude=['ner'])
    except OSError as error:
        raise ModuleNotFoundError(
            f'The spaCy model {model!r} is not installed: python -m spacy download '
            f'{PARSER}; or give another one (--parser), by its name or its folder.'
        ) from error
    return lambda text: parse_with(pipeline, text)


def parse_with(pipeline: Any, text: str) -> ParsedCaption | None:
    """Find what a caption is about.

    The noun chunk of the root ("two beds in a room"), else of the first of its
    children that has one ("a boy is holding pictures"), else the first one.

    Args:
        pipeline (Any): A spaCy pipeline with tagger, parser and lemmatiser.
        text (str): One caption.

    Returns:
        ParsedCaption: Or None where there is no noun, or the subject is a pronoun.
    """
    # Capitals make names of nouns ("A Large Dog"), which have no plural to take off.
    parsed = pipeline(text.lower())
    chunks = {chunk.root.i for chunk in parsed.noun_chunks}
    if not chunks:
        return None
    root = next(parsed.sents).root
    heads = [root.i, *(child.i for child in root.children), min(chunks)]
    subject = next(head for head in heads if head in chunks)
    if parsed[subject].pos_ not in ('NOUN', 'PROPN'):
        return None  # "he is riding a horse": not the horse
    # Hyphens are tokens of their own to spaCy ("t-shirt"), but no words.
    words = [token for token in parsed if token.text != '-']
    return ParsedCaption(
        tuple(token.text for token in words),
        tuple(token.lemma_.lower() for token in words),
        next(i for i, token in enumerate(words) if token.i == subject),
        sum(parsed[head].pos_ in ('NOUN', 'PROPN') for head in chunks),
    )
