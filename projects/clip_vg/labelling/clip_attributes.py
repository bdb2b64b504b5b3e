"""Attributes by CLIP: which word fits a crop best."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from projects.clip_vg_core.pseudo_labels.detection import Detection, Scene
from projects.clip_vg_core.utils.image_files import as_rgb, open_image

__all__ = ['ClipAttributes']


class ClipAttributes:
    """Zero-shot attributes of detections.

    Args:
        model (str): A CLIP of open_clip, such as 'ViT-B-16-quickgelu'.
        weights (str): Its tag or a file.
        words (Sequence[str]): The attributes to choose from.
        folder (str or Path): Of the pictures.
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
        import open_clip

        self.net, _, self.prepare = open_clip.create_model_and_transforms(
            model, pretrained=weights, device=device
        )
        self.net.eval()
        self.tokenize = open_clip.get_tokenizer(model)
        self.words, self.folder, self.prompt = list(words), Path(folder), prompt
        self.device, self.upright = device, upright
        self._known: dict[str, torch.Tensor] = {}

    @torch.inference_mode()
    def _texts(self, name: str) -> torch.Tensor:
        """Embeddings of all attributes said of a class, (A, D)."""
        if name not in self._known:
            texts = [self.prompt.format(attribute=w, name=name) for w in self.words]
            tokens = self.tokenize(texts).to(self.device)
            self._known[name] = self.net.encode_text(tokens, normalize=True)
        return self._known[name]

    @torch.inference_mode()
    def __call__(self, scene: Scene, detections: list[Detection]) -> list[Detection]:
        """Detections with their most likely attribute and its probability."""
        with open_image(self.folder / scene.file_name) as file:
            picture = as_rgb(file, self.upright)
        crops = torch.stack(
            [self.prepare(picture.crop(_whole_pixels(d.box))) for d in detections]
        )
        images = self.net.encode_image(crops.to(self.device), normalize=True)
        scale = self.net.logit_scale.exp()
        found = []
        for item, image in zip(detections, images, strict=True):
            sure, index = (scale * self._texts(item.name) @ image).softmax(0).max(0)
            found.append(
                replace(
                    item, attribute=self.words[int(index)], attribute_score=float(sure)
                )
            )
        return found


def _whole_pixels(box: Sequence[float]) -> tuple[int, int, int, int]:
    """The pixels that a box touches."""
    left, top, right, bottom = box
    return (
        int(left),
        int(top),
        max(int(left) + 1, -int(-right // 1)),
        max(int(top) + 1, -int(-bottom // 1)),
    )
