"""The two graphs of an exported folder and its tokenizer: boxes of prepared images."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .deployment_file import Deployment, read_deployment
from .graphs import BACKENDS, PRECISIONS, default_backend, open_graph
from .preprocessing import valid_tokens
from .tokenizer import load_tokenizer

__all__ = ['EXPRESSIONS_AT_ONCE', 'EncodedImage', 'ExportedModel', 'plan_calls']

# More are no faster, and are padded to the longest.
EXPRESSIONS_AT_ONCE = 16


class EncodedImage(NamedTuple):
    """What the image graph gives for one image, each of shape (K, D), float32."""

    tokens: np.ndarray
    pos: np.ndarray
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray

    @property
    def num_bytes(self) -> int:
        """Bytes of memory."""
        return sum(array.nbytes for array in self)


class ExportedModel:
    """Graphs and tokenizer of an exported folder; several threads may use them at once.

    Images with equally many valid patches are run together, and expressions of
    about equal length, so that hardly any token only fills up.

    Args:
        folder (str or Path): The exported folder.
        backend (str, optional): 'openvino' or 'onnxruntime'. Defaults to None: the
            first of them that is installed, as OpenVINO was faster (docs/serving.md).
        precision (str): 'f32'; 'bf16', with OpenVINO on a CPU that has it; 'int8', if
            the folder has such weights. Defaults to 'f32'.
        threads (int, optional): Defaults to None: all cores.

    Raises:
        FileNotFoundError: The folder, or a file in it, is not there.
        ImportError: The backend is not installed.
        ValueError: A file of the folder is broken or of another export, or the
            precision cannot be had.
    """

    def __init__(
        self,
        folder: str | Path,
        backend: str | None = None,
        precision: str = 'f32',
        threads: int | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.backend = default_backend() if backend is None else backend
        for what, given, known in (
            ('backend', self.backend, BACKENDS),
            ('precision', precision, PRECISIONS),
        ):
            if given not in known:
                raise ValueError(f'{what}={given!r}; expected one of {known}.')
        self.deployment: Deployment = read_deployment(self.folder)
        kind = 'int8' if precision == 'int8' else 'float'
        files = self.deployment.graph_files(kind, self.folder)
        self.image_stage, self.grounding_stage = (
            open_graph(file, self.backend, precision, threads) for file in files
        )
        self.tokenizer = load_tokenizer(self.deployment.text, self.folder)

    def encode(self, images: np.ndarray, padding: np.ndarray) -> list[EncodedImage]:
        """Encode images, which no expression changes.

        Args:
            images (np.ndarray): Normalised, of shape (B, 3, H, W), float32.
            padding (np.ndarray): True where a patch is padding, of shape (B, P).

        Returns:
            list[EncodedImage]: Of each image.
        """
        encoded: dict[int, EncodedImage] = {}
        counts = padding.sum(1)
        for count in np.unique(counts):
            chosen = np.flatnonzero(counts == count)
            kept, _ = valid_tokens(padding[chosen], self.deployment.class_token)
            outputs = self.image_stage(dict(images=images[chosen], kept=kept))
            for index, *own in zip(chosen, *outputs, strict=True):
                encoded[int(index)] = EncodedImage(*own)
        return [encoded[index] for index in range(len(images))]

    def ground(
        self, images: Sequence[EncodedImage], texts: Sequence[Sequence[str]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Q boxes for each of E expressions in B images.

        Args:
            images (Sequence[EncodedImage]): Of :meth:`encode`.
            texts (Sequence[Sequence[str]]): The expressions of each image, E in all.

        Returns:
            tuple[np.ndarray, np.ndarray]: Boxes xyxy in [0, 1] of the padded input, of
            shape (E, Q, 4), and scores (E, Q), all 1 without a confidence head.
        """
        image_index = np.repeat(np.arange(len(texts)), [len(own) for own in texts])
        token_ids = self.tokenizer.token_ids([text for own in texts for text in own])
        shape = len(token_ids), self.deployment.num_queries
        results = [np.empty((*shape, 4), np.float32), np.ones(shape, np.float32)]
        calls = plan_calls(
            [len(image.tokens) for image in images],
            image_index,
            self.tokenizer.lengths(token_ids),
        )
        for chosen, parts in calls:
            members = zip(*(images[index] for index in chosen), strict=True)
            feed = dict(zip(EncodedImage._fields, map(np.stack, members), strict=True))
            feed['padding'] = np.zeros(feed['tokens'].shape[:2], bool)
            for part, length in parts:
                predicted = self.grounding_stage(
                    dict(
                        feed,
                        token_ids=token_ids[part, :length],
                        image_index=np.searchsorted(chosen, image_index[part]),
                    )
                )
                # Without a confidence head, the graph has no scores and they stay 1.
                for result, values in zip(results, predicted, strict=False):
                    result[part] = values.reshape(len(part), *result.shape[1:])
        center, half = results[0][..., :2], results[0][..., 2:] / 2
        boxes = np.concatenate([center - half, center + half], -1)
        return boxes.clip(0, 1), results[1]


def plan_calls(
    counts: Sequence[int], image_index: np.ndarray, lengths: np.ndarray
) -> Iterator[tuple[np.ndarray, list[tuple[np.ndarray, int]]]]:
    """Group images and expressions into calls of the grounding graph.

    Args:
        counts (Sequence[int]): Tokens of each image, of shape (B, ).
        image_index (np.ndarray): The image of each expression, of shape (E, ).
        lengths (np.ndarray): Tokens of each expression, of shape (E, ).

    Yields:
        tuple: Images with equally many tokens, ascending; and their expressions
        in parts, each with the length of its longest.
    """
    for count in np.unique(counts):
        images = np.flatnonzero(np.asarray(counts) == count)
        rows = np.flatnonzero(np.isin(image_index, images))
        if not len(rows):
            continue
        # By length, so that each part is padded to about its own.
        rows = rows[np.argsort(lengths[rows], kind='stable')]
        parts = np.array_split(rows, -(-len(rows) // EXPRESSIONS_AT_ONCE))
        yield images, [(part, int(lengths[part[-1]])) for part in parts]
