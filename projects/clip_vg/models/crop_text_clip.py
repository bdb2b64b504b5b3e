"""CLIP as it was made: a picture's crop and a text, and how well they agree."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from mmdet.registry import MODELS
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn
from torch.nn.functional import pad
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import normalize, resized_crop

from ..checkpoints.clip_weights import ClipFile, read_clip_file, resolve_weights
from .clip_tower import clip_config, freeze, load_clip_tower
from .expression_tokenizer import ExpressionTokenizer

__all__ = ['CropTextCLIP', 'square_around']


def square_around(box: Sequence[float], context: float) -> tuple[int, int, int]:
    """The square of pixels around a box.

    Args:
        box (Sequence[float]): xyxy in pixels.
        context (float): Side of the square in longer sides of the box.

    Returns:
        tuple[int, int, int]: Top, left, side; it may reach beyond the picture.
    """
    left, top, right, bottom = box
    side = max(1, round(context * max(right - left, bottom - top)))
    return round((top + bottom - side) / 2), round((left + right - side) / 2), side


@MODELS.register_module()
class CropTextCLIP(nn.Module):
    """Whole CLIP, frozen: the agreement of crops of a picture with texts.

    Its weights are loaded by :meth:`init_weights`.

    Args:
        arch (str or dict): See :func:`clip_config`.
        pretrained (str): A tag of open_clip or a local file.
        context (float): Side of a square crop in longer sides of its box. Defaults
            to 1.5: more of the picture than the box, as CLIP has seen pictures.
        template (str): What is asked for an expression. Defaults to 'a photo of
            {}', after OpenAI's.
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
        context: float = 1.5,
        template: str = 'a photo of {}',
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
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
        if isinstance(arch, str):
            known = open_clip.get_pretrained_cfg(arch, pretrained) or {}
        self.mean = mean or [255 * m for m in known.get('mean', OPENAI_DATASET_MEAN)]
        self.std = std or [255 * s for s in known.get('std', OPENAI_DATASET_STD)]
        self.context = context
        self.tokenize = ExpressionTokenizer(net.text.context_length, template)

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

    def crops(self, picture: Tensor, boxes: Tensor) -> Tensor:
        """Squares around boxes, of CLIP's size and normalised.

        Args:
            picture (Tensor): RGB, uint8, of shape (3, H, W); black beyond.
            boxes (Tensor): xyxy in its pixels, of shape (K, 4).

        Returns:
            Tensor: Of shape (K, 3, S, S).
        """
        size = list(self.net.visual.image_size)
        cut = []
        for box in boxes.tolist():
            top, left, side = square_around(box, self.context)
            square = resized_crop(
                picture, top, left, side, side, size, InterpolationMode.BICUBIC
            )
            cut.append(normalize(square.float(), list(self.mean), list(self.std)))
        return torch.stack(cut)

    @torch.inference_mode()
    def forward(
        self,
        pictures: Sequence[Tensor],
        boxes: Sequence[Tensor],
        texts: Sequence[Sequence[str]],
    ) -> list[Tensor]:
        """How well each box of a picture fits each of its texts.

        Args:
            pictures (Sequence[Tensor]): RGB, uint8, each of shape (3, H, W).
            boxes (Sequence[Tensor]): xyxy in pixels, each of shape (K, 4).
            texts (Sequence[Sequence[str]]): E texts for each picture.

        Returns:
            list[Tensor]: Logits of shape (E, K) for each picture: cosines times
            CLIP's learned scale, on the CPU.
        """
        device = self.net.logit_scale.device
        crops = [self.crops(p, b) for p, b in zip(pictures, boxes, strict=True)]
        images = self.net.encode_image(torch.cat(crops).to(device), normalize=True)
        asked = sorted({text for some in texts for text in some})
        tokens = self.tokenize(asked)
        beyond = self.tokenize.context_length - tokens.shape[1]
        tokens = pad(tokens, (0, beyond)).to(device)  # open_clip's mask is of all
        words = self.net.encode_text(tokens, normalize=True)
        place = {text: row for row, text in enumerate(asked)}
        scale = self.net.logit_scale.exp()
        found = []
        for some, own in zip(texts, images.split([len(b) for b in boxes]), strict=True):
            rows = words[[place[text] for text in some]]
            found.append((scale * rows @ own.T).float().cpu())
        return found
