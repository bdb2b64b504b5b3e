"""Write a detector as two ONNX graphs, and check that they predict as it does.

The first graph has what depends on an image alone, the second the rest.
"""

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from open_clip.transformer import CustomResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

from projects.clip_vg_core.runtime.deployment_file import (
    GRAPHS,
    NAME,
    Deployment,
    graph_name,
    read_deployment,
    write_deployment,
)
from projects.clip_vg_core.runtime.graphs import import_extra, open_graph
from projects.clip_vg_core.utils.atomic import file_sha256, replacing

from ..models import CLIPVG
from ..models.adapters import merge_adapters
from ..models.fusion import FusionTokens, gather_tokens

__all__ = [
    'GroundingStage',
    'ImageStage',
    'export_detector',
    'split_detector',
    'write_graph',
]

_TOLERANCE = 1e-4  # of normalised boxes
MOST_BYTES = 2**31  # a protobuf holds no more
_OPSET = 18
# Added to logits of attention. Not -inf, which no integer has.
_MASKED = -1e9


class SplitAttention(nn.Module):
    """Attention of open_clip with a matrix each for queries, keys and values.

    Its one matrix for all three is cut up at every call, and would be quantised as one.

    Args:
        attention (nn.Module): Of a tower of ours (see :func:`clip_config`).
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.num_heads = attention.num_heads
        self.projections = nn.ModuleList(
            _linear(weight, bias)
            for weight, bias in zip(
                attention.in_proj_weight.chunk(3),
                attention.in_proj_bias.chunk(3),
                strict=True,
            )
        )
        self.out_proj = attention.out_proj

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Update tokens (B, N, C); the mask is added to logits."""
        q, k, v = (
            projection(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection in self.projections
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.load_state_dict(dict(weight=weight, bias=bias))
    return linear


class ImageStage(nn.Module):
    """From normalised images to the tokens that the fusion begins with.

    Args:
        model (CLIPVG): Whose towers have :class:`SplitAttention`.
    """

    def __init__(self, model: CLIPVG) -> None:
        super().__init__()
        self.visual_encoder, self.fusion = model.visual_encoder, model.fusion

    # Arguments are the inputs of the graph, whose names exported folders have.
    def forward(self, images: Tensor, kept: Tensor) -> tuple[Tensor, ...]:
        """Encode images.

        Args:
            images (Tensor): Of shape (B, 3, H, W).
            kept (Tensor): Which of the class token (0) and the patches, or of the
                patches alone, the fusion reads, of shape (B, K), int64; see
                :func:`valid_tokens`.

        Returns:
            tuple[Tensor, ...]: The members of :class:`FusionTokens`.
        """
        visual = gather_tokens(self.visual_encoder(images), kept)
        return tuple(self.fusion.image_part(visual, kept))


class GroundingStage(nn.Module):
    """From expressions and the tokens of their images to boxes.

    Args:
        model (CLIPVG): Whose towers have :class:`SplitAttention`.
    """

    def __init__(self, model: CLIPVG) -> None:
        super().__init__()
        self.text_encoder, self.fusion = model.text_encoder, model.fusion
        self.bbox_head, self.confidence_head = model.bbox_head, model.confidence_head

    def forward(
        self,
        tokens: Tensor,
        pos: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        padding: Tensor,
        token_ids: Tensor,
        image_index: Tensor,
    ) -> tuple[Tensor, ...]:
        """Predict Q boxes for each of E expressions in B images.

        Args:
            tokens (Tensor): As :class:`ImageStage` gives it, like the next four, of
                shape (B, K, D).
            pos (Tensor): Positions.
            q (Tensor): Queries.
            k (Tensor): Keys.
            v (Tensor): Values.
            padding (Tensor): True where a token only fills up, of shape (B, K).
            token_ids (Tensor): Of shape (E, L), int64; the tokenizer's ``fill_id``
                after the end.
            image_index (Tensor): The image of each expression, of shape (E, ), int64.

        Returns:
            tuple[Tensor, ...]: Boxes cxcywh in [0, 1] of the padded input, of shape
            (E * Q, 4), and with a confidence head scores (E * Q, ).
        """
        queries = self.fusion.num_queries
        masked = torch.cat(
            [
                F.pad(self.text_encoder.padding(token_ids), (queries, 0)),
                padding.index_select(0, image_index),
            ],
            dim=1,
        )
        reg_token = self.fusion.expression_part(
            FusionTokens(tokens, pos, q, k, v),
            self.text_encoder(token_ids),
            masked[:, None, None].to(tokens) * _MASKED,
            image_index,
        )
        boxes = self.bbox_head(reg_token)
        if self.confidence_head is None:
            return (boxes,)
        return boxes, self.confidence_head(reg_token)


def split_detector(model: CLIPVG) -> tuple[ImageStage, GroundingStage]:
    """Both parts of a detector, in float32 on the CPU and with weights of their own."""
    model = copy.deepcopy(model).float().cpu().eval().requires_grad_(False)
    # Graphs are of float32; what runs them has precisions of its own.
    model.visual_encoder.compute_dtype = model.text_encoder.compute_dtype = None
    merge_adapters(model)  # a graph has the sum, and costs as one without
    for block in list(model.modules()):
        if isinstance(block, CustomResidualAttentionBlock):
            block.attn = SplitAttention(block.attn)
    return ImageStage(model).eval(), GroundingStage(model).eval()


def export_detector(
    model: CLIPVG,
    cfg: Config,
    folder: Path,
    checkpoint: Path | None = None,
    overwrite: bool = False,
) -> Deployment:
    """Export, and compare with ONNX Runtime.

    Args:
        model (CLIPVG): With its weights.
        cfg (Config): With ``model.data_preprocessor`` and the test pipeline.
        folder (Path): Made if it is not there. ``deployment.json`` is written last:
            without it, the folder is not whole.
        checkpoint (Path, optional): The file of the weights, to be named in the
            export.
            Defaults to None.
        overwrite (bool): Whether an export that is there is replaced, its graphs in
            8 bits included. Defaults to False.

    Returns:
        Deployment: What was written.

    Raises:
        FileExistsError: The folder has an export.
        ImportError: ONNX or ONNX Runtime is not installed.
        RuntimeError: The graphs predict otherwise than the detector.
        ValueError: The detector is too large for a file of ONNX.
    """
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        import_extra(name)
    if (folder / NAME).is_file() and not overwrite:
        raise FileExistsError(
            f'{folder} is an exported detector already, with the weights '
            f'{sorted(read_deployment(folder).graphs)}. Give another --out-dir, or '
            '--overwrite to replace all of them.'
        )
    folder.mkdir(parents=True, exist_ok=True)
    # Of an earlier export: they would not fit the new graphs.
    for name in (NAME, *(graph_name(graph, 'int8') for graph in GRAPHS)):
        (folder / name).unlink(missing_ok=True)
    stages = split_detector(model)
    example = _example(stages, images=2, expressions=3, length=5)
    for stage, graph in zip(stages, GRAPHS, strict=True):
        write_graph(stage, example[graph], folder / graph_name(graph, 'float'))
    _compare(stages, folder)
    deployment = _describe(model, cfg, folder, checkpoint)
    # The file comes last: a folder without it is not whole.
    deployment.add_graphs('float', folder)
    write_deployment(deployment, folder)
    return deployment


def _describe(
    model: CLIPVG, cfg: Config, folder: Path, checkpoint: Path | None
) -> Deployment:
    encoder, tokenizer = model.visual_encoder, model.text_encoder.expression_tokenizer
    plain = cfg.to_dict()
    return Deployment(
        image_size=list(encoder.image_size),
        grid_size=list(encoder.grid_size),
        embed_dims=model.fusion.embed_dims,
        scored=model.scored,
        class_token=model.fusion.class_token,
        text=tokenizer.save(folder),
        data_preprocessor=plain['model']['data_preprocessor'],
        pipeline=plain['test_dataloader']['dataset']['pipeline'],
        checkpoint=dict(file=checkpoint.name, sha256=file_sha256(checkpoint))
        if checkpoint
        else {},
        versions={name: version(name) for name in ('torch', 'onnx', 'onnxscript')},
        num_queries=model.num_queries,
        score_thr=float(model.score_thr),
    )


def _example(
    stages: tuple[ImageStage, GroundingStage],
    images: int,
    expressions: int,
    length: int,
    dropped: int = 1,
) -> dict[str, dict[str, Tensor]]:
    """Inputs of both graphs, by their names; some patches and tokens are padding."""
    image, grounding = stages
    height, width = image.visual_encoder.image_size
    patches = int(np.prod(image.visual_encoder.grid_size))
    generator = torch.Generator().manual_seed(0)
    tokens = image.fusion.class_token + patches
    kept = torch.arange(tokens - dropped).expand(images, -1).contiguous()
    pixels = torch.randn(images, 3, height, width, generator=generator)
    encoded = image(pixels, kept)
    padding = torch.zeros(kept.shape, dtype=torch.bool)
    padding[0, -1] = True
    least = 1 + grounding.text_encoder.prompt_length
    words = grounding.text_encoder.transformer.vocab_size - 2
    # Neither 0, which is filling, nor the start and end of a text.
    ids = torch.randint(1, words, (expressions, length), generator=generator)
    ids[0, max(least, length - 2) :] = grounding.text_encoder.fill_id
    return dict(
        image=dict(images=pixels, kept=kept),
        grounding=dict(
            zip(FusionTokens._fields, encoded, strict=True),
            padding=padding,
            token_ids=ids,
            image_index=torch.arange(expressions) % images,
        ),
    )


_AXES: dict[str, tuple[str, ...]] = dict(
    images=('images',),
    token_ids=('expressions', 'length'),
    image_index=('expressions',),
)


def write_graph(stage: Any, example: dict[str, Tensor], path: Path) -> None:
    """Write a graph whose numbers of images, tokens and expressions are free."""
    if sum(p.numel() * 4 for p in stage.parameters()) >= MOST_BYTES:
        raise ValueError(
            f'{path.name} would pass {MOST_BYTES:,} bytes, which no file of ONNX can.'
        )
    longest = stage.fusion.context_length
    axes = {
        name: {
            axis: torch.export.Dim(size, max=longest if size == 'length' else None)
            for axis, size in enumerate(_AXES.get(name, ('images', 'tokens')))
        }
        for name in example
    }
    outputs = (
        list(FusionTokens._fields)
        if isinstance(stage, ImageStage)
        else ['boxes', 'scores'][: 1 + (stage.confidence_head is not None)]
    )
    with replacing(path) as partial, _quiet():
        program: Any = torch.onnx.export(
            stage,
            kwargs=example,
            input_names=list(example),
            output_names=outputs,
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
            dynamic_shapes=axes,
            custom_translation_table={
                torch.ops.aten.scaled_dot_product_attention.default: _attention
            },
        )
        # Also what is computed of weights alone: a quantiser looks for weights.
        import_extra('onnxscript').optimizer.fold_constants(
            program.model, input_size_limit=MOST_BYTES, output_size_limit=MOST_BYTES
        )
        program.save(partial, external_data=False)


def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    *_: Any,
    **__: Any,
) -> Any:
    """Attention in the form that runtimes know and fuse; nothing of ours is causal."""
    op = import_extra('onnxscript').opset18
    scale = float(query.shape[-1]) ** -0.5
    query = op.Mul(query, op.Constant(value_float=scale))
    logits = op.MatMul(query, op.Transpose(key, perm=[0, 1, 3, 2]))
    if attn_mask is not None:
        logits = op.Add(logits, attn_mask)
    return op.MatMul(op.Softmax(logits, axis=-1), value)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks about itself."""
    loggers = [logging.getLogger(n) for n in ('torch.onnx', 'onnx_ir', 'onnxscript')]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@torch.inference_mode()
def _compare(stages: tuple[ImageStage, GroundingStage], folder: Path) -> None:
    """Raise if the graphs predict otherwise, for sizes they were not exported with."""
    graphs = [
        open_graph(folder / graph_name(graph, 'float'), 'onnxruntime', 'f32')
        for graph in GRAPHS
    ]
    sizes: Sequence[dict[str, int]] = (
        dict(images=1, expressions=1, length=4, dropped=0),
        dict(images=3, expressions=7, length=6, dropped=3),
    )
    for size in sizes:
        example = _example(stages, **size)
        for stage, graph, run in zip(stages, GRAPHS, graphs, strict=True):
            expected = stage(**example[graph])
            outputs = run({k: v.numpy() for k, v in example[graph].items()})
            for one, other in zip(expected, outputs, strict=True):
                bound = _TOLERANCE * max(1.0, float(one.abs().max()))
                off = float(np.abs(one.numpy() - other).max())
                # Not `>`: NaN is larger than nothing.
                if not off <= bound:
                    raise RuntimeError(
                        f'{graph_name(graph, "float")} is off by {off:.1e} for {size}; '
                        f'expected {bound:.1e} at most. Nothing may be served with it; '
                        'please report it with the versions of torch and onnxscript.'
                    )
