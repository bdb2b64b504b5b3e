"""Zero-shot grounding: proposals, a frozen CLIP, and geometry; nothing is trained."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, OptSampleList, SampleList
from mmdet.utils import ConfigType
from torch import Tensor

from projects.clip_vg_core.pseudo_labels.naming import detection_logits
from projects.clip_vg_core.pseudo_labels.vocabulary import Vocabulary
from projects.clip_vg_core.zero_shot.expression import parse_expression
from projects.clip_vg_core.zero_shot.scoring import GeometryWeights, ground_parsed

from .box_head import input_whwh
from .predictions import expressions_of, instances_of
from .proposals import Proposals, prune

__all__ = ['SIGNALS', 'ZeroShotGrounding']

SIGNALS = ('crop', 'blur', 'heat', 'category', 'score')


@MODELS.register_module()
class ZeroShotGrounding(BaseDetector):
    """The proposal that an expression means, by a frozen CLIP and by geometry.

    As in ReCLIP (arXiv 2204.05991) and GroundVLP (arXiv 2312.15043): CLIP compares
    proposals with the head phrase of the expression; place, size and relation are
    parsed by word lists and decided on the boxes. An image is encoded, and its
    proposals are found, once for all expressions; the predictions do not depend on how
    expressions are grouped.

    Inputs are RGB images of values 0 to 255, as
    ``dict(type='GroundingDataPreprocessor', bgr_to_rgb=True)`` gives them; their size
    is free. Weights are loaded by :meth:`init_weights`.

    Args:
        clip (dict): Config of a :obj:`CropTextCLIP`.
        proposals (dict): Config of the proposals: :obj:`DetectorProposals`,
            :obj:`FileProposals` or :obj:`GridProposals`.
        signals (dict): Weights of what is known of a proposal, of which 0 or none
            switches one off. Logits of CLIP for the head phrase: of a ``crop``; of the
            image with ``blur`` around the box; of the patches in the box, a ``heat``
            map, of a plain ViT alone. And 1 where the detector's ``category`` is what
            the phrase names; and the logarithm of its ``score``.
        geometry (dict): Options of :obj:`GeometryWeights`: ``place``, ``size``,
            ``relation``, 0 switches one off; ``margin``, ``softness``.
        max_iou (float): IoU above which two proposals are one. Defaults to 0.7.
        max_proposals (int): Most proposals of an image. Defaults to 40.
        data_preprocessor (dict, optional): Config of the preprocessor.
        init_cfg (dict, optional): Initialisation config. Defaults to None.

    Raises:
        ValueError: There is no such signal, or all are switched off.
    """

    # Tools run it without a checkpoint.
    needs_checkpoint = False

    def __init__(
        self,
        clip: ConfigType,
        proposals: ConfigType,
        signals: Mapping[str, float],
        geometry: Mapping[str, float] | None = None,
        max_iou: float = 0.7,
        max_proposals: int = 40,
        data_preprocessor: ConfigType | None = None,
        init_cfg: ConfigType | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        unknown = sorted(signals.keys() - set(SIGNALS))
        if unknown:
            raise ValueError(f'signals has {unknown}; expected some of {SIGNALS}.')
        self.signals = {name: signals.get(name, 0.0) for name in SIGNALS}
        if not any(self.signals.values()):
            raise ValueError(
                f'signals={dict(signals)} are all switched off; expected a weight of '
                f'other than 0 for one of {SIGNALS}.'
            )
        self.geometry = GeometryWeights(**(geometry or {}))
        self.clip = MODELS.build(clip)
        self.proposals = MODELS.build(proposals)
        self.max_iou, self.max_proposals = max_iou, max_proposals
        self.vocabulary = Vocabulary.load()

    def train(self, mode: bool = True) -> 'ZeroShotGrounding':  # noqa: ARG002
        """Stay in eval mode: nothing is trained."""
        return super().train(False)

    @torch.inference_mode()
    def appearance(
        self,
        images: Sequence[Tensor],
        proposals: Sequence[Proposals],
        heads: Sequence[Sequence[str]],
    ) -> list[dict[str, np.ndarray]]:
        """Logits of the proposals of each image for head phrases.

        Args:
            images (Sequence[Tensor]): RGB, uint8, each of shape (3, H, W).
            proposals (Sequence[Proposals]): Of each image, K boxes.
            heads (Sequence[Sequence[str]]): Of each image, the phrases to look for.

        Returns:
            list[dict[str, np.ndarray]]: Of each image, logits (K, ) of each head.
        """
        distinct = sorted({head for own in heads for head in own})
        if not distinct:
            return [{} for _ in images]
        texts = dict(zip(distinct, self.clip.encode_texts(distinct), strict=True))
        logits: list[dict[str, np.ndarray]] = []
        for image, own, phrases in zip(images, proposals, heads, strict=True):
            names = list(dict.fromkeys(phrases))
            if not names:
                logits.append({})
                continue
            embedded = torch.stack([texts[name] for name in names])
            total = self._clip_logits(image, own.boxes, embedded).double().numpy()
            total = total + detection_logits(
                names,
                own.names,
                own.scores.double().cpu().numpy(),
                self.vocabulary,
                self.signals['category'],
                self.signals['score'],
            )
            logits.append(dict(zip(names, total, strict=True)))
        return logits

    def _clip_logits(self, image: Tensor, boxes: Tensor, texts: Tensor) -> Tensor:
        """Weighted logits (E, K) of an image's boxes for texts (E, C), on the CPU."""
        weights, clip = self.signals, self.clip
        total = torch.zeros(len(texts), len(boxes))
        views = {
            name: make(image, boxes)
            for name, make in (('crop', clip.crops), ('blur', clip.blurs))
            if weights[name]
        }
        if views:  # one pass of the tower for all of them
            embedded = clip.encode_views(torch.cat(list(views.values())))
            for name, part in zip(views, embedded.split(len(boxes)), strict=True):
                total += weights[name] * clip.match(texts, part)
        if weights['heat']:
            heat = clip.match(texts, clip.encode_patches(image))
            coverage = clip.patch_coverage(boxes.float(), *image.shape[-2:])
            total += weights['heat'] * heat @ coverage.cpu().T
        return total

    def ground(
        self,
        images: Sequence[Tensor],
        proposals: Sequence[Proposals],
        texts: Sequence[Sequence[str]],
    ) -> list[Tensor]:
        """Log probability of each proposal to be what an expression means.

        Args:
            images (Sequence[Tensor]): RGB, uint8, each of shape (3, H, W).
            proposals (Sequence[Proposals]): Of each image, K boxes.
            texts (Sequence[Sequence[str]]): Of each image, E expressions.

        Returns:
            list[Tensor]: Of each image, of shape (E, K), on the CPU.
        """
        parsed = [[parse_expression(text) for text in own] for own in texts]
        heads = [[head for item in own for head in item.heads] for own in parsed]
        logits = self.appearance(images, proposals, heads)
        grounded = []
        for image, boxes, own, scores in zip(
            images, proposals, parsed, logits, strict=True
        ):
            height, width = image.shape[-2:]
            array = boxes.boxes.double().cpu().numpy()
            rows = [
                ground_parsed(item, array, (width, height), scores, self.geometry)
                for item in own
            ]
            grounded.append(torch.from_numpy(np.stack(rows)).float())
        return grounded

    def score_boxes(
        self,
        images: Sequence[Tensor],
        boxes: Sequence[Tensor],
        texts: Sequence[Sequence[str]],
    ) -> list[Tensor]:
        """Log probabilities of given boxes, as :class:`CropTextCLIP` scores them.

        Args:
            images (Sequence[Tensor]): RGB, uint8, each of shape (3, H, W).
            boxes (Sequence[Tensor]): Of each image, xyxy in pixels, of shape (K, 4).
            texts (Sequence[Sequence[str]]): Of each image, E expressions.

        Returns:
            list[Tensor]: Of each image, of shape (E, K), on the CPU.
        """
        given = [Proposals(own, torch.ones(len(own))) for own in boxes]
        return self.ground(images, given, texts)

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True
    ) -> SampleList:
        """Predict a box for every expression of every image.

        Args:
            batch_inputs (Tensor): RGB images of values 0 to 255, of shape
                (B, 3, H, W), padded.
            batch_data_samples (list[DetDataSample]): B samples with ``text``, one
                expression or several.
            rescale (bool): Whether boxes are in pixels of the original image, or of
                the padded input. Defaults to True.

        Returns:
            list[DetDataSample]: The samples with ``pred_instances``: ``bboxes``
            (E, 4) xyxy; ``scores``, the probability of the box among the proposals;
            ``labels`` 0, 1, ...; ``label_names``, the expressions.
        """
        placed = [_place(sample) for sample in batch_data_samples]
        images = [
            inputs[:, top : top + height, left : left + width].round().to(torch.uint8)
            for inputs, (left, top, width, height) in zip(
                batch_inputs, placed, strict=True
            )
        ]
        found = [
            prune(one, image.shape[-2:], self.max_iou, self.max_proposals)
            for one, image in zip(
                self.proposals(images, batch_data_samples), images, strict=True
            )
        ]
        texts = [expressions_of(sample) for sample in batch_data_samples]
        boxes, scores = [], []
        for one, grounded, (left, top, *_) in zip(
            found, self.ground(images, found, texts), placed, strict=True
        ):
            best = grounded.max(1)
            corner = one.boxes.new_tensor([left, top, left, top])
            boxes.append(one.boxes[best.indices.to(one.boxes.device)] + corner)
            scores.append(best.values.exp().to(one.boxes.device))
        flat, counts = torch.cat(boxes), [len(own) for own in texts]
        shares = flat / input_whwh(batch_data_samples, counts, flat)
        instances = instances_of(batch_data_samples, shares, torch.cat(scores), rescale)
        return self.add_pred_to_datasample(batch_data_samples, instances)

    def loss(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        """There is none.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            'ZeroShotGrounding is not trained: test it with tools/test.py CONFIG, or '
            'score pseudo-labels with tools/score_reliability.py --zero-shot.'
        )

    def extract_feat(self, batch_inputs: Tensor) -> Tensor:
        """Embeddings (B, C) of whole images of CLIP's size, of values 0 to 255."""
        whole = [
            self.clip.crops(image, image.new_tensor([[0, 0, *image.shape[:0:-1]]]))
            for image in batch_inputs
        ]
        return self.clip.encode_views(torch.cat(whole))

    def _forward(
        self, batch_inputs: Tensor, batch_data_samples: OptSampleList = None
    ) -> list[DetDataSample]:
        """The predictions: there is nothing before them."""
        assert batch_data_samples is not None
        return self.predict(batch_inputs, batch_data_samples)


def _place(sample: DetDataSample) -> tuple[int, int, int, int]:
    """Left, top, width and height of a sample's image in its input, in pixels."""
    height, width = sample.img_shape[:2]
    return tuple(sample.get('letterbox', (0, 0, width, height)))
