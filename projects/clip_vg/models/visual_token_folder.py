"""Visual tokens on disk: what a frozen tower gives is computed once for many runs."""

import json
import logging
import os
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

from mmdet.structures import SampleList
from mmengine.logging import print_log
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..checkpoints.frozen_weights import fingerprint
from ..version import __version__
from .visual_token_cache import TokenName, VisualTokenLookup, weights_version

__all__ = ['VisualTokenFolder']

# Images that came again, before it is judged whether they are augmented, and how many
# are watched for that.
_FIRST, _WATCHED = 64, 10_000
_KEPT_FREE = 1 << 30  # bytes, for what else is written there: checkpoints


class VisualTokenFolder(VisualTokenLookup):
    """Visual tokens in files, which runs and processes share.

    A subfolder is of one tower: its config and weights, the preprocessor, and in what
    is computed, which ``tower.json`` tells; what differs in one of them never meets
    other tokens. A file in it is of one image, safetensors, and is written whole, so
    that processes may write at once.

    Nothing is stored any more, and a warning says so, if most images that come again
    look otherwise, as augmentation makes them, or if the disk is about to be full.

    Args:
        path (str or Path): The folder; it is made. Tokens of an image of ViT-B/16 at
            224 take 2.4 MB in float32.
        settings (Mapping): What tokens depend on beside the weights: configs of the
            tower and of the preprocessor.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any]) -> None:
        self.path, self.settings = Path(path), settings
        self._known: dict[int, str] = {}  # weights by their version
        self._forms: dict[str, set[bytes]] = defaultdict(set)
        self._said: set[str] = set()
        self._stores, self._again, self._changed = True, 0, 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple:
        return type(self), (self.path, self.settings)

    def encode(
        self,
        images: Tensor,
        samples: SampleList,
        encode: Callable[[Tensor], Tensor],
        tower: nn.Module,
    ) -> Tensor:
        """See :class:`VisualTokenLookup`; logs once why tokens are not looked up."""
        if tower.training or any(p.requires_grad for p in tower.parameters()):
            # Its validation, too: tokens of each epoch's weights are of no use later.
            self._warn('the visual tower is trained: its tokens are not kept')
            return encode(images)
        if any('content_key' not in sample for sample in samples):
            self._warn(
                'the data_preprocessor gives no content_key of images: it is no '
                'GroundingDataPreprocessor, or has batch_augments'
            )
        else:
            self._identify(weights_version(tower), tower)
            for sample in samples:
                self._watch_forms(sample.get('img_path'), sample.content_key)
        return super().encode(images, samples, encode, tower)

    def _find(self, names: Sequence[TokenName]) -> dict[TokenName, Tensor]:
        """What is there of the tokens of names."""
        found = {}
        for name in sorted(set(names)):
            file = self._file(name)
            try:
                found[name] = load_file(file)['tokens']
            except FileNotFoundError:
                continue
            except (SafetensorError, KeyError) as error:
                # Encoded again, and the file replaced.
                self._warn(f'{file} is broken ({error}); its image is encoded again')
        self.hits += sum(name in found for name in names)
        self.misses += len(set(names) - found.keys())
        return found

    def _add(self, tokens: dict[TokenName, Tensor]) -> None:
        """Write tokens, unless that is of no use or there is no room."""
        for name, own in tokens.items():
            if not self._stores:
                return
            try:
                self._write(name, own.detach().cpu().contiguous())
            except OSError as error:
                self._stop(f'{self.path}: {error}')

    def _identify(self, version: int, tower: nn.Module) -> None:
        """Learn the weights of a version, which are hashed once."""
        with self._lock:
            if version not in self._known:
                state = tower.state_dict()
                sha = bytes(fingerprint(state, [*state]).tolist()).hex()
                self._known[version] = sha

    def _tower(self, name: TokenName) -> dict[str, Any]:
        """What the tokens of a subfolder have in common."""
        return dict(
            settings=self.settings,
            weights_sha256=self._known[name.version],
            computed=name.computed,
            version=__version__,
        )

    def _file(self, name: TokenName) -> Path:
        """The file of an image; 256 folders hold those of a tower."""
        tower = json.dumps(self._tower(name), sort_keys=True, default=str)
        own, key = sha256(tower.encode()).hexdigest()[:16], name.key.hex()
        return self.path / own / key[:2] / f'{key}.safetensors'

    def _write(self, name: TokenName, tokens: Tensor) -> None:
        """Write a file whole, whoever else writes the same one."""
        file = self._file(name)
        folder = file.parent.parent
        if not file.parent.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            _write_whole(
                folder / 'tower.json',
                lambda path: path.write_text(
                    json.dumps(self._tower(name), indent=2, default=str) + '\n'
                ),
            )
        free = shutil.disk_usage(folder).free
        if free < _KEPT_FREE:
            raise OSError(f'{free:,} bytes are free, of which {_KEPT_FREE:,} are kept')
        _write_whole(file, lambda path: save_file(dict(tokens=tokens), path))

    def _watch_forms(self, image: str | None, key: bytes) -> None:
        """Store no more if images that come again are mostly in a new form."""
        if image is None or not self._stores:
            return
        with self._lock:
            if image not in self._forms and len(self._forms) >= _WATCHED:
                return
            known = self._forms[image]
            self._again += bool(known)
            self._changed += bool(known) and key not in known
            known.add(key)
            again, changed = self._again, self._changed
        if again >= _FIRST and changed > 0.75 * again:
            self._stop(
                f'{changed} of {again} images that came again, such as {image}, look '
                'otherwise, as augmentation makes them: their tokens would not be '
                'found again'
            )

    def _stop(self, reason: str) -> None:
        """Store no more, and say so."""
        self._stores = False
        self._warn(f'{reason}; no more tokens are stored')

    def _warn(self, message: str) -> None:
        """Warn, of the same thing once."""
        with self._lock:
            if message in self._said:
                return
            self._said.add(message)
        print_log(
            f'visual_token_dir={str(self.path)!r}: {message}.',
            logger='current',
            level=logging.WARNING,
        )


def _write_whole(file: Path, write: Callable[[Path], Any]) -> None:
    """Write a file under a name of this writer alone, then replace it."""
    partial = file.with_name(f'.partial.{uuid4().hex}')
    try:
        write(partial)
        os.replace(partial, file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
