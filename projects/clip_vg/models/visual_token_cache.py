"""Visual tokens of images seen before, which a frozen tower need not encode again."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

import torch
from mmdet.structures import DetDataSample
from torch import Tensor, nn

__all__ = ['VisualTokenCache', 'content_key', 'is_fixed', 'weights_version']


class VisualTokenCache:
    """Visual tokens by the content of images, the least recently used leave first.

    Safe to use from several threads. Copies and pickles of it are empty caches of the
    same size.

    Args:
        max_bytes (int): The most that tokens take; those of an image of ViT-B/16 at
            224 take 2.4 MB in float32.

    Attributes:
        hits (int): Images that were found.
        misses (int): Images that were encoded.
        bytes (int): What the tokens take now.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.hits = self.misses = self.bytes = 0
        self._tokens: OrderedDict[Any, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple:
        return type(self), (self.max_bytes,)

    def encode(
        self,
        images: Tensor,
        keys: Sequence[bytes],
        encode: Callable[[Tensor], Tensor],
        tower: nn.Module,
    ) -> Tensor:
        """Visual tokens of a batch, of which only new images are encoded.

        Args:
            images (Tensor): Normalised, of shape (B, 3, H, W).
            keys (Sequence[bytes]): Of the images, see :func:`content_key`.
            encode (Callable): From images to tokens (B, 1 + P, C).
            tower (nn.Module): Whose weights ``encode`` uses.

        Returns:
            Tensor: Of shape (B, 1 + P, C).
        """
        version = weights_version(tower)
        names = [(version, images.dtype, images.device, key) for key in keys]
        found = self._find(names)
        # An image that is twice in a batch is encoded once.
        new = {
            name: row
            for row, name in reversed([*enumerate(names)])
            if name not in found
        }
        rows = sorted(new.values())
        if len(rows) == len(names):
            tokens = encode(images)
            self._add(dict(zip(names, tokens, strict=True)))
            return tokens
        if rows:
            encoded = encode(images[rows])
            added = {names[row]: own for row, own in zip(rows, encoded, strict=True)}
            self._add(added)
            found.update(added)
        return torch.stack([found[name] for name in names])

    def _find(self, names: Sequence[Any]) -> dict[Any, Tensor]:
        """What is there of the tokens of names."""
        with self._lock:
            found = {name: self._tokens[name] for name in names if name in self._tokens}
            for name in found:
                self._tokens.move_to_end(name)
            self.hits += sum(name in found for name in names)
            self.misses += len(set(names) - found.keys())
        return found

    def _add(self, tokens: dict[Any, Tensor]) -> None:
        """Store copies of tokens, and let the oldest go."""
        # Tokens made in inference mode could not be used in training afterwards.
        with torch.inference_mode(False), torch.no_grad():
            # A row of a batch would hold the whole batch.
            copies = {name: own.clone() for name, own in tokens.items()}
        with self._lock:
            for name, own in copies.items():
                if own.nbytes > self.max_bytes:
                    continue
                before = self._tokens.pop(name, None)
                self.bytes += own.nbytes - (0 if before is None else before.nbytes)
                self._tokens[name] = own
            while self.bytes > self.max_bytes:
                self.bytes -= self._tokens.popitem(last=False)[1].nbytes


def content_key(image: Tensor, sample: DetDataSample) -> bytes:
    """What tells the content of an image, and where it lies in the tower's input.

    Args:
        image (Tensor): Of the pipeline, of shape (3, H, W), not normalised.
        sample (DetDataSample): With ``letterbox``, if it has a border.
    """
    pixels = image.cpu().contiguous()
    geometry = (
        *(str(pixels.dtype), tuple(pixels.shape), tuple(sample.img_shape)),
        tuple(sample.get('letterbox', ())),
    )
    digest = blake2b(repr(geometry).encode(), digest_size=16)
    digest.update(pixels.view(torch.uint8).numpy().data)
    return digest.digest()


def is_fixed(tower: nn.Module) -> bool:
    """Whether a tower gives the same tokens again and no gradient goes through it."""
    if tower.training:
        return False
    return not (
        torch.is_grad_enabled() and any(p.requires_grad for p in tower.parameters())
    )


def weights_version(tower: nn.Module) -> int:
    """A number that changes when weights are loaded, moved or trained."""
    held = [*tower.parameters(), *tower.buffers()]
    return hash(
        tuple(
            # Those made in inference mode do not count their changes.
            (own.data_ptr(), 0 if own.is_inference() else own._version)
            for own in held
        )
    )
