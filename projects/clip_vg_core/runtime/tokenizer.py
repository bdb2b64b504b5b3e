"""Expressions as token ids, without PyTorch: CLIP's byte pairs, or a vocabulary."""

import gzip
import hashlib
import html
import logging
import re
import string
from collections.abc import Sequence
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.atomic import replacing
from .graphs import import_extra

__all__ = [
    'MERGES_FILE',
    'VOCABULARY_FILE',
    'ClipTokenizer',
    'Tokenizer',
    'VocabularyTokenizer',
    'clean_text',
    'load_tokenizer',
    'save_merges',
]

# In an exported folder: CLIP's byte pairs by rank, or a vocabulary of Hugging Face.
MERGES_FILE = 'merges.txt'
VOCABULARY_FILE = 'tokenizer.json'
# CLIP has one list of pairs, so the file of a folder can be no other.
_MERGES_SHA256 = 'd308b7377a8ceaa9707a21614fe8c831b9196e197b7aeb69833359362907af02'
_MERGES = 49152 - 256 - 2
_SPECIAL = ('<start_of_text>', '<end_of_text>')
_WORDS = r"|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
# What ftfy leaves as it is: printable ASCII in which no entity of HTML can be.
_PLAIN = re.compile(r"[ -%'-~]*")
_PUNCTUATION = str.maketrans('', '', string.punctuation)
_CACHED_WORDS = 1 << 14
_LOGGER = logging.getLogger(__name__)


def clean_text(text: str, how: str = 'lower') -> str:
    """A text as open_clip cleans it before it is tokenized.

    Args:
        text (str): Any.
        how (str): 'lower', 'whitespace' or 'canonicalize'. Defaults to 'lower'.

    Raises:
        ImportError: The text has more than printable ASCII, and ftfy, which mends
            wrongly decoded characters, is not installed.
    """
    if not _PLAIN.fullmatch(text):
        text = import_extra('ftfy').fix_text(text)
    text = html.unescape(html.unescape(text)).strip()
    if how == 'canonicalize':
        text = text.replace('_', ' ').translate(_PUNCTUATION)
    text = ' '.join(text.split())
    return text if how == 'whitespace' else text.lower()


class Tokenizer:
    """Token ids of expressions in a prompt template.

    Args:
        context_length (int): Most tokens of a text.
        template (str): Prompt template of an expression, e.g. 'find the region of
            {}'. Defaults to '{}': the expression itself.
        prompt_length (int): Tokens of a learned prompt after the start of the text.
            Defaults to 0.

    Raises:
        ValueError: The template has no {}, or more than one.
    """

    # What a token id is where there is no token: in CLIP's vocabulary also "!" in a run
    # of symbols, which the official code does not read either.
    fill_id = 0

    def __init__(
        self, context_length: int, template: str = '{}', prompt_length: int = 0
    ) -> None:
        if template.count('{}') != 1:
            raise ValueError(f'template must have one {{}}, got {template!r}.')
        self.context_length = context_length
        self.template = template
        self.prompt_length = prompt_length
        self._warned_of_length = False

    def lengths(self, token_ids: np.ndarray) -> np.ndarray:
        """Lengths (E, ) of texts, up to and including their end, in ids (E, L)."""
        # The end-of-text token is the largest of CLIP's ids. The last of them: users
        # can type "<end_of_text>", which is the same token.
        return token_ids.shape[1] - token_ids[:, ::-1].argmax(1)

    def _encode(self, texts: list[str], most: int) -> list[list[int]]:
        """Token ids of texts, each cut to ``most`` tokens."""
        raise NotImplementedError

    def _warn(self, text: str) -> None:
        _LOGGER.warning('%s', text)

    def token_ids(self, expressions: Sequence[str]) -> np.ndarray:
        """Token ids of expressions.

        Args:
            expressions (Sequence[str]): E expressions.

        Returns:
            np.ndarray: Of shape (E, L), int64, L the longest expression's length;
            ``fill_id`` after the end-of-text token. An expression that passes the
            context length is cut there, with one warning. Tokens of a learned prompt
            have the id of the start of the text.
        """
        for expression in expressions:
            if not isinstance(expression, str):
                raise ValueError(
                    f'An expression must be a str, got {type(expression).__name__}: '
                    f'{expression!r}.'
                )
        free = self.context_length - self.prompt_length
        rows = self._encode([self.template.format(e) for e in expressions], free)
        ids = np.full((len(rows), max(1, *map(len, rows))), self.fill_id, np.int64)
        for row, own in zip(ids, rows, strict=True):
            row[: len(own)] = own
        lengths = self.lengths(ids)
        # A cut expression fills the context to its last place.
        if not self._warned_of_length and (lengths == free).any():
            longest = expressions[int(lengths.argmax())]
            self._warned_of_length = True
            self._warn(
                f'An expression fills or passes the {free} tokens that the text tower '
                f'has for it, and is cut there: {longest[:80]!r}... (logged once)'
            )
        ids = ids[:, : lengths.max()]
        start = np.repeat(ids[:, :1], self.prompt_length, 1)
        return np.concatenate([ids[:, :1], start, ids[:, 1:]], 1)


class ClipTokenizer(Tokenizer):
    """CLIP's byte pair encoding of expressions, lower-cased.

    The ids are those of open_clip's ``SimpleTokenizer``.

    Args:
        merges (Sequence[str]): The pairs, each 'a b', by rank.
        options: See :class:`Tokenizer`.
    """

    def __init__(self, merges: Sequence[str], **options: Any) -> None:
        super().__init__(**options)
        pairs = [tuple(line.split()) for line in merges]
        self._ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self._bytes = _byte_characters()
        symbols = list(self._bytes.values())
        words = [*symbols, *(f'{symbol}</w>' for symbol in symbols)]
        words += [*map(''.join, pairs), *_SPECIAL]
        self._ids = {word: number for number, word in enumerate(words)}
        regex = import_extra('regex')
        self._pattern = regex.compile('|'.join(_SPECIAL) + _WORDS, regex.IGNORECASE)
        # Bounded: a server reads words without end.
        self._word_ids = lru_cache(_CACHED_WORDS)(self._encode_word)

    def _encode(self, texts: list[str], most: int) -> list[list[int]]:
        start, end = (self._ids[word] for word in _SPECIAL)
        rows = []
        for text in texts:
            words = self._pattern.findall(clean_text(text))
            ids = [start, *(i for word in words for i in self._word_ids(word)), end]
            rows.append(ids if len(ids) <= most else [*ids[: most - 1], end])
        return rows

    def _encode_word(self, word: str) -> list[int]:
        if word in _SPECIAL:
            return [self._ids[word]]
        symbols = [self._bytes[byte] for byte in word.encode('utf-8')]
        symbols[-1] += '</w>'
        while len(symbols) > 1:
            found = zip(symbols, symbols[1:], strict=False)
            best = min(found, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            symbols = _merged(symbols, best)
        return [self._ids[symbol] for symbol in symbols]


def _merged(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    """Symbols in which every such pair, from the left, has become one."""
    merged, place = [], 0
    while place < len(symbols):
        joined = tuple(symbols[place : place + 2]) == pair
        merged.append(''.join(pair) if joined else symbols[place])
        place += 2 if joined else 1
    return merged


def _byte_characters() -> dict[int, str]:
    """A visible character for each byte, in the order of CLIP's ids."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in visible]
    characters = {byte: chr(byte) for byte in visible}
    return characters | {byte: chr(256 + i) for i, byte in enumerate(others)}


class VocabularyTokenizer(Tokenizer):
    """A vocabulary of Hugging Face, as open_clip's ``HFTokenizer`` uses it.

    Args:
        context_length (int): Most tokens of a text.
        template (str): See :class:`Tokenizer`.
        source (str): A file ``tokenizer.json``, read when it is needed.
        clean (str): How open_clip cleans texts: 'lower', 'whitespace' or
            'canonicalize'. Defaults to 'whitespace'.
        strip_sep_token (bool): Whether the token at the end of a text becomes filling,
            as in CLIPA. Defaults to False.
        sep_id (int, optional): That token. Defaults to None.

    Raises:
        ValueError: The template is none, or ``clean`` is unknown.
    """

    # No vocabulary has it; the graphs and the model put their own in its place.
    fill_id = -1

    def __init__(
        self,
        context_length: int,
        template: str = '{}',
        source: str = '',
        clean: str = 'whitespace',
        strip_sep_token: bool = False,
        sep_id: int | None = None,
    ) -> None:
        super().__init__(context_length, template)
        self.source, self.clean = source, clean
        self.strip_sep_token, self._sep_id = strip_sep_token, sep_id
        if clean not in ('lower', 'whitespace', 'canonicalize'):
            raise ValueError(
                f"clean={clean!r}; expected 'lower', 'whitespace' or 'canonicalize'."
            )

    @cached_property
    def words(self) -> Any:
        """The ``tokenizers.Tokenizer``."""
        return self._cut(import_extra('tokenizers').Tokenizer.from_file(self.source))

    def _cut(self, words: Any) -> Any:
        # Once: it fails while another thread encodes.
        words.no_padding()
        words.enable_truncation(self.context_length)
        return words

    @property
    def sep_id(self) -> int | None:
        """The token id that ``strip_sep_token`` removes."""
        return self._sep_id

    def lengths(self, token_ids: np.ndarray) -> np.ndarray:
        """Lengths (E, ) of texts in token ids (E, L)."""
        return (token_ids != self.fill_id).sum(1)

    def _encode(self, texts: list[str], most: int) -> list[list[int]]:
        del most  # see `_cut`
        encoded = self.words.encode_batch([clean_text(t, self.clean) for t in texts])
        removed = self.sep_id if self.strip_sep_token else None
        return [
            [self.fill_id if i == removed else i for i in encoding.ids]
            for encoding in encoded
        ]


def save_merges(folder: Path) -> None:
    """Write CLIP's byte pairs into an exported folder."""
    with replacing(folder / MERGES_FILE) as partial:
        partial.write_text('\n'.join(_installed_merges()) + '\n', encoding='utf-8')


def _installed_merges() -> list[str]:
    """CLIP's byte pairs of open_clip, which is not imported.

    Raises:
        FileNotFoundError: It is not installed.
    """
    package = find_spec('open_clip')
    for folder in (package and package.submodule_search_locations) or ():
        path = Path(folder, 'bpe_simple_vocab_16e6.txt.gz')
        if path.is_file():
            with gzip.open(path, 'rt', encoding='utf-8') as file:
                return file.read().split('\n')[1 : 1 + _MERGES]
    raise FileNotFoundError("open_clip_torch, which has CLIP's byte pairs, is missing.")


def _read_merges(folder: Path) -> list[str]:
    """CLIP's byte pairs of an exported folder.

    Raises:
        FileNotFoundError: It has none, and open_clip is not installed.
        ValueError: The file is another one.
    """
    path = folder / MERGES_FILE
    if not path.is_file():
        try:  # folders of older versions have none
            return _installed_merges()
        except FileNotFoundError:
            raise FileNotFoundError(
                f'{path}: no such file. {folder} was exported by an older version, '
                'without its tokenizer: export again, or pip install open_clip_torch.'
            ) from None
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != _MERGES_SHA256:
        raise ValueError(
            f"{path} has not CLIP's byte pairs (sha256 {found[:16]}..., expected "
            f'{_MERGES_SHA256[:16]}...): it is truncated or was changed. Export again.'
        )
    return data.decode('utf-8').splitlines()


def load_tokenizer(options: dict[str, Any], folder: Path) -> Tokenizer:
    """The tokenizer of an exported folder.

    Args:
        options (dict): ``text`` of its :class:`Deployment`.
        folder (Path): The folder.

    Raises:
        FileNotFoundError: The file of its vocabulary is missing.
        ValueError: It names another file, or its file is broken.
    """
    if 'source' not in options:
        return ClipTokenizer(_read_merges(folder), **options)
    path = folder / VOCABULARY_FILE
    if options['source'] != VOCABULARY_FILE:  # never one outside of the folder
        raise ValueError(
            f'{folder}: the vocabulary is in {options["source"]!r}; expected '
            f'{VOCABULARY_FILE!r}. Export again.'
        )
    if not path.is_file():
        raise FileNotFoundError(
            f'{path}: no such file, but the exported detector has its vocabulary there.'
        )
    return VocabularyTokenizer(**dict(options, source=str(path)))
