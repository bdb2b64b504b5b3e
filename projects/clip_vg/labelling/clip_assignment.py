"""Which box of an image a text means, by CLIP: crops matched with the text."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from projects.clip_vg_core.pseudo_labels.detection import Scene
from projects.clip_vg_core.utils.image_files import as_rgb, open_image

from ..models.crop_text_clip import CropTextCLIP

__all__ = ['ClipAssignment']


class ClipAssignment:
    """Zero-shot probabilities of texts to mean boxes.

    Args:
        model (str): A CLIP of open_clip, such as 'ViT-B-16-quickgelu'.
        weights (str): Its tag or a file.
        folder (str or Path): Of the images.
        device (str): Defaults to 'cpu'.
        upright (bool): Whether images are turned by their EXIF entry. Defaults to
            False.
    """

    def __init__(
        self,
        model: str,
        weights: str,
        folder: str | Path,
        device: str = 'cpu',
        upright: bool = False,
    ) -> None:
        self.clip = CropTextCLIP(model, weights)
        self.clip.init_weights()
        self.clip.to(device)
        self.folder, self.upright = Path(folder), upright

    def __call__(
        self, scene: Scene, texts: Sequence[str], boxes: np.ndarray
    ) -> np.ndarray:
        """Probabilities of shape (E, K), each row of which sums to 1.

        Args:
            scene (Scene): The image.
            texts (Sequence[str]): E texts.
            boxes (np.ndarray): xyxy in pixels of the image, of shape (K, 4).
        """
        with open_image(self.folder / scene.file_name) as file:
            image = as_rgb(file, self.upright)
        (logits,) = self.clip([image], [torch.from_numpy(boxes)], [list(texts)])
        return logits.softmax(1).double().numpy()
