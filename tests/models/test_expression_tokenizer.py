"""Token ids: nothing of a text is cut off, whatever it is encoded with."""

import open_clip
import torch

from projects.clip_vg.models.expression_tokenizer import (
    ExpressionTokenizer,
    text_lengths,
)

from ..helpers.models import symbol_texts


def reference_tokens(words, text, context):
    """By hand, and not padded."""
    tokens = [words.sot_token_id, *words.encode(text), words.eot_token_id]
    return tokens if len(tokens) <= context else [*tokens[: context - 1], tokens[-1]]


def test_texts_end_with_their_end_of_text_token():
    texts = symbol_texts(300)
    tokenize = ExpressionTokenizer(context_length=12)
    words = open_clip.SimpleTokenizer()
    expected = [reference_tokens(words, text, 12) for text in texts]
    assert sum(0 in tokens for tokens in expected) > 50
    together = tokenize(texts)
    assert text_lengths(together).tolist() == [len(tokens) for tokens in expected]
    for text, row, tokens in zip(texts, together.tolist(), expected, strict=True):
        assert row == tokens + [0] * (together.shape[1] - len(tokens))
        assert tokenize([text]).tolist() == [tokens]


def test_places_of_a_prompt_belong_to_the_text():
    plain = ExpressionTokenizer(12, 'find {}!~')(['dog'])
    placed = ExpressionTokenizer(12, 'find {}!~', prompt_length=3)(['dog'])
    assert text_lengths(placed).tolist() == [plain.shape[1] + 3] == [placed.shape[1]]
    assert torch.equal(placed[:, 4:], plain[:, 1:])
    assert (placed[:, :4] == plain[:, :1]).all()
