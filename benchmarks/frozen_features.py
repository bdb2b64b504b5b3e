"""Frozen towers, run once: what a benchmark of hundreds of training runs can afford.

The towers of the curriculum benchmark are frozen and its images are not augmented,
so an image's tokens are the same in every training run. They are computed once, kept
in a memory-mapped file, and travel through the pipeline in the shape of an image.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import DATASETS, MODELS, TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import Tensor, nn

from projects.clip_vg.models.expression_tokenizer import text_lengths
from projects.clip_vg_core.utils.atomic import replacing

__all__ = [
    'LoadTokens',
    'MemoTextEncoder',
    'TokensInImage',
    'precompute',
    'with_stand_ins',
]


def precompute(cfg: Config, path: str | Path, split: str) -> Path:
    """Encode all images of a split of a config's test data.

    Args:
        cfg (Config): An ordinary config with frozen towers.
        path (str or Path): Output file: float16 (images, S, S, C), the tokens of an
            image laid out as an image, in the order of the file names.
        split (str): 'train', 'val' or 'test'.

    Returns:
        Path: ``path``.
    """
    path = Path(path)
    if path.exists():
        return path
    data = cfg.test_dataloader.dataset.to_dict()
    data['split'] = split
    dataset = DATASETS.build(data)
    encoder = MODELS.build(cfg.model.visual_encoder).eval()
    encoder.load_pretrained()
    preprocessor = MODELS.build(cfg.model.data_preprocessor)
    firsts = np.unique(dataset.table.image_index, return_index=True)[1]
    names = [dataset.table[int(i)]['image'] for i in firsts]
    size = cfg.image_size
    rows = []
    for place in np.argsort(names):
        batch = preprocessor(pseudo_collate([dataset[int(firsts[place])]]))
        with torch.inference_mode():
            tokens = encoder(batch['inputs'])[0].flatten()
        channels = -(-len(tokens) // size**2)
        rows.append(
            np.resize(tokens.half().numpy(), (size, size, channels))  # tail unused
        )
    with replacing(path) as partial:
        np.save(partial, np.stack(rows))
    return path


@TRANSFORMS.register_module()
class LoadTokens(BaseTransform):
    """In the place of loading, resizing and letterboxing at the centre.

    Args:
        size (int): Side of the square in pixels.
        tokens (str): File of :func:`precompute`.
        first (int): Number of its first image, as in ``shapes_000001.jpg``.
        training (bool): Whether boxes are moved into the square. Defaults to False.
    """

    def __init__(
        self, size: int, tokens: str, first: int, training: bool = False
    ) -> None:
        self.size, self.first, self.training = size, first, training
        self.tokens = np.load(tokens, mmap_mode='r', allow_pickle=False)

    def transform(self, results: dict) -> dict:
        """Put tokens and geometry into the sample."""
        number = int(Path(results['img_path']).stem.rsplit('_', 1)[1])
        height, width = results['height'], results['width']
        scale = self.size / max(height, width)
        new = round(width * scale), round(height * scale)
        left, top = (max(0, round((self.size - side) / 2 - 0.1)) for side in new)
        results['img'] = self.tokens[number - self.first].astype(np.float32)
        results['img_shape'] = (self.size, self.size)
        results['ori_shape'] = (height, width)
        factor = new[0] / width, new[1] / height
        results['scale_factor'] = factor
        results['letterbox'] = (left, top, *new)
        instances = results['instances']
        boxes = np.array([item['bbox'] for item in instances], np.float32)
        boxes = boxes.reshape(-1, 4)  # of an expression that has no referent, none
        if self.training:
            boxes = boxes * np.tile(factor, 2) + np.tile((left, top), 2)
        results['gt_bboxes'] = HorizontalBoxes(boxes.astype(np.float32))
        results['gt_bboxes_labels'] = np.array(
            [item['bbox_label'] for item in instances], np.int64
        )
        results['gt_ignore_flags'] = np.zeros(len(boxes), bool)
        return results


def with_stand_ins(model: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a detector's config that takes what :obj:`LoadTokens` loads.

    Args:
        model (Mapping): Config of a :obj:`CLIPVG` with frozen towers.

    Returns:
        dict[str, Any]: The same detector with stand-ins for both towers, whose images
        are not normalised again.
    """
    return dict(
        model,
        visual_encoder=dict(type='TokensInImage', encoder=model['visual_encoder']),
        text_encoder=dict(type='MemoTextEncoder', encoder=model['text_encoder']),
        data_preprocessor=dict(type='DetDataPreprocessor'),
    )


@MODELS.register_module()
class TokensInImage(nn.Module):
    """Unpacks the tokens that :obj:`LoadTokens` has put into an image.

    Args:
        encoder (dict): Config of the tower that made them, for its dimensions.
    """

    def __init__(self, encoder: dict) -> None:
        super().__init__()
        made_by = MODELS.build(dict(encoder, pretrained=None))
        self.out_channels = made_by.out_channels
        self.grid_size = made_by.grid_size
        self.class_token = made_by.class_token

    def log_normalization(self, data_preprocessor: nn.Module) -> None:
        """Say nothing: what is in the image has been normalised already."""

    def forward(self, images: Tensor) -> Tensor:
        """Tokens (B, 1 + P, C) of (B, C', S, S)."""
        length = 1 + self.grid_size[0] * self.grid_size[1]
        flat = images.permute(0, 2, 3, 1).flatten(1)[:, : length * self.out_channels]
        return flat.unflatten(1, (length, self.out_channels))


@MODELS.register_module()
class MemoTextEncoder(nn.Module):
    """A frozen text tower that remembers its outputs; not in the state dict.

    Args:
        encoder (dict): Config of the tower.
    """

    def __init__(self, encoder: dict) -> None:
        super().__init__()
        self._encoder = [MODELS.build(encoder).eval()]  # a list: no submodule
        self._encoder[0].load_pretrained()  # no checkpoint has it
        self.out_channels = self._encoder[0].out_channels
        self.context_length = self._encoder[0].context_length
        self._ids: dict[str, Tensor] = {}
        self._tokens: dict[bytes, Tensor] = {}

    def tokenize(self, expressions: list[str]) -> Tensor:
        """Token ids (E, L), 0 after the end."""
        for text in expressions:
            if text not in self._ids:
                self._ids[text] = self._encoder[0].tokenize([text])[0]
        return nn.utils.rnn.pad_sequence([self._ids[t] for t in expressions], True)

    def padding(self, token_ids: Tensor) -> Tensor:
        """True where the fusion does not read a token, (E, L)."""
        return self._encoder[0].padding(token_ids)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Text tokens (E, L, C)."""
        lengths = text_lengths(token_ids).tolist()
        rows = [ids[:length] for ids, length in zip(token_ids, lengths, strict=True)]
        found = []
        for ids in rows:
            key = ids.numpy().tobytes()
            if key not in self._tokens:
                with torch.no_grad():
                    self._tokens[key] = self._encoder[0](ids[None])[0].clone()
            found.append(self._tokens[key])
        return nn.utils.rnn.pad_sequence(found, True)
