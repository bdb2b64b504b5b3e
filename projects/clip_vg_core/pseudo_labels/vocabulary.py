"""Lists of words that the rules go by; all are data files, all can be replaced."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    'CLOTHES',
    'OFFICIAL_GROUPS',
    'PEOPLE',
    'THINGS',
    'Vocabulary',
    'is_english',
]

DATA = Path(__file__).parent / 'data'
# Pseudo-Q's groups (github.com/LeapLabTHU/Pseudo-Q, data/statistic), each class in the
# first of people, hat, shirt, pants, shoes that lists it, as its code looks them up.
# 'things' has what would fall into another group by its last word, which that code does
# not look at.
OFFICIAL_GROUPS = DATA / 'class_groups_official.json'
PEOPLE, THINGS = 'people', 'things'
CLOTHES = ('hat', 'shirt', 'pants', 'shoes')


def is_english(text: str) -> bool:
    """Whether a text could be English: it has letters, and all are ASCII.

    What is foreign in an English text ("café") loses its accent in lower-casing for
    CLIP anyway, so one accented letter in five is let pass.
    """
    letters = [letter for letter in text if letter.isalpha()]
    foreign = sum(not letter.isascii() for letter in letters)
    return bool(letters) and foreign <= len(letters) / 5


@dataclass(frozen=True)
class Vocabulary:
    """Which class belongs to which group, and which words mean the same.

    Args:
        groups (Mapping[str, Sequence[str]]): 'people', the slots of clothes 'hat',
            'shirt', 'pants', 'shoes', and 'things' for what would fall into another
            by its last word ("bottle cap").
        synonyms (Mapping[str, Sequence[str]]): A word and what it may be called.
        background (Sequence[str]): Classes and predicates that say "nothing".
        attributes (Sequence[str]): Words that CLIP chooses among for a crop.
    """

    groups: Mapping[str, Sequence[str]]
    synonyms: Mapping[str, Sequence[str]]
    background: Sequence[str]
    attributes: Sequence[str]

    def __post_init__(self) -> None:
        known = {PEOPLE, THINGS, *CLOTHES}
        if set(self.groups) - known:
            raise ValueError(
                f'groups of classes {sorted(set(self.groups) - known)}: unknown; '
                f'expected some of {sorted(known)}.'
            )
        by_name = {
            name: group for group, names in self.groups.items() for name in names
        }
        object.__setattr__(self, '_by_name', by_name)

    @classmethod
    def load(
        cls,
        groups: str | Path = DATA / 'class_groups.json',
        synonyms: str | Path = DATA / 'synonyms.json',
        words: str | Path = DATA / 'words.json',
    ) -> 'Vocabulary':
        """Read the lists.

        Args:
            groups (str or Path): JSON object, group -> class names. Defaults to ours;
                ``OFFICIAL_GROUPS`` are Pseudo-Q's.
            synonyms (str or Path): JSON object, word -> words. Defaults to ours.
            words (str or Path): JSON object of 'background' and 'attributes'.
                Defaults to ours.

        Returns:
            Vocabulary: Of lower-case words.

        Raises:
            ValueError: A file is no JSON object of lists of words.
        """
        lists = _lists(Path(words))
        for key in ('background', 'attributes'):
            if key not in lists:
                raise ValueError(
                    f'{words} has no list {key!r}; it has {sorted(lists)}.'
                )
        return cls(
            _lists(Path(groups)),
            _lists(Path(synonyms)),
            lists['background'],
            lists['attributes'],
        )

    def group_of(self, name: str) -> str:
        """'people', a slot of clothes, or 'things'; by the name, then its last word."""
        by_name = self._by_name  # type: ignore[attr-defined]
        return by_name.get(name) or by_name.get(name.rsplit(' ', 1)[-1], THINGS)

    def same(self, one: str, other: str) -> bool:
        """Whether two nouns can mean the same thing."""
        return (
            one == other
            or other in self.synonyms.get(one, ())
            or one in self.synonyms.get(other, ())
        )


def _lists(path: Path) -> dict[str, list[str]]:
    try:
        lists = json.loads(path.read_text(encoding='utf-8-sig'))
    except (ValueError, RecursionError) as error:  # of UTF-8 or JSON
        raise ValueError(f'{path} is not valid JSON in UTF-8: {error}.') from error
    except OSError as error:
        raise FileNotFoundError(f'{path} cannot be read: {error.strerror}.') from error
    if not isinstance(lists, dict) or not all(
        isinstance(words, list) and all(isinstance(word, str) for word in words)
        for words in lists.values()
    ):
        raise ValueError(f'{path}: expected a JSON object whose values list words.')
    return {
        key.lower(): [word.lower() for word in words] for key, words in lists.items()
    }
