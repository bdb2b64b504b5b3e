"""CLIP on crops of an image and texts: how well each crop matches each text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from mmdet.registry import MODELS
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.transformer import VisionTransformer
from open_clip.utils import to_2tuple
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize as unit
from torch.nn.functional import pad
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import (
    center_crop,
    crop,
    gaussian_blur,
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
        arch (str or dict): See :func:`clip_config`.
        pretrained (str, optional): A tag of open_clip or a local file; None: random
            weights.
        context (float, optional): Side of a square crop in longer sides of its box,
            black beyond the image. None: the box itself, whose shorter side is
            resized to CLIP's and whose middle is taken, as open_clip prepares an
            image. Defaults to 1.5: more of the image than the box, as in CLIP's
            training data.
        template (str): Prompt template. Defaults to 'a photo of {}', after OpenAI's.
        mean (Sequence[float], optional): RGB mean that CLIP was trained with, of
            [0, 255]. Defaults to None: of the tag, else OpenAI's.
        std (Sequence[float], optional): Of the same. Defaults to None: likewise.
        blur (float): Standard deviation of the blur around a box, in sides of CLIP's
            image; see :meth:`blurs`. Defaults to 0.1.

    Raises:
        ValueError: The architecture is unknown.
    """

    def __init__(
        self,
        arch: str | dict,
        pretrained: str | None,
        context: float | None = 1.5,
        template: str = 'a photo of {}',
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        blur: float = 0.1,
    ) -> None:
        super().__init__()
        self.blur = blur
        self.arch, self.pretrained = arch, pretrained
        self.config = clip_config(arch)
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
        if isinstance(arch, str) and pretrained:
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
        if self.is_init or self.pretrained is None:
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

    def whole(self, image: Image.Image | Tensor) -> Tensor:
        """An image in the middle of a square of CLIP's size, black beyond it.

        Args:
            image (PIL.Image.Image or Tensor): The image.

        Returns:
            Tensor: uint8, of shape (3, S, S).
        """
        if isinstance(image, Image.Image):
            return self.whole(pil_to_tensor(image))
        height, width = image.shape[-2:]
        top, left, side = square_around((0, 0, width, height), 1)
        square = crop(image, top, left, side, side)
        return resize(square, list(self.image_size), InterpolationMode.BICUBIC)

    def in_whole(self, boxes: Tensor, height: int, width: int) -> Tensor:
        """Boxes (K, 4) of an image in pixels of :meth:`whole`."""
        top, left, side = square_around((0, 0, width, height), 1)
        shift = boxes.new_tensor([left, top, left, top])
        return (boxes - shift) * (self.image_size[0] / side)

    def blurs(self, image: Image.Image | Tensor, boxes: Tensor) -> Tensor:
        """The whole image, sharp in a box and blurred around it, as in ReCLIP.

        Args:
            image (PIL.Image.Image or Tensor): The image.
            boxes (Tensor): Of shape (K, 4).

        Returns:
            Tensor: Normalised, of shape (K, 3, S, S).
        """
        if isinstance(image, Image.Image):
            return self.blurs(pil_to_tensor(image), boxes)
        square = self.whole(image)
        sigma = self.blur * self.image_size[0]
        # As many pixels as there are, or three standard deviations to each side.
        kernel = 2 * min(round(3 * sigma), self.image_size[0] - 1) + 1
        blurred = gaussian_blur(square, [kernel, kernel], [sigma, sigma])
        views = []
        for box in self.in_whole(boxes, *image.shape[-2:]).clamp(min=0).tolist():
            top, left, height, width = pixels_of(box)
            view = blurred.clone()
            sharp = slice(top, top + height), slice(left, left + width)
            view[:, sharp[0], sharp[1]] = square[:, sharp[0], sharp[1]]
            views.append(normalize(view.float(), list(self.mean), list(self.std)))
        return torch.stack(views)

    @torch.inference_mode()
    def encode_views(self, views: Tensor, batch_size: int = 64) -> Tensor:
        """Embeddings of normalised images (N, 3, S, S), unit vectors (N, C)."""
        scale = self.net.logit_scale
        return torch.cat(
            [
                self.net.encode_image(part.to(scale), normalize=True)
                for part in views.split(batch_size)
            ]
        )

    @property
    def has_patches(self) -> bool:
        """Whether the visual tower is a plain ViT, see :meth:`encode_patches`."""
        visual = self.net.visual
        return isinstance(visual, VisionTransformer) and visual.attn_pool is None

    @torch.inference_mode()
    def encode_patches(self, image: Image.Image | Tensor) -> Tensor:
        """Embeddings of the patches of :meth:`whole`, through CLIP's projection.

        Args:
            image (PIL.Image.Image or Tensor): The image.

        Returns:
            Tensor: Unit vectors in rows of patches, of shape (P, C).

        Raises:
            ValueError: The visual tower is no plain ViT.
        """
        if not self.has_patches:
            raise ValueError(
                f'{self.arch!r}: the heat map of patches needs a plain ViT of '
                f'open_clip, not {type(self.net.visual).__name__}; switch it off by '
                'signals=dict(heat=0).'
            )
        visual: Any = self.net.visual
        square = self.whole(image)
        view = normalize(square.float(), list(self.mean), list(self.std))
        embedded = visual._embeds(view[None].to(self.net.logit_scale))
        tokens = visual.ln_post(visual.transformer(embedded)[0, 1:])
        return unit(tokens if visual.proj is None else tokens @ visual.proj, dim=-1)

    def patch_coverage(self, boxes: Tensor, height: int, width: int) -> Tensor:
        """Shares of the patches of :meth:`whole` in boxes of an image.

        Args:
            boxes (Tensor): Of shape (K, 4).
            height (int): Of the image, in pixels.
            width (int): Of the image, in pixels.

        Returns:
            Tensor: Of shape (K, P); each row sums to 1.
        """
        visual: Any = self.net.visual
        shares = []
        within = self.in_whole(boxes, height, width)
        for axis, count in ((1, visual.grid_size[0]), (0, visual.grid_size[1])):
            edges = torch.arange(count + 1).to(within) * self.image_size[0] / count
            low = within[:, axis, None].clamp(max=self.image_size[0] - 1)
            high = torch.maximum(within[:, axis + 2, None], low + 1)
            shared = torch.minimum(high, edges[1:]) - torch.maximum(low, edges[:-1])
            shares.append(shared.clamp(min=0))
        cells = (shares[0][:, :, None] * shares[1][:, None]).flatten(1)
        return cells / cells.sum(1, keepdim=True)

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
