"""Which kinds of words an expression has: of place, of colour, of relation, ..."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from ..pseudo_labels.vocabulary import Vocabulary

__all__ = ['WordCategories', 'load_categories', 'words_of']

_FILE = Path(__file__).parent / 'data' / 'word_categories.json'
_WORD = re.compile(r"\w+(?:'\w+)*")
_ARTICLES = frozenset(('the', 'a', 'an'))


def words_of(text: str) -> list[str]:
    """The words of an expression, in lower case, without punctuation."""
    return _WORD.findall(text.lower().replace('’', "'"))


@cache
def load_categories() -> 'WordCategories':
    """Our lists; those of 'person' are the pseudo-labels'."""
    lists = json.loads(_FILE.read_text(encoding='utf-8'))
    return WordCategories(dict(lists, person=Vocabulary.load().groups['people']))


class WordCategories:
    """Tells by lists of words what kinds of words an expression has.

    At each place the longest entry counts, and its words count for nothing else: "in
    front of" is a relation, where "front" alone is a place. Articles are passed over.

    Args:
        lists (Mapping[str, Sequence[str]]): Words or phrases of each category, in
            lower case; an entry may be in several.
    """

    def __init__(self, lists: Mapping[str, Sequence[str]]) -> None:
        self.names = tuple(lists)
        self._known: dict[tuple[str, ...], frozenset[str]] = {}
        for category, entries in lists.items():
            for entry in entries:
                key = tuple(_without_articles(entry))
                self._known[key] = self._known.get(key, frozenset()) | {category}
        self._longest = max(map(len, self._known), default=0)

    def __call__(self, text: str) -> frozenset[str]:
        """The categories of an expression."""
        words = _without_articles(text)
        named: frozenset[str] = frozenset()
        start = 0
        while start < len(words):
            for stop in range(min(len(words), start + self._longest), start, -1):
                categories = self._known.get(tuple(words[start:stop]))
                if categories:
                    named |= categories
                    break
            start = stop  # without an entry, one word on
        return named


def _without_articles(text: str) -> list[str]:
    return [word for word in words_of(text) if word not in _ARTICLES]
