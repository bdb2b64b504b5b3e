"""Attributes by zero-shot CLIP matching: which word matches a crop best."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from projects.clip_vg_core.pseudo_labels.detection import Detection, Scene
from projects.clip_vg_core.utils.image_files import as_rgb, open_image

from ..models.crop_text_clip import CropTextCLIP

__all__ = ['ClipAttributes']


class ClipAttributes:
    """Zero-shot attributes of detections.

    Args:
        model (str): A CLIP of open_clip, such as 'ViT-B-16-quickgelu'.
        weights (str): Its tag or a file.
        words (Sequence[str]): The attributes to choose from.
        folder (str or Path): Of the images.
        prompt (str): Gets ``{attribute}`` and ``{name}``, the class. Defaults to
            'a photo of a {attribute} {name}'.
        device (str): Defaults to 'cpu'.
        upright (bool): Whether images are turned by their EXIF entry. Defaults to
            False.
    """

    def __init__(
        self,
        model: str,
        weights: str,
        words: Sequence[str],
        folder: str | Path,
        prompt: str = 'a photo of a {attribute} {name}',
        device: str = 'cpu',
        upright: bool = False,
    ) -> None:
        self.clip = CropTextCLIP(model, weights, context=None, template='{}')
        self.clip.init_weights()
        self.clip.to(device)
        self.words, self.folder, self.prompt = list(words), Path(folder), prompt
        self.upright = upright
        self._known: dict[str, torch.Tensor] = {}

    def _texts(self, name: str) -> torch.Tensor:
        """Embeddings of all attributes with a class, (A, C)."""
        if name not in self._known:
            texts = [self.prompt.format(attribute=w, name=name) for w in self.words]
            self._known[name] = self.clip.encode_texts(texts)
        return self._known[name]

    def __call__(self, scene: Scene, detections: list[Detection]) -> list[Detection]:
        """Detections with their most likely attribute and its probability."""
        with open_image(self.folder / scene.file_name) as file:
            image = as_rgb(file, self.upright)
        boxes = torch.tensor([item.box for item in detections], dtype=torch.float64)
        (crops,) = self.clip.encode_crops([image], [boxes])
        described = []
        for item, crop in zip(detections, crops, strict=True):
            logits = self.clip.match(self._texts(item.name), crop[None])[:, 0]
            score, index = logits.softmax(0).max(0)
            described.append(
                replace(
                    item,
                    attribute=self.words[int(index)],
                    attribute_score=float(score),
                )
            )
        return described
