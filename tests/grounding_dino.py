"""MMDetection's Grounding DINO, small enough for a test."""

from pathlib import Path

import pytest


def tiny_bert(folder: Path) -> str:
    """A folder with a BERT of one layer that reads letters."""
    transformers = pytest.importorskip('transformers')
    letters = 'abcdefghijklmnopqrstuvwxyz'
    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', '.', '?']
    words += [*letters, *(f'##{letter}' for letter in letters)]
    folder.mkdir()
    (folder / 'vocab.txt').write_text('\n'.join(words))
    transformers.BertTokenizer(str(folder / 'vocab.txt')).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    transformers.BertModel(config).save_pretrained(folder)
    return str(folder)


def shrink_model(model, bert):
    """Make MMDetection's own config small, in place."""
    model.language_model.name = bert
    model.backbone.update(
        embed_dims=24, depths=[1, 1, 1, 1], init_cfg=None, convert_weights=False
    )
    model.neck.in_channels = [48, 96, 192]
    model.encoder.num_layers = 1
    model.decoder.num_layers = 1
    model.num_queries = 20
    model.test_cfg.max_per_img = 5
    return model


def shrink_pipeline(steps, bert, size=64):
    """Make pictures small, and read words with ``bert``, in place."""
    for step in steps:
        for branch in step.get('transforms', ()):
            shrink_pipeline(branch, bert, size)
        for key, value in dict(
            scale=(size, size),
            scales=[(size, size)],
            crop_size=(size // 2, size),
            tokenizer_name=bert,
        ).items():
            if key in step:
                step[key] = value
