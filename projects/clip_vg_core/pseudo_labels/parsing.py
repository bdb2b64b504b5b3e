"""Parsing of captions by spaCy, which is an optional extra."""

from collections.abc import Callable
from typing import Any

from .caption import ParsedCaption

__all__ = ['MODEL', 'load_parser', 'parse_with']

MODEL = 'en_core_web_sm'


def load_parser(model: str = MODEL) -> Callable[[str], ParsedCaption | None]:
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
            f'python -m spacy download {MODEL}.'
        ) from error
    try:
        pipeline = spacy.load(model, exclude=['ner'])
    except OSError as error:
        raise ModuleNotFoundError(
            f'The spaCy model {model!r} is not installed: python -m spacy download '
            f'{MODEL}; or give another one (--parser), by its name or its folder.'
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
