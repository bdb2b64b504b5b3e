"""Folders as a hub has them: weights in safetensors, config in JSON, nothing to run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from safetensors.torch import load_file, save_file
from torch import Tensor

from projects.clip_vg_core.data.readers.common import entry_of, read_json
from projects.clip_vg_core.runtime.deployment_file import NAME
from projects.clip_vg_core.runtime.tokenizer import MERGES_FILE, VOCABULARY_FILE
from projects.clip_vg_core.utils.atomic import replacing

__all__ = ['CARD', 'CONFIG', 'WEIGHTS', 'find_pretrained', 'read_weights', 'write_hub']

WEIGHTS, CONFIG, CARD = 'model.safetensors', 'config.json', 'README.md'
# Of a repository: what is read, and neither pickles nor programs.
_FETCHED = [WEIGHTS, CONFIG, CARD, NAME, '*.onnx', MERGES_FILE, VOCABULARY_FILE]


def find_pretrained(name: str | Path, revision: str | None = None) -> Path:
    """The local folder of a published detector, which is downloaded if needed.

    Args:
        name (str or Path): A folder with ``model.safetensors`` and ``config.json``, or
            of an exported detector; or the repository of such a folder on the Hugging
            Face hub, 'owner/name', of which the local cache is enough.
        revision (str, optional): Branch, tag or commit of the repository. Defaults to
            None: its main branch.

    Returns:
        Path: The folder.

    Raises:
        FileNotFoundError: There is no such folder, and it could not be downloaded; or a
            file is missing in it.
        ValueError: A revision of a local folder is given.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = _download(str(name), revision)
    elif revision is not None:
        raise ValueError(
            f'revision={revision!r}, but {name} is a folder on this machine; expected '
            'a repository of the Hugging Face hub, or no revision.'
        )
    if (folder / NAME).is_file():
        return folder
    missing = [file for file in (WEIGHTS, CONFIG) if not (folder / file).is_file()]
    if missing:
        raise FileNotFoundError(
            f'{folder} has no {" and no ".join(missing)}; it has '
            f'{sorted(path.name for path in folder.iterdir())[:8]}. Make such a folder '
            'of a checkpoint with tools/model_converters/publish.py, or give the '
            'checkpoint itself to GroundingInferencer().'
        )
    return folder


def _download(name: str, revision: str | None) -> Path:
    """The folder of a repository in the cache of Hugging Face."""
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_FETCHED))
    except Exception as error:  # every network layer raises its own kind
        text = ' '.join(str(error).split()).partition('. ')[0][:200]
        raise FileNotFoundError(
            f'{name}: no such folder, and no repository that could be downloaded from '
            f'the Hugging Face hub ({type(error).__name__}: {text}). Without a '
            'network, run `hf download OWNER/NAME --local-dir DIR` where there is one, '
            'and give the folder DIR.'
        ) from error


def read_weights(path: Path) -> dict[str, Any]:
    """Weights in safetensors, with the config beside them, as a checkpoint.

    Args:
        path (Path): The file.

    Returns:
        dict: ``state_dict`` and ``meta``; where there is a ``config.json`` beside it,
        ``meta['cfg']`` has its values in the form that checkpoints have.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: One of both cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file.')
    try:
        state = load_file(path)
    except Exception as error:  # of the library's own, and of types without a tensor
        raise ValueError(
            f'{path} ({path.stat().st_size:,} bytes) cannot be read as safetensors: '
            f'{type(error).__name__}: {" ".join(str(error).split())[:200]}. It may be '
            'truncated: fetch or write it again.'
        ) from error
    meta, config = {}, path.with_name(CONFIG)
    if config.is_file():
        values = entry_of(read_json(config), dict, str(config), 'a JSON object')
        meta['cfg'] = '\n'.join(f'{key} = {value!r}' for key, value in values.items())
    return dict(state_dict=state, meta=meta)


def write_hub(
    folder: Path, state: Mapping[str, Tensor], cfg: Mapping[str, Any], card: str
) -> None:
    """Write a folder to be uploaded to a hub.

    Args:
        folder (Path): It is there. Its weights are written last: without them it is not
            whole.
        state (Mapping[str, Tensor]): The weights.
        cfg (Mapping[str, Any]): Values of JSON, or tuples of them.
        card (str): The model card.
    """
    # Those of before would not fit the new config.
    (folder / WEIGHTS).unlink(missing_ok=True)
    for name, text in ((CONFIG, json.dumps(cfg, indent=1) + '\n'), (CARD, card)):
        with replacing(folder / name) as partial:
            partial.write_text(text, encoding='utf-8')
    tensors = {name: value.detach().contiguous() for name, value in state.items()}
    with replacing(folder / WEIGHTS) as partial:
        # What other libraries ask of weights of PyTorch.
        save_file(tensors, partial, metadata=dict(format='pt'))
        # The library makes files that their owner alone may read.
        partial.chmod((folder / CONFIG).stat().st_mode & 0o777)
