"""How good an answer is: one fused ``[REG]`` token in, one score out."""

import re
from collections import Counter
from collections.abc import Sequence

import torch
from mmdet.models.layers import MLP
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_overlaps
from mmdet.utils import ConfigType, OptMultiConfig
from mmengine.model import BaseModule
from torch import Tensor
from torch.nn import functional as F

from ..checkpoints.renamed_options import accept_old_names
from .box_head import true_boxes

__all__ = ['GroundingConfidenceHead', 'reached_iou', 'sample_negative_pairs']

_BINARY = dict(type='CrossEntropyLoss', use_sigmoid=True)


@MODELS.register_module()
@accept_old_names
class GroundingConfidenceHead(BaseModule):
    """Tell from the fused ``[REG]`` token how good the answered box will be.

    The score is the IoU, in [0, 1], that the box is expected to have with what is
    meant; of an expression that refers to nothing in the picture, it is 0.

    Args:
        embed_dims (int): Width D of the ``[REG]`` token.
        num_layers (int): Linear layers of the MLP. Defaults to 3.
        loss (dict, optional): Loss on logits and IoUs, both of shape (N, 1). Defaults
            to None: binary cross-entropy, which is least where the score is the mean
            IoU.
        detach (bool): Whether its gradient ends at the token, so that nothing but
            this head is trained by it. Defaults to False.
        neg_ratio (float): Negative (image, expression) pairs for each pair of the
            batch, drawn during training from expressions of the other images.
            Defaults to 0.
        freeze_detector (bool): Whether the rest of the detector is frozen, and this
            head trained on top of it: a checkpoint without it may then be loaded.
            Defaults to False.
        init_cfg (dict or list[dict], optional): Initialisation config. Defaults to
            None.

    Raises:
        ValueError: ``neg_ratio`` is negative.
    """

    def __init__(
        self,
        embed_dims: int,
        num_layers: int = 3,
        loss: ConfigType | None = None,
        detach: bool = False,
        neg_ratio: float = 0.0,
        freeze_detector: bool = False,
        init_cfg: OptMultiConfig = None,
    ) -> None:
        super().__init__(init_cfg)
        if neg_ratio < 0:
            raise ValueError(
                f'neg_ratio={neg_ratio}; expected a ratio from 0, e.g. 0.5.'
            )
        self.mlp = MLP(embed_dims, embed_dims, 1, num_layers)
        self.loss_confidence = MODELS.build(loss or _BINARY)
        self.detach = detach or freeze_detector
        self.neg_ratio = neg_ratio
        self.freeze_detector = freeze_detector

    def forward(self, reg_token: Tensor) -> Tensor:
        """Map tokens of shape (E, D) to scores in [0, 1] of shape (E, )."""
        return self._logits(reg_token).sigmoid().squeeze(-1)

    def loss(
        self, reg_token: Tensor, reached: Tensor, negative_token: Tensor
    ) -> dict[str, Tensor]:
        """Compare the scores with what the boxes have reached.

        Args:
            reg_token (Tensor): Fused tokens of shape (E, D).
            reached (Tensor): IoUs of their boxes, of shape (E, ).
            negative_token (Tensor): Fused tokens of shape (N, D) of expressions that
                refer to nothing.

        Returns:
            dict[str, Tensor]: The scalar ``loss_confidence``.
        """
        tokens = torch.cat([reg_token, negative_token])
        logits = self._logits(tokens.detach() if self.detach else tokens)
        target = F.pad(reached.detach(), (0, len(negative_token)))[:, None]
        return dict(loss_confidence=self.loss_confidence(logits, target))

    def _logits(self, reg_token: Tensor) -> Tensor:
        """Logits (E, 1), in float32 whatever the tokens come in."""
        return self.mlp(reg_token).float()


def reached_iou(boxes: Tensor, data_samples: SampleList) -> Tensor:
    """IoU of answered boxes with the labels' boxes.

    Args:
        boxes (Tensor): xyxy in [0, 1] of the padded input, of shape (E, 4).
        data_samples (list[DetDataSample]): Samples with E boxes in all, xyxy in
            pixels of the padded input.

    Returns:
        Tensor: Of shape (E, ).
    """
    return bbox_overlaps(boxes, true_boxes(data_samples, boxes), is_aligned=True)


def sample_negative_pairs(
    texts: Sequence[Sequence[str]], most: int
) -> tuple[list[int], list[int]]:
    """Draw pictures, and expressions that likely refer to nothing in them.

    An expression is one of another picture of the batch. Many would be true all the
    same ("left object"), so those are left out that several pictures have, or that
    have a word in common with the picture's own.

    Args:
        texts (Sequence[Sequence[str]]): The expressions of each picture.
        most (int): How many pairs to draw, if there are as many.

    Returns:
        tuple[list[int], list[int]]: Pictures, ascending, and expressions, numbered
        through all pictures.
    """
    words = [[frozenset(re.findall(r'\w+', t.lower())) for t in own] for own in texts]
    vocabulary = [frozenset().union(*own) for own in words]
    holders = Counter(said for own in words for said in set(own))
    candidates = [
        (number, said)
        for number, said in enumerate(said for own in words for said in own)
        if said and holders[said] == 1
    ]
    pairs = [
        (picture, number)
        for picture, known in enumerate(vocabulary)
        for number, said in candidates
        if said.isdisjoint(known)
    ]
    drawn = sorted(pairs[i] for i in torch.randperm(len(pairs))[:most].tolist())
    return [picture for picture, _ in drawn], [number for _, number in drawn]
