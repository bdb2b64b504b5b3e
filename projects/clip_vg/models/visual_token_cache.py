"""Visual tokens of images seen before, which a frozen tower need not encode again."""

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import NamedTuple

import torch
from mmdet.structures import DetDataSample, SampleList
from torch import Tensor, nn

__all__ = [
    'TokenName',
    'VisualTokenCache',
    'VisualTokenLookup',
    'content_key',
    'is_fixed',
    'weights_version',
]


class TokenName(NamedTuple):
    """What the tokens of an image depend on.

    Attributes:
        version (int): Of the tower's weights, see :func:`weights_version`.
        computed (tuple[str, ...]): In what they are computed: the dtype of images, the
            kind of device, the dtype of autocast or '', PyTorch's precision of matrix
            products.
        key (bytes): Of the image, see :func:`content_key`.
    """

    version: int
    computed: tuple[str, ...]
    key: bytes


class VisualTokenLookup(ABC):
    """Visual tokens by the content of images, kept somewhere.

    Attributes:
        hits (int): Images that were found.
        misses (int): Images that were encoded.
    """

    hits = misses = 0

    def encode(
        self,
        images: Tensor,
        samples: SampleList,
        encode: Callable[[Tensor], Tensor],
        tower: nn.Module,
    ) -> Tensor:
        """Visual tokens of a batch, of which only new images are encoded.

        Args:
            images (Tensor): Normalised, of shape (B, 3, H, W).
            samples (list[DetDataSample]): Of the images, with ``content_key``; all
                images are encoded if one has none, or if the tower is trained.
            encode (Callable): From images to tokens (B, 1 + P, C).
            tower (nn.Module): Whose weights ``encode`` uses.

        Returns:
            Tensor: Of shape (B, 1 + P, C).
        """
        keys = [sample.get('content_key') for sample in samples]
        if None in keys or not is_fixed(tower):
            return encode(images)
        version, kind = weights_version(tower), images.device.type
        autocast = ''
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            autocast = str(torch.get_autocast_dtype(kind))
        precision = torch.get_float32_matmul_precision()
        computed = (str(images.dtype), kind, autocast, precision)
        names = [TokenName(version, computed, key) for key in keys]
        found = {name: own.to(images.device) for name, own in self._find(names).items()}
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

    @abstractmethod
    def _find(self, names: Sequence[TokenName]) -> dict[TokenName, Tensor]:
        """What is there of the tokens of names; counts hits and misses."""

    @abstractmethod
    def _add(self, tokens: dict[TokenName, Tensor]) -> None:
        """Keep tokens, which are rows of a batch."""


class VisualTokenCache(VisualTokenLookup):
    """Visual tokens in memory, of which the least recently used leave first.

    Safe to use from several threads. Copies and pickles of it are empty caches of the
    same size.

    Args:
        max_bytes (int): The most that tokens take; those of an image of ViT-B/16 at
            224 take 2.4 MB in float32.

    Attributes:
        bytes (int): What the tokens take now.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._tokens: OrderedDict[TokenName, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple:
        return type(self), (self.max_bytes,)

    def _find(self, names: Sequence[TokenName]) -> dict[TokenName, Tensor]:
        """What is there of the tokens of names."""
        with self._lock:
            found = {name: self._tokens[name] for name in names if name in self._tokens}
            for name in found:
                self._tokens.move_to_end(name)
            self.hits += sum(name in found for name in names)
            self.misses += len(set(names) - found.keys())
        return found

    def _add(self, tokens: dict[TokenName, Tensor]) -> None:
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
