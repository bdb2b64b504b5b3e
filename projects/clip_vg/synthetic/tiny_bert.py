"""A BERT for tests and first tries of detectors that read texts by one."""

from pathlib import Path

import torch

__all__ = ['make_tiny_bert']


def make_tiny_bert(folder: Path) -> None:
    """Write a BERT of one layer that reads letters, with random weights.

    Args:
        folder (Path): Made if it is not there; gets config, vocabulary and weights.

    Raises:
        ImportError: transformers is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            "transformers is needed: pip install -e '.[grounding-dino]'."
        ) from error
    letters = 'abcdefghijklmnopqrstuvwxyz'
    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', '.', '?']
    words += [*letters, *(f'##{letter}' for letter in letters)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'vocab.txt').write_text('\n'.join(words))
    transformers.BertTokenizer(str(folder / 'vocab.txt')).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.BertModel(config).save_pretrained(folder)
