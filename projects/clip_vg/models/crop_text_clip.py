"""CLIP on crops of an image and texts: how well each crop matches each text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from mmdet.registry import MODELS
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.utils import to_2tuple
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import pad
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import (
    center_crop,
    crop,
    normalize,
    pil_to_tensor,
    resize,
)

from ..checkpoints.clip_weights import ClipFile, read_clip_file, resolve_weights
from .clip_tower import clip_config, freeze, load_clip_tower
from .expression_tokenizer import ExpressionTokenizer

__all__ = ['CropTextCLIP', 'pixels_of', 'square_around']


def square_around(box: Sequence[float], context: float) -> tuple[int, int, int]:
    """The square of pixels around a box.

    Args:
        box (Sequence[float]): xyxy in pixels.
        context (float): Side of the square in longer sides of the box.

    Returns:
        tuple[int, int, int]: Top, left, side; it may pass the borders of the image.
    """
    left, top, right, bottom = box
    side = max(1, round(context * max(right - left, bottom - top)))
    return round((top + bottom - side) / 2), round((left + right - side) / 2), side


def pixels_of(box: Sequence[float]) -> tuple[int, int, int, int]:
    """The pixels that a box touches, at least one.

    Args:
        box (Sequence[float]): xyxy in pixels.

    Returns:
        tuple[int, int, int, int]: Top, left, height, width.
    """
    left, top = int(box[0]), int(box[1])
    right, bottom = (-int(-edge // 1) for edge in box[2:])
    return top, left, max(1, bottom - top), max(1, right - left)


@MODELS.register_module()
class CropTextCLIP(nn.Module):
    """Frozen CLIP with both towers, for zero-shot matching of crops and texts.

    Images are RGB, of Pillow or uint8 tensors of shape (3, H, W); boxes xyxy in their
    pixels, of shape (K, 4). Weights are loaded by :meth:`init_weights`.

    Args:
        arch (str or dict): See :func:`clip_config`; here of any towers.
        pretrained (str): A tag of open_clip or a local file.
        context (float, optional): Side of a square crop in longer sides of its box,
            black beyond the image. None: the box itself, whose shorter side is
            resized to CLIP's and whose middle is taken, as open_clip prepares an
            image. Defaults to 1.5: more of the image than the box, as in CLIP's
            training data.
        template (str): Prompt template. Defaults to 'a photo of {}', after OpenAI's.
        mean (Sequence[float], optional): RGB mean that CLIP was trained with, of
            [0, 255]. Defaults to None: of the tag, else OpenAI's.
        std (Sequence[float], optional): Of the same. Defaults to None: likewise.

    Raises:
        ValueError: The architecture is unknown.
    """

    def __init__(
        self,
        arch: str | dict,
        pretrained: str,
        context: float | None = 1.5,
        template: str = 'a photo of {}',
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.arch, self.pretrained = arch, pretrained
        self.config = clip_config(arch, any_tower=True)
        self.is_init = False
        net = open_clip.CustomTextCLIP(
            self.config['embed_dim'],
            self.config['vision_cfg'],
            self.config['text_cfg'],
            quick_gelu=self.config.get('quick_gelu', False),
        )
        self.net = net.eval()
        freeze(self.net)
        known: dict[str, Any] = {}
        if isinstance(arch, str):
            known = open_clip.get_pretrained_cfg(arch, pretrained) or {}
        self.mean = mean or [255 * m for m in known.get('mean', OPENAI_DATASET_MEAN)]
        self.std = std or [255 * s for s in known.get('std', OPENAI_DATASET_STD)]
        self.squash = known.get('resize_mode') == 'squash'
        self.context, self.template = context, template
        self.image_size = to_2tuple(net.visual.image_size)
        # Other vocabularies come with their own tokenizer, which cuts and pads.
        self.tokenize: Any = (
            open_clip.get_tokenizer(arch)
            if isinstance(arch, str) and 'hf_tokenizer_name' in self.config['text_cfg']
            else ExpressionTokenizer(net.text.context_length, template)
        )

    def init_weights(self) -> None:
        """Load CLIP's weights, unless that is done.

        Raises:
            ValueError: They cannot be had, or do not fit.
        """
        if self.is_init:
            return
        known: dict[Path, ClipFile] = {}  # one reading for both towers and the scale
        for tower in ('visual', 'text'):
            module = getattr(self.net, tower)
            load_clip_tower(
                module, tower, self.arch, self.config, self.pretrained, known
            )
        path = resolve_weights(self.arch, self.pretrained)
        state = read_clip_file(path, known).state
        self.net.logit_scale.data.copy_(state['logit_scale'])
        self.is_init = True

    def crops(self, image: Image.Image | Tensor, boxes: Tensor) -> Tensor:
        """Crops of an image, of CLIP's size and normalised.

        Args:
            image (PIL.Image.Image or Tensor): The image.
            boxes (Tensor): Of shape (K, 4).

        Returns:
            Tensor: Of shape (K, 3, S, S).
        """
        height, width = self.image_size
        cut = []
        for box in boxes.tolist():
            if self.context is None:
                # Of a side only, torchvision resizes the shorter one.
                size = [height, width] if self.squash else [min(height, width)]
                part = crop(image, *pixels_of(box))
            else:
                top, left, side = square_around(box, self.context)
                part, size = crop(image, top, left, side, side), [height, width]
            part = resize(part, size, InterpolationMode.BICUBIC)
            part = center_crop(part, [height, width])
            if isinstance(part, Image.Image):
                part = pil_to_tensor(part)
            cut.append(normalize(part.float(), list(self.mean), list(self.std)))
        return torch.stack(cut)

    @torch.inference_mode()
    def encode_crops(
        self, images: Sequence[Image.Image | Tensor], boxes: Sequence[Tensor]
    ) -> list[Tensor]:
        """Embeddings of the crops of several images, in one batch.

        Args:
            images (Sequence): The images.
            boxes (Sequence[Tensor]): Of each image, of shape (K, 4).

        Returns:
            list[Tensor]: Of each image, unit vectors of shape (K, C).
        """
        crops = [self.crops(i, b) for i, b in zip(images, boxes, strict=True)]
        device = self.net.logit_scale.device
        features = self.net.encode_image(torch.cat(crops).to(device), normalize=True)
        return list(features.split([len(own) for own in boxes]))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of texts in the prompt template, unit vectors (E, C)."""
        if isinstance(self.tokenize, ExpressionTokenizer):
            tokens = self.tokenize(texts)
            beyond = self.tokenize.context_length - tokens.shape[1]
            tokens = pad(tokens, (0, beyond))  # open_clip's mask is of all positions
        else:
            tokens = self.tokenize([self.template.format(text) for text in texts])
        device = self.net.logit_scale.device
        return self.net.encode_text(tokens.to(device), normalize=True)

    @torch.inference_mode()
    def match(self, texts: Tensor, crops: Tensor) -> Tensor:
        """Logits of shape (E, K), on the CPU: cosines times CLIP's learned scale.

        Args:
            texts (Tensor): Of :meth:`encode_texts`, of shape (E, C).
            crops (Tensor): Of an image, see :meth:`encode_crops`, of shape (K, C).
        """
        scale = self.net.logit_scale.exp()
        return (scale * texts @ crops.T).float().cpu()

    def forward(
        self,
        images: Sequence[Image.Image | Tensor],
        boxes: Sequence[Tensor],
        texts: Sequence[Sequence[str]],
    ) -> list[Tensor]:
        """How well each box of an image matches each of its texts.

        Args:
            images (Sequence): The images.
            boxes (Sequence[Tensor]): Of each image, of shape (K, 4).
            texts (Sequence[Sequence[str]]): E texts for each image.

        Returns:
            list[Tensor]: Of each image, logits of shape (E, K), on the CPU.
        """
        crops = self.encode_crops(images, boxes)
        # A text of several images is encoded once.
        distinct = sorted({text for own in texts for text in own})
        rows = {text: row for row, text in enumerate(distinct)}
        features = self.encode_texts(distinct)
        return [
            self.match(features[[rows[text] for text in own]], own_crops)
            for own, own_crops in zip(texts, crops, strict=True)
        ]
