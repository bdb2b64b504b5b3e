"""Expressions as token ids, of CLIP's vocabulary or of one of Hugging Face."""

import logging
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import open_clip
import torch
from mmengine.logging import print_log
from open_clip.tokenizer import get_clean_fn
from torch import Tensor

from projects.clip_vg_core.utils.atomic import replacing

from .hugging_face import find_files, import_transformers

__all__ = [
    'TOKENIZER_FILE',
    'ExpressionTokenizer',
    'VocabularyTokenizer',
    'load_tokenizer',
    'text_lengths',
]

# A vocabulary of Hugging Face in an exported folder.
TOKENIZER_FILE = 'tokenizer.json'


def text_lengths(token_ids: Tensor) -> Tensor:
    """Lengths of texts, up to and including their end-of-text token.

    It is the largest id of CLIP's vocabulary. Id 0 does not tell the end: it is the
    filling, and "!" inside a run of symbols ("circle!~") as well.

    Args:
        token_ids (Tensor): Of shape (E, L), int64; 0 after the end.

    Returns:
        Tensor: Of shape (E, ), int64.
    """
    # The last of them: users can type "<end_of_text>", which is the same token.
    return token_ids.shape[1] - token_ids.flip(1).argmax(1)


@cache
def _clip_words(context_length: int) -> open_clip.SimpleTokenizer:
    """CLIP's byte pair encoding; read once, which takes a while."""
    return open_clip.SimpleTokenizer(context_length=context_length)


class ExpressionTokenizer:
    """CLIP's byte pair encoding of expressions, lower-cased.

    Args:
        context_length (int): Most tokens of a text.
        template (str): Prompt template of an expression, e.g. 'find the region of
            {}'. Defaults to '{}': the expression itself.
        prompt_length (int): Tokens of a learned prompt after the start of the text.
            Defaults to 0.

    Raises:
        ValueError: The template has no {}, or more than one.
    """

    def __init__(
        self, context_length: int, template: str = '{}', prompt_length: int = 0
    ) -> None:
        if template.count('{}') != 1:
            raise ValueError(f'template must have one {{}}, got {template!r}.')
        self.context_length = context_length
        self.template = template
        self.prompt_length = prompt_length
        self._warned_of_length = False

    # What a token id is where there is no token: in CLIP's vocabulary also "!" in a run
    # of symbols, which the official code does not read either.
    fill_id = 0

    @property
    def pad_id(self) -> int:
        """The token id that a tower reads where there is no token."""
        return self.fill_id

    @cached_property
    def words(self) -> Any:
        """CLIP's byte pair encoding."""
        return _clip_words(self.context_length)

    def lengths(self, token_ids: Tensor) -> Tensor:
        """Lengths (E, ) of texts in token ids (E, L)."""
        return text_lengths(token_ids)

    def save(self, folder: Path) -> dict[str, Any]:
        """Save what is needed to tokenize, for :func:`load_tokenizer`.

        Args:
            folder (Path): A vocabulary that open_clip does not bring is written here.

        Returns:
            dict: Values of JSON.
        """
        del folder
        return dict(
            context_length=self.context_length,
            template=self.template,
            prompt_length=self.prompt_length,
        )

    def _encode(self, texts: list[str], most: int) -> Tensor:
        """Token ids of texts, filled up to any length, each cut to ``most`` tokens."""
        return self.words(texts, most)

    def __call__(self, expressions: Sequence[str]) -> Tensor:
        """Token ids of expressions.

        Args:
            expressions (Sequence[str]): E expressions.

        Returns:
            Tensor: Of shape (E, L), int64, L the longest expression's length;
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
        tokens = self._encode([self.template.format(e) for e in expressions], free)
        lengths = self.lengths(tokens)
        # A cut expression fills the context to its last place.
        if not self._warned_of_length and bool((lengths == free).any()):
            longest = expressions[int(lengths.argmax())]
            self._warned_of_length = True
            print_log(
                f'An expression fills or passes the {free} tokens that the text tower '
                f'has for it, and is cut there: {longest[:80]!r}... (logged once)',
                logger='current',
                level=logging.WARNING,
            )
        tokens = tokens[:, : int(lengths.max())]
        if not self.prompt_length:
            return tokens
        start = tokens[:, :1]
        return torch.cat([start.expand(-1, 1 + self.prompt_length), tokens[:, 1:]], 1)


class VocabularyTokenizer(ExpressionTokenizer):
    """A vocabulary of Hugging Face, as open_clip's ``HFTokenizer`` uses it.

    It is read when it is needed: from ``source``, or from the cache of Hugging Face,
    into which it is downloaded otherwise.

    Args:
        context_length (int): Most tokens of a text.
        template (str): See :class:`ExpressionTokenizer`.
        source (str): A name on the hub, or a folder with ``tokenizer_config.json``; or
            a file ``tokenizer.json``, which needs no ``transformers``.
        clean (str): How open_clip cleans texts: 'lower', 'whitespace' or
            'canonicalize'. Defaults to 'whitespace'.
        strip_sep_token (bool): Whether the token at the end of a text becomes filling,
            as in CLIPA. Defaults to False.
        sep_id (int, optional): That token, where ``source`` is a file. Defaults to
            None.

    Raises:
        ValueError: The template is none, or ``clean`` is unknown.
    """

    # No vocabulary has it; what the tower reads in its place is :attr:`pad_id`.
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
    def _loaded(self) -> Any:
        """The tokenizer of Hugging Face's ``transformers``."""
        transformers = import_transformers(self.source)
        folder = find_files(self.source, 'tokenizer_config.json')
        loaded = transformers.AutoTokenizer.from_pretrained(folder or self.source)
        if not loaded.is_fast:
            raise ValueError(
                f'{self.source}: the tokenizer has no fast form (`tokenizer.json`), '
                'which is what is used here; save one with `save_pretrained`.'
            )
        return loaded

    @cached_property
    def words(self) -> Any:
        """The ``tokenizers.Tokenizer``."""
        if Path(self.source).is_file():
            from tokenizers import Tokenizer

            words = Tokenizer.from_file(self.source)
        else:
            words = self._loaded.backend_tokenizer
        words.no_padding()
        return words

    @property
    def pad_id(self) -> int:
        """See :class:`ExpressionTokenizer`."""
        return self._loaded.pad_token_id

    @property
    def sep_id(self) -> int | None:
        """The token id that ``strip_sep_token`` removes."""
        if self._sep_id is None and self.strip_sep_token:
            return self._loaded.sep_token_id
        return self._sep_id

    def save(self, folder: Path) -> dict[str, Any]:
        """See :class:`ExpressionTokenizer`."""
        with replacing(folder / TOKENIZER_FILE) as partial:
            partial.write_text(self.words.to_str(), encoding='utf-8')
        return dict(
            context_length=self.context_length,
            template=self.template,
            source=TOKENIZER_FILE,
            clean=self.clean,
            strip_sep_token=self.strip_sep_token,
            sep_id=self.sep_id,
        )

    def lengths(self, token_ids: Tensor) -> Tensor:
        """Lengths (E, ) of texts in token ids (E, L)."""
        return (token_ids != self.fill_id).sum(1)

    def _encode(self, texts: list[str], most: int) -> Tensor:
        """See :class:`ExpressionTokenizer`."""
        clean = get_clean_fn(self.clean)
        self.words.enable_truncation(most)
        encoded = self.words.encode_batch([clean(text) for text in texts])
        rows = [encoding.ids for encoding in encoded]
        tokens = torch.full((len(rows), max(1, *map(len, rows))), self.fill_id)
        for row, ids in zip(tokens, rows, strict=True):
            row[: len(ids)] = torch.tensor(ids, dtype=torch.int64)
        if self.strip_sep_token:
            tokens[tokens == self.sep_id] = self.fill_id
        return tokens


def load_tokenizer(options: dict[str, Any], folder: Path) -> ExpressionTokenizer:
    """The tokenizer of an exported folder.

    Args:
        options (dict): Of :meth:`ExpressionTokenizer.save`.
        folder (Path): Into which it was saved.

    Raises:
        FileNotFoundError: The file of its vocabulary is missing.
        ValueError: It names another file.
    """
    if 'source' not in options:
        return ExpressionTokenizer(**options)
    path = folder / TOKENIZER_FILE
    if options['source'] != TOKENIZER_FILE:  # never one outside of the folder
        raise ValueError(
            f'{folder}: the vocabulary is in {options["source"]!r}; expected '
            f'{TOKENIZER_FILE!r}. Export again.'
        )
    if not path.is_file():
        raise FileNotFoundError(
            f'{path}: no such file, but the exported detector has its vocabulary there.'
        )
    return VocabularyTokenizer(**dict(options, source=str(path)))
