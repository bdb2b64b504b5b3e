"""Inferencer of exported folders: images and expressions in, boxes out, no PyTorch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..utils.image_files import load_image
from .exported_model import EncodedImage, ExportedModel
from .inputs import check_score_thr, list_inputs
from .preprocessing import Preprocessing

__all__ = ['ExportedInferencer', 'GroundableImage']


class GroundableImage(NamedTuple):
    """An encoded image, and how its boxes become pixels.

    Attributes:
        encoded (EncodedImage): Of the image graph.
        corner (tuple[int, int]): Left and top of the image in the padded input.
        scale (float): Its size in the padded input to that of the original.
        shape (tuple[int, int]): Height and width of the original.
    """

    encoded: EncodedImage
    corner: tuple[int, int]
    scale: float
    shape: tuple[int, int]


class ExportedInferencer:
    """Boxes for expressions, of an exported folder, as ``GroundingInferencer`` gives.

    It needs NumPy, Pillow, a tokenizer, and OpenVINO or ONNX Runtime. An image is
    encoded once for all its expressions. Files are turned upright by their EXIF entry;
    boxes are in pixels of the upright image. Several threads may call it at once.

    Args:
        folder (str or Path): The exported folder (docs/serving.md).
        batch_size (int): Images encoded at once. Defaults to 8.
        any_size (bool): Whether files of more than 100 million pixels, and strips of
            which one side is over 100 times the other, are read as well. Defaults to
            False.
        score_thr (float, optional): Least score of a box that is given; an expression
            of which none has it is not in the image. Defaults to None: the folder's.
            Of a model without scores, every box is given.
        options: ``backend``, ``precision``, ``threads`` of :class:`ExportedModel`.

    Raises:
        FileNotFoundError: The folder, or a file in it, is not there.
        ImportError: What runs it is not installed.
        ValueError: A file of the folder is broken or of another export, or has
            transforms that need MMDetection; or ``score_thr`` is given for a model
            without scores.

    Attributes:
        scored (bool): Whether boxes have scores.

    Examples:
        >>> infer = ExportedInferencer('served')
        >>> infer('street.jpg', ['left man', 'red car'])['predictions'][0]['bboxes']
    """

    def __init__(
        self,
        folder: str | Path,
        batch_size: int = 8,
        any_size: bool = False,
        score_thr: float | None = None,
        **options: Any,
    ) -> None:
        self.model = ExportedModel(folder, **options)
        deployment = self.model.deployment
        self.preprocessing = Preprocessing(deployment, self.model.folder)
        self.batch_size, self.any_size = batch_size, any_size
        if any_size:  # PIL's own limit is of the whole process
            Image.MAX_IMAGE_PIXELS = None
        self.scored = deployment.scored
        check_score_thr(score_thr, self.scored, folder)
        self.score_thr = deployment.score_thr if score_thr is None else score_thr

    def __call__(self, images: Any, expressions: Any) -> dict[str, list]:
        """Ground expressions in images.

        Args:
            images (str, Path, ndarray, PIL.Image or a list of these): A file, a folder
                of images, an array (H, W, 3) in BGR as OpenCV reads it, or an image
                of PIL.
            expressions (str or list): For one image one expression or several; for
                several images one expression for all, or a list with an expression
                or a list of them for each.

        Returns:
            dict: ``predictions``, for each image a dict of ``texts``, the expressions;
            ``bboxes`` (a list of xyxy in pixels of the image, cut at its edges), in the
            order of the expressions, the best first; their ``scores``, each None of a
            model without scores; their ``labels``, the number of each box's expression;
            and ``image`` (the file, or its number).

        Raises:
            FileNotFoundError: There is no such image.
            ValueError: An image cannot be read, an expression is empty, or there are
                not as many expressions as images.
        """
        inputs, texts = list_inputs(images, expressions)
        predictions = []
        for start in range(0, len(inputs), self.batch_size):
            batch = slice(start, start + self.batch_size)
            encoded = self.encode([load_image(i, self.any_size) for i in inputs[batch]])
            for number, prediction in enumerate(
                self.ground(encoded, texts[batch]), start
            ):
                given = inputs[number]
                is_file = isinstance(given, (str, Path))
                prediction['image'] = str(given) if is_file else number
                predictions.append(prediction)
        return dict(predictions=predictions)

    def encode(self, images: Sequence[np.ndarray]) -> list[GroundableImage]:
        """Encode images, each RGB of shape (H, W, 3), uint8."""
        prepared = [self.preprocessing(image) for image in images]
        encoded = self.model.encode(
            np.stack([image.pixels for image in prepared]),
            np.stack([image.padding for image in prepared]),
        )
        return [
            GroundableImage(own, image.corner, image.scale, image.shape)
            for own, image in zip(encoded, prepared, strict=True)
        ]

    def ground(
        self, images: Sequence[GroundableImage], texts: Sequence[Sequence[str]]
    ) -> list[dict[str, Any]]:
        """Predictions for the expressions of each encoded image, as when called."""
        boxes, scores = self.model.ground([image.encoded for image in images], texts)
        ends = np.cumsum([len(own) for own in texts])[:-1]
        return [
            self._prediction(image, own, *predicted)
            for image, own, *predicted in zip(
                images,
                texts,
                np.split(boxes, ends),
                np.split(scores, ends),
                strict=True,
            )
        ]

    def _prediction(
        self,
        image: GroundableImage,
        texts: Sequence[str],
        boxes: np.ndarray,
        scores: np.ndarray,
    ) -> dict[str, Any]:
        """The boxes (E, Q, 4) of an image in its pixels, from a score (E, Q) on."""
        corner, size = (
            np.array(pair * 2, np.float32) for pair in (image.corner, image.shape[::-1])
        )
        boxes = boxes.reshape(-1, 4) * np.float32(self.preprocessing.side)
        # The border goes first: the scale is of the image without it.
        boxes = (boxes - corner) / np.float32(image.scale)
        # The model predicts in its padded square, and may reach into the padding.
        boxes = boxes.clip(0, size)
        labels = np.repeat(np.arange(len(texts)), scores.shape[1])
        scores = scores.reshape(-1)
        # The best of an expression first; NaN, of a model that has diverged, above all.
        order = np.lexsort((-np.where(np.isnan(scores), np.inf, scores), labels))
        order = order[~(scores[order] < self.score_thr)]
        return dict(
            bboxes=boxes[order].tolist(),
            texts=list(texts),
            scores=scores[order].tolist() if self.scored else [None] * len(order),
            labels=labels[order].tolist(),
        )
