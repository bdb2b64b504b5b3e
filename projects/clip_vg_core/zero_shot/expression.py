"""Referring expressions, parsed by word lists: head phrase, place, size, relation."""

import re
from dataclasses import dataclass, replace

__all__ = ['ParsedExpression', 'parse_expression']

# Words of each place and size; only the whole word counts.
_PLACES = {
    'left': 'left leftmost leftest lft',
    'right': 'right rightmost rightest rt',
    'top': 'top topmost upper uppermost highest',
    'bottom': 'bottom bottommost lower lowermost lowest btm',
    'middle': 'middle center centre central mid',
    'front': 'front foreground closest nearest',
    'back': 'back background rear farthest furthest',
}
_SIZES = {
    'largest': 'largest larger large biggest bigger big huge',
    'smallest': 'smallest smaller small little tiniest tiny',
    'tallest': 'tallest taller tall',
    'shortest': 'shortest shorter short',
}
# Phrases of each relation, the longest first where one begins another.
_RELATIONS = {
    'left of': 'left of|left from',
    'right of': 'right of|right from',
    'in front of': 'in front of|front of',
    'behind': 'behind|in back of|back of',
    'above': 'above|over',
    'below': 'below|underneath|under|beneath',
    'on': 'on top of|on',
    'inside': 'inside of|inside|within',
    'between': 'in between|between',
    'next to': 'next to|close to|closest to|nearest to|beside|besides|near|by',
}
_RANKS = {
    **dict(first=1, second=2, third=3, fourth=4, fifth=5),
    **{'1st': 1, '2nd': 2, '3rd': 3, '4th': 4, '5th': 5},
}
# Say that something is meant, not what.
_GENERIC = frozenset(
    (
        *('object', 'objects', 'thing', 'things', 'one', 'ones', 'item', 'items'),
        *('shape', 'shapes', 'something', 'anything', 'another', 'other', 'others'),
        'some',
    )
)
_ARTICLES = frozenset(['the', 'a', 'an'])
_DANGLING = frozenset(('on', 'at', 'in', 'to', 'of', 'from', 'and', 'is', 'that'))
# What captions begin with.
_OPENING = re.compile(
    r'^(?:(?:an? |the )?(?:picture|photo|image)s? (?:of|with) |there (?:is|are) |'
    r'(?:you )?can see |you see )'
)
_IMAGE = r'(?:image|picture|photograph|photo|pic|screen|frame|scene)'
_OTHERS = re.compile(
    r'^(?:(?:of|than) )?(?:(?:all|every|any)(?:thing)? (?:the )?(?:else|others?\b.*)|'
    r'(?:the )?(?:two )?(?:others|rest)|(?:the )?other two)$'
)


def _alternatives(lists: dict[str, str], separator: str | None = None) -> str:
    words = [word for text in lists.values() for word in text.split(separator)]
    return '|'.join(sorted(map(re.escape, words), key=len, reverse=True))


def _meaning(lists: dict[str, str], separator: str | None = None) -> dict[str, str]:
    return {word: key for key, text in lists.items() for word in text.split(separator)}


_PLACE_OF, _SIZE_OF = _meaning(_PLACES), _meaning(_SIZES)
_RELATION_OF = _meaning(_RELATIONS, '|')
_OF_IMAGE = rf'(?: (?:of|in) (?:the |this )?{_IMAGE}\b)'
_PLACE = re.compile(
    r'(?:\b(?:on|at|in|to|from|toward|towards) )?(?:\b(?:the|far|very|most) )*'
    rf'\b({_alternatives(_PLACES)})\b'
    rf'(?: (?:most|side|hand|corner|part|edge|end)\b)*{_OF_IMAGE}?'
)
_SIZE = re.compile(rf'\b(?:the )?(?:most )?({_alternatives(_SIZES)})\b')
_RANK = re.compile(rf'\b({"|".join(_RANKS)})\b')
# "on the left side of": the same relation; "left of the picture" is a place.
_RELATION = re.compile(
    r'(?:\b(?:that is|is|directly|immediately|just) )?'
    r'(?:\b(?:to|on|at) )?(?:\bthe )?(?:\bfar )?'
    rf'\b({_alternatives(_RELATIONS, "|")})\b(?= \S)'
    rf'(?! (?:the |this )?{_IMAGE}\b)'
)
_TO_VIEWER = re.compile(
    r'\b(?:closest|nearest|close|closer|near) (?:to )?(?:the )?'
    r'(?:us|me|you|camera|viewer)\b'
)
_SIDE_OF = re.compile(r'\b(left|right) (?:hand )?side of\b')
# "on" before one of these is of a place.
_ON_A_PLACE = re.compile(
    rf'^on (?:the |far |very )*(?:{_alternatives(_PLACES)})\b'
    rf'(?! of (?!(?:the |this )?{_IMAGE}\b))'
)


# "Dog with a frisbee under it": what it is to has been named.
_PRONOUN = re.compile(r'^(?:it|him|her|them|itself|himself|herself)$')
# What is denied says little of where a thing is: "cup not on the table".
_NOT = r"\b(?:(?:is |are |that's )?not|isn't|aren't)"
_ENDS_WITH_NOT = re.compile(rf'{_NOT} ?$')
_NO_PLACE = re.compile(rf'{_NOT} {_PLACE.pattern}')
_TWO = re.compile(r'^(?:the |these |those )?(?:two|2|both(?: of)?)(?: the)? ')


@dataclass(frozen=True)
class ParsedExpression:
    """What an expression says of its referent.

    Args:
        head (str): Phrase that names it, without article, place and size ("man with
            a hat"); empty where anything is meant ("thing on the left").
        places (tuple[str, ...]): Some of 'left', 'right', 'top', 'bottom', 'middle',
            'front', 'back'. Defaults to ().
        size (str, optional): 'largest', 'smallest', 'tallest' or 'shortest'. Defaults
            to None.
        rank (int): Its number along the first place: 2 for "second from the left".
            Defaults to 1.
        relation (str, optional): Such as 'left of', to the anchor. Defaults to None.
        anchor (ParsedExpression, optional): What the relation is to. Defaults to
            None.
        other (ParsedExpression, optional): The second anchor of 'between', which is
            another object than the first. Defaults to None.
    """

    head: str
    places: tuple[str, ...] = ()
    size: str | None = None
    rank: int = 1
    relation: str | None = None
    anchor: 'ParsedExpression | None' = None
    other: 'ParsedExpression | None' = None

    @property
    def heads(self) -> tuple[str, ...]:
        """All phrases that a model must look for, each once; none is empty."""
        heads = [self.head] if self.head else []
        for anchor in (self.anchor, self.other):
            heads += anchor.heads if anchor else ()
        return tuple(dict.fromkeys(heads))

    @property
    def noun(self) -> str:
        """The head up to its first preposition or verb: "man" of "man with a hat"."""
        return re.split(r' (?:with|in|of|wearing|holding|who|that)\b', self.head)[0]


# What the first of several objects along a direction is.
_SUPERLATIVES = {
    **{'left of': 'left', 'right of': 'right', 'above': 'top', 'below': 'bottom'},
    **{'in front of': 'front', 'behind': 'back', 'between': 'middle'},
}


def parse_expression(text: str) -> ParsedExpression:
    """Parse a referring expression by word lists, without a model.

    Args:
        text (str): Such as "big dog left of the man on the right".

    Returns:
        ParsedExpression: Of the first relation the object is the anchor, which is
        parsed likewise; "above all others" is a place.
    """
    plain = re.sub(r"[^\w' ]+", ' ', text.lower().replace('’', "'"))
    plain = ' '.join(plain.replace('_', ' ').split())
    plain = _TO_VIEWER.sub('front', _OPENING.sub('', plain))
    return _parse(_SIDE_OF.sub(r'\1 of', plain))


def _parse(text: str) -> ParsedExpression:
    for match in _RELATION.finditer(text):
        if _ON_A_PLACE.match(text[match.start() :]):
            continue
        relation, rest = _RELATION_OF[match[1]], text[match.end() :].strip()
        if denied := _ENDS_WITH_NOT.search(text[: match.start()]):
            return _without_relation(text[: denied.start()])
        own = _without_relation(text[: match.start()])
        if _PRONOUN.match(rest):
            return own
        if not _OTHERS.match(rest):
            anchor, other = _anchors(relation, rest)
            return replace(own, relation=relation, anchor=anchor, other=other)
        if relation in _SUPERLATIVES:
            return replace(own, places=(*own.places, _SUPERLATIVES[relation]))
    return _without_relation(text)


def _anchors(
    relation: str, text: str
) -> tuple[ParsedExpression, ParsedExpression | None]:
    """What a relation is to: of "the man and the dog" both, of "two men" twice one."""
    if relation != 'between':
        return _parse(text), None
    # "black and white dog and the cat": an article begins another thing.
    parts = re.split(r' and (?=(?:the|an?) )', text, maxsplit=1)
    if len(parts) < 2:
        parts = text.split(' and ', 1)
    return _parse(_TWO.sub('', parts[0])), _parse(_TWO.sub('', parts[-1]))


def _without_relation(text: str) -> ParsedExpression:
    text = _NO_PLACE.sub(' ', text)
    places = tuple(dict.fromkeys(_PLACE_OF[m[1]] for m in _PLACE.finditer(text)))
    rest = _PLACE.sub(' ', text)
    size = _SIZE.search(rest)
    rest = _SIZE.sub(' ', rest)
    rank = _RANK.search(rest) if places else None
    if rank is not None:
        rest = _RANK.sub(' ', rest, count=1)
    words = re.sub(rf'{_OF_IMAGE}', ' ', rest).split()
    while words and words[0] in _ARTICLES | _DANGLING:
        words.pop(0)
    while words and words[-1] in _ARTICLES | _DANGLING:
        words.pop()
    head = '' if set(words) <= _GENERIC else ' '.join(words)
    return ParsedExpression(
        head,
        places,
        _SIZE_OF[size[1]] if size else None,
        _RANKS[rank[1]] if rank else 1,
    )
