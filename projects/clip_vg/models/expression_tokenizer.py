"""Expressions as token ids, of CLIP's vocabulary or of one of Hugging Face."""

import logging
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import open_clip
import torch
from mmengine.logging import print_log
from torch import Tensor

from projects.clip_vg_core.runtime import tokenizer
from projects.clip_vg_core.utils.atomic import replacing

from .hugging_face import find_files, import_transformers

__all__ = ['ExpressionTokenizer', 'VocabularyTokenizer', 'text_lengths']


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


class ExpressionTokenizer(tokenizer.Tokenizer):
    """CLIP's byte pair encoding of expressions, lower-cased, by open_clip.

    The options are those of :class:`Tokenizer`; called with expressions, it gives the
    ids of ``token_ids`` as a Tensor.
    """

    @property
    def pad_id(self) -> int:
        """The token id that a tower reads where there is no token."""
        return self.fill_id

    @cached_property
    def words(self) -> Any:
        """CLIP's byte pair encoding."""
        return _clip_words(self.context_length)

    def save(self, folder: Path) -> dict[str, Any]:
        """Save what is needed to tokenize, for :func:`load_tokenizer`.

        Args:
            folder (Path): The vocabulary is written here.

        Returns:
            dict: Values of JSON.
        """
        tokenizer.save_merges(folder)
        return dict(
            context_length=self.context_length,
            template=self.template,
            prompt_length=self.prompt_length,
        )

    def _encode(self, texts: list[str], most: int) -> list[list[int]]:
        ids = self.words(texts, most)
        lengths = text_lengths(ids).tolist()
        return [row[:n] for row, n in zip(ids.tolist(), lengths, strict=True)]

    def _warn(self, text: str) -> None:
        print_log(text, logger='current', level=logging.WARNING)

    def __call__(self, expressions: Sequence[str]) -> Tensor:
        """Token ids (E, L) of expressions, int64; see :meth:`Tokenizer.token_ids`."""
        return torch.from_numpy(self.token_ids(expressions))


class VocabularyTokenizer(tokenizer.VocabularyTokenizer, ExpressionTokenizer):
    """A vocabulary of Hugging Face, as open_clip's ``HFTokenizer`` uses it.

    It is read when it is needed: from ``source``, or from the cache of Hugging Face,
    into which it is downloaded otherwise. The options are those of the runtime's
    :class:`VocabularyTokenizer`, but ``source`` is a name on the hub, or a folder with
    ``tokenizer_config.json``.
    """

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
        return self._cut(self._loaded.backend_tokenizer)

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
        with replacing(folder / tokenizer.VOCABULARY_FILE) as partial:
            partial.write_text(self.words.to_str(), encoding='utf-8')
        return dict(
            context_length=self.context_length,
            template=self.template,
            source=tokenizer.VOCABULARY_FILE,
            clean=self.clean,
            strip_sep_token=self.strip_sep_token,
            sep_id=self.sep_id,
        )
