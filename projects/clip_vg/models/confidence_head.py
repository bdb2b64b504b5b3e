"""Confidence head: one fused ``[REG]`` token in, one score out."""

import re
from collections import Counter
from collections.abc import Sequence

import torch
from mmdet.models.layers import MLP
from mmdet.registry import MODELS
from mmdet.utils import ConfigType, OptMultiConfig
from mmengine.model import BaseModule
from torch import Tensor
from torch.nn import functional as F

from ..checkpoints.renamed_options import accept_old_names

__all__ = ['GroundingConfidenceHead', 'sample_negative_pairs']

_BINARY = dict(type='CrossEntropyLoss', use_sigmoid=True)


@MODELS.register_module()
@accept_old_names
class GroundingConfidenceHead(BaseModule):
    """Predict from the fused ``[REG]`` token the IoU of the predicted box.

    The score is the IoU, in [0, 1], that the box is expected to have with a referent of
    its own; of a box that has none, as all of an expression without a referent in the
    image, it is 0. So it tells whether a box is a target, be there one box or several.

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
        target (str): What a score is of a box that is matched with a referent: 'iou',
            the IoU that it has, or 'presence', 1: then scores say whether there is a
            referent, and nothing of how well the box fits it. Defaults to 'iou'.
        init_cfg (dict or list[dict], optional): Initialisation config. Defaults to
            None.

    Raises:
        ValueError: ``neg_ratio`` is negative, or ``target`` unknown.
    """

    def __init__(
        self,
        embed_dims: int,
        num_layers: int = 3,
        loss: ConfigType | None = None,
        detach: bool = False,
        neg_ratio: float = 0.0,
        freeze_detector: bool = False,
        target: str = 'iou',
        init_cfg: OptMultiConfig = None,
    ) -> None:
        super().__init__(init_cfg)
        if neg_ratio < 0:
            raise ValueError(
                f'neg_ratio={neg_ratio}; expected a ratio from 0, e.g. 0.5.'
            )
        if target not in ('iou', 'presence'):
            raise ValueError(f"target={target!r}; expected 'iou' or 'presence'.")
        self.mlp = MLP(embed_dims, embed_dims, 1, num_layers)
        self.loss_confidence = MODELS.build(loss or _BINARY)
        # Below a frozen detector there is nothing that a gradient could train.
        self.detach = detach or freeze_detector
        self.target = target
        self.neg_ratio = neg_ratio
        self.freeze_detector = freeze_detector

    def forward(self, reg_token: Tensor) -> Tensor:
        """Map tokens of shape (N, D) to scores in [0, 1] of shape (N, )."""
        return self.logits(reg_token).sigmoid()

    def score_targets(self, ious: Tensor) -> Tensor:
        """What the scores (M, ) of boxes with targets shall be, by their IoUs (M, )."""
        return ious if self.target == 'iou' else torch.ones_like(ious)

    def loss(
        self, reg_token: Tensor, reached: Tensor, negative_token: Tensor
    ) -> dict[str, Tensor]:
        """Compare the scores with the IoUs of the boxes.

        Args:
            reg_token (Tensor): Fused tokens of shape (N, D).
            reached (Tensor): What :meth:`score_targets` gives of the boxes that have a
                target, 0 of the others, of shape (N, ).
            negative_token (Tensor): Fused tokens of shape (M, D) of negative
                pairs, whose target is 0.

        Returns:
            dict[str, Tensor]: The scalar ``loss_confidence``.
        """
        tokens = torch.cat([reg_token, negative_token])
        logits = self._logits(tokens.detach() if self.detach else tokens)
        # 0 for negative pairs: a box of nothing overlaps with nothing.
        target = F.pad(reached.detach(), (0, len(negative_token)))[:, None]
        return dict(loss_confidence=self.loss_confidence(logits, target))

    def logits(self, reg_token: Tensor) -> Tensor:
        """Map tokens of shape (N, D) to the logits of their scores, (N, )."""
        return self._logits(reg_token).squeeze(-1)

    def _logits(self, reg_token: Tensor) -> Tensor:
        """Logits (N, 1), in float32 whatever the tokens come in."""
        return self.mlp(reg_token).float()


def sample_negative_pairs(
    texts: Sequence[Sequence[str]], most: int
) -> tuple[list[int], list[int]]:
    """Draw negative pairs: images, and expressions that likely have no referent there.

    An expression is one of another image of the batch. Many would be true all the
    same ("left object"), so those are left out that several images have, or that
    have a word in common with the image's own.

    Args:
        texts (Sequence[Sequence[str]]): The expressions of each image.
        most (int): How many pairs to draw, if there are as many.

    Returns:
        tuple[list[int], list[int]]: Images, ascending, and expressions, numbered
        through all images.
    """
    words = [[frozenset(re.findall(r'\w+', t.lower())) for t in own] for own in texts]
    vocabulary = [frozenset().union(*own) for own in words]
    # An expression of several images has a referent in each of them.
    holders = Counter(bag for own in words for bag in set(own))
    candidates = [
        (number, bag)
        for number, bag in enumerate(bag for own in words for bag in own)
        if bag and holders[bag] == 1
    ]
    pairs = [
        (image, number)
        for image, known in enumerate(vocabulary)
        for number, bag in candidates
        if bag.isdisjoint(known)
    ]
    # Ascending, as the fusion takes the expressions of an image together.
    drawn = sorted(pairs[i] for i in torch.randperm(len(pairs))[:most].tolist())
    return [image for image, _ in drawn], [number for _, number in drawn]
