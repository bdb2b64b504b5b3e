"""CLIP-VG: visual grounding with the two towers of CLIP (arXiv 2305.08685)."""

from contextlib import nullcontext
from math import ceil
from typing import Any, NamedTuple

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures import OptSampleList, SampleList
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps
from mmdet.utils import ConfigType
from torch import Tensor, nn
from torch.nn import functional as F

from ..checkpoints.frozen_weights import fill_frozen
from ..checkpoints.strict_loading import refuse_broken_weights
from .box_head import true_boxes
from .clip_tower import (
    clip_read_once,
    log_interpolation,
    resize_text_positions,
    resize_visual_positions,
)
from .confidence_head import sample_negative_pairs
from .data_preprocessor import pixel_padding
from .matching import MATCHER, match_targets, target_expressions
from .predictions import expressions_of, instances_of
from .visual_token_cache import VisualTokenLookup
from .visual_token_folder import VisualTokenFolder

__all__ = ['CLIPVG']

# Of a tower's config: weights are known by their hash, the others change no token.
_NOT_COMPUTED = ('pretrained', 'init_cfg', 'with_cp')
_FUSED_AT_ONCE = 32  # expressions, in prediction: more are no faster on a CPU


class _Encoded(NamedTuple):
    """Encoded tokens of B images and of E expressions that refer to them.

    Args:
        visual (Tensor): Of shape (B, 1 + P, Cv).
        patch_padding (Tensor): Of shape (B, P), on the CPU.
        text (Tensor): Of shape (E, L, Ct).
        text_padding (Tensor): Of shape (E, L), on the CPU.
        image_index (list[int]): The image of each expression, ascending.
    """

    visual: Tensor
    patch_padding: Tensor
    text: Tensor
    text_padding: Tensor
    image_index: list[int]


@MODELS.register_module()
class CLIPVG(BaseDetector):
    """CLIP-VG: CLIP's towers, a fusion transformer, a box head.

    An image is encoded once for all its expressions, and the predictions do not
    depend on how expressions are grouped. Each expression gets a box, or with
    ``num_queries`` Q > 1 as many boxes with scores, of which 0..n are its targets; Q
    boxes are matched with the targets as in DETR, one to one.

    Args:
        visual_encoder (dict): Config of the visual tower.
        text_encoder (dict): Config of the text tower.
        fusion (dict): Config of the fusion; widths and counts are taken from the
            towers.
        bbox_head (dict): Config of the box head; its width is the fusion's.
        data_preprocessor (dict, optional): Config of the preprocessor.
        confidence_head (dict, optional): Config of the head that scores the boxes;
            its width is the fusion's. Defaults to None: boxes have no scores, see
            ``scored``.
        num_queries (int): Boxes of each expression, Q. A checkpoint of fewer can be
            fine-tuned, see :class:`VisionLanguageFusion`. Defaults to 1, the published
            model.
        train_cfg (dict, optional): ``assigner``, the config of what matches queries
            with targets. Defaults to None: the Hungarian matching of ``MATCHER``.
        test_cfg (dict, optional): ``score_thr``, the least score of a prediction that
            is shown: by :obj:`GroundingInferencer` and all that is built on it, not by
            :meth:`predict`, since metrics need every score. Defaults to None: 0.5 with
            several queries, 0 with one, of which every prediction is shown.
        visual_token_dir (str, optional): Folder in which visual tokens are kept from
            run to run, of images that are not augmented and while the visual tower is
            frozen; see :class:`VisualTokenFolder`. An inferencer does not use it.
            Defaults to None: none.
        init_cfg (dict, optional): Initialisation config. Defaults to None.

    Raises:
        ValueError: There are several queries and no head that scores them, or
            ``score_thr`` is no score.
    """

    # Tools refuse checkpoints of other weights: see `refuse_other_weights`.
    loads_strictly = True
    # See `cache_visual_tokens`.
    visual_cache: VisualTokenLookup | None = None

    def __init__(
        self,
        visual_encoder: ConfigType,
        text_encoder: ConfigType,
        fusion: ConfigType,
        bbox_head: ConfigType,
        data_preprocessor: ConfigType | None = None,
        confidence_head: ConfigType | None = None,
        num_queries: int = 1,
        train_cfg: ConfigType | None = None,
        test_cfg: ConfigType | None = None,
        visual_token_dir: str | None = None,
        init_cfg: ConfigType | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        if num_queries > 1 and confidence_head is None:
            raise ValueError(
                f'num_queries={num_queries} without a confidence_head: nothing would '
                'tell which of the boxes are targets; add '
                "confidence_head=dict(type='GroundingConfidenceHead')."
            )
        self.num_queries = num_queries
        self.assigner = TASK_UTILS.build((train_cfg or {}).get('assigner', MATCHER))
        self.test_cfg = test_cfg or {}
        if not 0 <= self.score_thr <= 1:
            raise ValueError(
                f'test_cfg.score_thr={self.score_thr}; expected a score from 0 to 1.'
            )
        self.visual_encoder = MODELS.build(visual_encoder)
        self.text_encoder = MODELS.build(text_encoder)
        # What the towers know is handed on, so that a config states it once.
        self.fusion = MODELS.build(
            fusion,
            default_args=dict(
                visual_channels=self.visual_encoder.out_channels,
                text_channels=self.text_encoder.out_channels,
                grid_size=self.visual_encoder.grid_size,
                context_length=self.text_encoder.context_length,
                num_queries=num_queries,
                class_token=self.visual_encoder.class_token != 'none',
            ),
        )
        width = dict(embed_dims=self.fusion.embed_dims)
        self.bbox_head = MODELS.build(bbox_head, default_args=width)
        self.confidence_head: Any = None
        if confidence_head is not None:
            self.confidence_head = MODELS.build(confidence_head, default_args=width)
        for module in self._frozen_parts():
            module.requires_grad_(False)
        if visual_token_dir is not None:
            tower = {k: v for k, v in visual_encoder.items() if k not in _NOT_COMPUTED}
            settings = dict(visual_encoder=tower, data_preprocessor=data_preprocessor)
            self.cache_visual_tokens(VisualTokenFolder(visual_token_dir, settings))

    @property
    def score_thr(self) -> float:
        """Least score of a prediction that is shown; see ``test_cfg``."""
        return self.test_cfg.get('score_thr', 0.5 if self.num_queries > 1 else 0.0)

    @property
    def scored(self) -> bool:
        """Whether boxes have scores; without, those of :meth:`predict` only fill up."""
        return self.confidence_head is not None

    def _frozen_parts(self) -> list[nn.Module]:
        """All parts but the confidence head, if it is trained on a frozen detector."""
        if self.confidence_head is None or not self.confidence_head.freeze_detector:
            return []
        return [part for part in self.children() if part is not self.confidence_head]

    def train(self, mode: bool = True) -> 'CLIPVG':
        """Set the mode; a frozen detector stays in eval mode."""
        super().train(mode)
        for module in self._frozen_parts():
            module.eval()
        return self

    def init_weights(self) -> None:
        """Initialise all parts; both towers come from one reading of CLIP's file."""
        with clip_read_once(self):
            super().init_weights()
        self.visual_encoder.log_normalization(self.data_preprocessor)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        """Complete a checkpoint, fit its positions, and refuse NaN and integers."""
        with clip_read_once(self):
            # First: what is filled in is checked and fitted as well.
            fill_frozen(state_dict, prefix, self)
        refuse_broken_weights(
            {
                prefix + name: state_dict[prefix + name]
                for name, own in self.state_dict().items()
                if own.is_floating_point()
                and isinstance(state_dict.get(prefix + name), Tensor)
            }
        )
        self._fit_fused_positions(state_dict, prefix)
        self._fit_reg_tokens(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _fit_fused_positions(self, state: dict[str, Any], prefix: str) -> None:
        """Interpolate the fusion's positions of another image size or context length.

        The towers' positions tell how many of them are of text and of patches.
        """
        names = (
            'fusion.pos_embed.weight',
            'text_encoder.transformer.positional_embedding',
            'visual_encoder.vit.positional_embedding',
        )
        fused, text, visual = (state.get(prefix + name) for name in names)
        if not isinstance(fused, Tensor) or fused.ndim != 2:
            return
        classes = int(self.fusion.class_token)
        # Towers that do not tell are of this context length.
        length = self.text_encoder.context_length
        words = len(text) if isinstance(text, Tensor) else length
        rest = len(visual) if isinstance(visual, Tensor) else len(fused) - 1 - words
        # Of another layout: the loader reports its shape.
        if len(fused) != 1 + words + rest or rest <= classes:
            return
        reg, of_text, of_image = fused.split([1, words, rest])
        if not classes:  # one to be ignored, where a class token would be
            of_image = torch.cat([of_image[:1], of_image])
        of_image = resize_visual_positions(of_image, self.visual_encoder.grid_size)
        fitted = torch.cat(
            [reg, resize_text_positions(of_text, length), of_image[1 - classes :]]
        )
        log_interpolation(prefix + names[0], fused, fitted)
        state[prefix + names[0]] = fitted

    def _fit_reg_tokens(self, state: dict[str, Any], prefix: str) -> None:
        """Complete the ``[REG]`` tokens of a checkpoint that has fewer."""
        name = prefix + 'fusion.reg_token.weight'
        given, own = state.get(name), self.fusion.reg_token.weight.detach()
        if not isinstance(given, Tensor) or given.shape[1:] != own.shape[1:]:
            return
        if 0 < len(given) < len(own):
            state[name] = torch.cat([given, own[len(given) :].to(given)])

    def extract_feat(self, batch_inputs: Tensor) -> Tensor:
        """Visual tokens (B, 1 + P, C) of normalised images (B, 3, H, W)."""
        return self.visual_encoder(batch_inputs)

    def cache_visual_tokens(self, cache: VisualTokenLookup | None) -> None:
        """Look up images in a cache before they are encoded; None: in none."""
        self.visual_cache = cache
        self.data_preprocessor.gives_content_keys = cache is not None

    def _visual_tokens(self, batch_inputs: Tensor, data_samples: SampleList) -> Tensor:
        """Visual tokens (B, 1 + P, C), from the cache where it has them."""
        if self.visual_cache is None:
            return self.extract_feat(batch_inputs)
        return self.visual_cache.encode(
            batch_inputs, data_samples, self.extract_feat, self.visual_encoder
        )

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict:
        """Losses against ``gt_instances``, xyxy in pixels of the padded input.

        See :func:`target_expressions` for the expressions of the boxes. Boxes are
        averaged over the matched queries; scores are summed over the queries of an
        expression, and averaged over expressions.
        """
        head = self.confidence_head
        # Of a frozen detector no activation is needed for a backward pass.
        with torch.no_grad() if self._frozen_parts() else nullcontext():
            encoded = self._encode(batch_inputs, batch_data_samples)
            owners = target_expressions(batch_data_samples)
            tokens = self._fuse(encoded)
        self._check_targets(batch_data_samples, owners, len(encoded.text))
        targets = true_boxes(batch_data_samples, tokens.float())
        queries, chosen = self._match(tokens, targets, owners)
        own, targets = tokens[queries], targets[chosen]
        losses = self.bbox_head.loss(own, targets)
        if head is not None:
            with torch.no_grad():
                # The IoU is a target of the scores, and trains no box.
                reached = targets.new_zeros(len(tokens))
                ious = bbox_overlaps(self._boxes(own), targets, is_aligned=True)
                reached[queries] = head.score_targets(ious)
            negatives = self._negative_tokens(encoded, batch_data_samples)
            scored = head.loss(tokens, reached, negatives)
            losses.update({k: v * self.num_queries for k, v in scored.items()})
        return losses

    def _check_targets(
        self, data_samples: SampleList, owners: list[int], expressions: int
    ) -> None:
        """Refuse expressions without a target where no head learns from them."""
        if self.confidence_head is not None or len(set(owners)) == expressions:
            return
        named = [
            f'{sample.get("img_path", "a sample")}: {text!r}'
            for sample in data_samples
            for text in expressions_of(sample)
        ]
        first = min(set(range(expressions)) - set(owners))
        raise ValueError(
            f'{named[first]} has no target, and without a confidence_head nothing '
            'learns from it: add '
            "confidence_head=dict(type='GroundingConfidenceHead'), or read the labels "
            "with RefExpDataset(targets='one')."
        )

    @torch.no_grad()
    def _match(
        self, tokens: Tensor, targets: Tensor, owners: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Matched rows of tokens (E * Q, D) and of targets (T, 4), xyxy in [0, 1]."""
        if self.num_queries == 1 and owners == list(range(len(tokens))):
            # One for each: there is nothing to decide.
            rows = torch.arange(len(tokens), device=tokens.device)
            return rows, rows
        boxes = self._boxes(tokens)
        logits = boxes.new_zeros(len(boxes))
        if self.confidence_head is not None:
            logits = self.confidence_head.logits(tokens)
        shape = (-1, self.num_queries)
        return match_targets(
            self.assigner,
            boxes.unflatten(0, shape),
            logits.unflatten(0, shape),
            targets,
            owners,
        )

    def _negative_tokens(self, encoded: _Encoded, data_samples: SampleList) -> Tensor:
        """Fused tokens (N * Q, D) of N negative (image, expression) pairs."""
        head = self.confidence_head
        # Both towers have encoded the batch: a negative pair costs a fusion alone.
        images, expressions = sample_negative_pairs(
            [expressions_of(sample) for sample in data_samples],
            round(head.neg_ratio * len(encoded.text)),
        )
        if not images:
            return encoded.visual.new_zeros(0, self.fusion.embed_dims)
        chosen = _indices(expressions, encoded.text)
        with torch.no_grad() if head.detach else nullcontext():
            return self._fuse(
                encoded._replace(
                    text=encoded.text[chosen],
                    text_padding=encoded.text_padding[expressions],
                    image_index=images,
                )
            )

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True
    ) -> SampleList:
        """Predict Q boxes for every expression of every image.

        Args:
            batch_inputs (Tensor): Normalised images of shape (B, 3, H, W).
            batch_data_samples (list[DetDataSample]): B samples with
                ``text``, one expression or several.
            rescale (bool): Whether boxes are in pixels of the original image, or
                of the padded input. Defaults to True.

        Returns:
            list[DetDataSample]: The samples with ``pred_instances``:
            ``bboxes`` (E * Q, 4) xyxy, clamped to the padded input as in the
            official code, those of an expression together, in the order of the
            queries; ``scores`` in [0, 1] of the confidence head, or 1 without
            one, as MMDetection needs numbers (``scored`` in their metainfo says it);
            ``labels``, the number of each box's expression; ``label_names``, that
            expression. None is left out by its score.
        """
        tokens = self._forward(batch_inputs, batch_data_samples)
        boxes = self._boxes(tokens)
        scores = boxes.new_ones(len(boxes))
        if self.scored:
            scores = self.confidence_head(tokens)
        instances = instances_of(
            batch_data_samples, boxes, scores, rescale, self.scored
        )
        return self.add_pred_to_datasample(batch_data_samples, instances)

    def _forward(
        self, batch_inputs: Tensor, batch_data_samples: OptSampleList = None
    ) -> Tensor:
        """Fused ``[REG]`` tokens (E * Q, D) of all expressions, image by image."""
        return self._fuse(self._encode(batch_inputs, batch_data_samples))

    def _boxes(self, tokens: Tensor) -> Tensor:
        """Predicted boxes (N, 4), xyxy in [0, 1] of the padded input, clamped."""
        return bbox_cxcywh_to_xyxy(self.bbox_head(tokens)).clamp(0, 1)

    def _encode(
        self, batch_inputs: Tensor, batch_data_samples: OptSampleList
    ) -> _Encoded:
        """Tokens of both towers for a batch."""
        if not batch_data_samples:
            raise ValueError('CLIPVG needs data samples: they hold the expressions.')
        texts = [expressions_of(sample) for sample in batch_data_samples]
        # First, as a GPU encodes images while the host tokenizes and plans.
        visual = self._visual_tokens(batch_inputs, batch_data_samples)
        token_ids = self.text_encoder.tokenize(
            [expression for group in texts for expression in group]
        )
        text = self.text_encoder(token_ids.to(batch_inputs.device, non_blocking=True))
        # Stay on the CPU: how many tokens are read, the host must know.
        padding = patch_padding(
            pixel_padding(batch_data_samples, batch_inputs, 'cpu'),
            self.visual_encoder.grid_size,
        )
        text_padding = self.text_encoder.padding(token_ids)
        image_index = [image for image, group in enumerate(texts) for _ in group]
        return _Encoded(visual, padding, text, text_padding, image_index)

    def _fuse(self, encoded: _Encoded) -> Tensor:
        """Fused ``[REG]`` tokens (E * Q, D)."""
        visual, padding, text, text_padding, image_index = encoded
        # The fusion's memory grows with the expressions, not with the images; where
        # no backward pass follows, a part of them at a time is enough.
        parts = 1 if torch.is_grad_enabled() else ceil(len(text) / _FUSED_AT_ONCE)
        bounds = [len(text) * part // parts for part in range(parts + 1)]
        tokens = []
        for part in map(slice, bounds[:-1], bounds[1:]):
            own = image_index[part]
            images = slice(own[0], own[-1] + 1)
            tokens.append(
                self.fusion(
                    visual[images],
                    padding[images],
                    text[part],
                    text_padding[part],
                    _indices([image - own[0] for image in own], text),
                )
            )
        return torch.cat(tokens)


def _indices(values: list[int], like: Tensor) -> Tensor:
    """Indices on the device of another tensor, which the host does not wait for."""
    return torch.tensor(values).to(like.device, non_blocking=True)


def patch_padding(padding: Tensor, grid_size: tuple[int, int]) -> Tensor:
    """Which patches are padding, as the official code decides it.

    The pixel mask is resized bilinearly without antialiasing and rounded half to
    even, so a patch is padding when its centre is (torchvision 0.10, which the
    official code pins; newer versions antialias).

    Args:
        padding (Tensor): Bool, of shape (B, H, W).
        grid_size (tuple[int, int]): Rows and columns of patches.

    Returns:
        Tensor: Bool, of shape (B, rows * columns).
    """
    resized = F.interpolate(
        padding[:, None].float(), grid_size, mode='bilinear', align_corners=False
    )
    return resized.round().bool().flatten(1)
