"""The two towers of CLIP, from open_clip, as CLIP-VG reads them."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import open_clip
import torch
from mmdet.registry import MODELS
from mmengine.logging import print_log
from mmengine.model import BaseModule
from open_clip.model import _build_text_tower, _build_vision_tower
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .clip_config import clip_config
from .clip_weights import load_clip_tower

__all__ = ['CLIPTextEncoder', 'CLIPVisualEncoder']


def _freeze(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.requires_grad_(False)


def _init_blocks(blocks: nn.ModuleList) -> None:
    """Initialise transformer blocks as OpenAI's CLIP does (its text tower)."""
    depth = len(blocks)
    block: Any
    for block in blocks:
        width = block.attn.out_proj.in_features
        nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
        nn.init.normal_(block.attn.out_proj.weight, std=(2 * depth * width) ** -0.5)
        nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
        nn.init.normal_(block.mlp.c_proj.weight, std=(2 * depth * width) ** -0.5)


def _run(module: Callable[..., Tensor], x: Tensor, with_cp: bool) -> Tensor:
    if with_cp and x.requires_grad:
        return checkpoint(module, x, use_reentrant=False)
    return module(x)


class _CLIPTower(BaseModule):
    """What both towers share: weights, freezing, eval mode.

    Args:
        frozen (bool): Whether no weight is trained, and the tower stays in eval
            mode.
        with_cp (bool): Whether activations are recomputed in the backward pass.
    """

    def __init__(self, frozen: bool, with_cp: bool) -> None:
        super().__init__()
        self.frozen = frozen
        self.with_cp = with_cp

    def train(self, mode: bool = True) -> '_CLIPTower':
        """Stay in eval mode while frozen."""
        return super().train(mode and not self.frozen)


@MODELS.register_module()
class CLIPVisualEncoder(_CLIPTower):
    """Visual tokens of a CLIP ViT: several of its layers, side by side.

    The residual stream after each of ``extract_layers``, class token included,
    without ``ln_post`` and without the projection (method, section 1).

    Args:
        arch (str or dict): See :func:`clip_config`.
        extract_layers (Sequence[int]): Blocks to read, counted from 0. Defaults
            to (0, 3, 7, 11), the release's choice for the B models.
        pretrained (str, optional): A tag of open_clip ('openai', 'laion2b_...')
            or a local file. Defaults to None: random weights.
        image_size (int, optional): Side of the square input in pixels, if other
            than the architecture's; position embeddings are interpolated.
        frozen (bool): Whether CLIP's weights stay as they are. Defaults to True.
        train_pos_embed (bool): Whether the position embedding is trained all the
            same, as the released code does. It costs a backward pass through
            the whole tower. Defaults to False.
        with_cp (bool): Whether activations are recomputed in the backward pass.
            Defaults to False.

    Raises:
        ValueError: The architecture is unknown, an extracted layer does not
            exist, or the weights cannot be had or do not fit.
    """

    def __init__(
        self,
        arch: str | dict,
        extract_layers: Sequence[int] = (0, 3, 7, 11),
        pretrained: str | None = None,
        image_size: int | None = None,
        frozen: bool = True,
        train_pos_embed: bool = False,
        with_cp: bool = False,
    ) -> None:
        super().__init__(frozen, with_cp)
        config = clip_config(arch)
        if image_size is not None:
            config['vision_cfg']['image_size'] = image_size
        vit = _build_vision_tower(
            config['embed_dim'], config['vision_cfg'], config.get('quick_gelu', False)
        )
        depth = len(vit.transformer.resblocks)
        self.extract_layers = tuple(extract_layers)
        if not self.extract_layers or not set(self.extract_layers) <= set(range(depth)):
            raise ValueError(
                f'extract_layers={self.extract_layers}, but {arch!r} has the blocks '
                f'0 to {depth - 1}.'
            )
        _init_blocks(vit.transformer.resblocks)
        if pretrained is not None:
            load_clip_tower(vit, 'visual', arch, config, pretrained)
        self.image_size = vit.image_size
        self.patch_size = vit.patch_size
        self.grid_size = vit.grid_size
        self.out_channels = vit.conv1.out_channels * len(self.extract_layers)
        # Never read: the pooled output, and blocks after the last extracted one.
        vit.ln_post, vit.proj = nn.Identity(), None
        del vit.transformer.resblocks[max(self.extract_layers) + 1 :]
        self.vit = vit
        if frozen:
            _freeze(vit)
        vit.positional_embedding.requires_grad_(train_pos_embed or not frozen)

    def forward(self, images: Tensor) -> Tensor:
        """Encode normalised images.

        Args:
            images (Tensor): Of shape (B, 3, H, W), with H and W of
                ``image_size``.

        Returns:
            Tensor: The class token and the patches in rows, of shape
            (B, 1 + P, C), C = ``out_channels``.
        """
        if tuple(images.shape[-2:]) != tuple(self.image_size):
            raise ValueError(
                f'The visual tower takes images of {self.image_size} (H, W), got '
                f"{tuple(images.shape[-2:])}: set `size` of the pipeline's resize "
                'and letterbox, or `image_size` of the encoder.'
            )
        tokens = self.vit._embeds(images)
        extracted = {}
        for index, block in enumerate(self.vit.transformer.resblocks):
            tokens = _run(block, tokens, self.with_cp and self.training)
            extracted[index] = tokens
        return torch.cat([extracted[index] for index in self.extract_layers], dim=-1)


@MODELS.register_module()
class CLIPTextEncoder(_CLIPTower):
    """All text tokens of CLIP: last layer, ``ln_final``, ``text_projection``.

    Attention is causal, so a batch is cut to its longest expression without
    changing a token (method, section 1; performance page).

    Args:
        arch (str or dict): See :func:`clip_config`.
        pretrained (str, optional): A tag of open_clip or a local file. Defaults
            to None: random weights.
        frozen (bool): Whether CLIP's weights stay as they are. Defaults to True.
        template (str): What is asked for an expression, e.g. 'find the region of
            {}'. Defaults to '{}': the expression itself.
        prompt (dict, optional): Learned context vectors between the start of the
            text and the expression, as CoOp has them (arXiv 2109.01134):
            ``length`` (int) vectors; ``init`` (str, optional), words they start
            as, which then give the length; ``per_position`` (bool), False for
            one vector at all positions. The release's "learnable prompt" is made
            of token ids and cannot learn. Defaults to None: no prompt.
        with_cp (bool): Whether activations are recomputed in the backward pass.
            Defaults to False.

    Raises:
        ValueError: The architecture is unknown, the weights cannot be had or do
            not fit, the template has no {}, or the prompt leaves no room.
    """

    def __init__(
        self,
        arch: str | dict,
        pretrained: str | None = None,
        frozen: bool = True,
        template: str = '{}',
        prompt: dict | None = None,
        with_cp: bool = False,
    ) -> None:
        super().__init__(frozen, with_cp)
        if template.count('{}') != 1:
            raise ValueError(f'template must have one {{}}, got {template!r}.')
        config = clip_config(arch)
        transformer = _build_text_tower(
            config['embed_dim'], config['text_cfg'], config.get('quick_gelu', False)
        )
        if pretrained is not None:
            load_clip_tower(transformer, 'text', arch, config, pretrained)
        self.context_length = transformer.context_length
        self.out_channels = transformer.output_dim
        self.tokenizer = open_clip.SimpleTokenizer(context_length=self.context_length)
        self.transformer = transformer
        self._warned_of_length = False
        if frozen:
            _freeze(transformer)
        self.template = template
        self.prompt_length, self.prompt = 0, None
        if prompt is not None:
            self.prompt_length, self.prompt = self._start_prompt(**prompt)

    def _start_prompt(
        self, length: int = 4, init: str | None = None, per_position: bool = True
    ) -> tuple[int, nn.Parameter]:
        """The length of the prompt, and its vectors of shape (length or 1, width)."""
        words = self.tokenizer.encode(init) if init else []
        length = len(words) or length
        if not 1 <= length <= self.context_length - 3:
            raise ValueError(
                f'A prompt of {length} vectors; expected 1 to '
                f'{self.context_length - 3}, so that an expression has room.'
            )
        embedding = self.transformer.token_embedding.weight.detach()
        if words:
            start = embedding[words].clone()
        else:
            start = torch.empty(length, embedding.shape[1]).normal_(std=0.02)  # CoOp's
        return length, nn.Parameter(start if per_position else start.mean(0, True))

    def tokenize(self, expressions: Sequence[str]) -> Tensor:
        """Token ids of expressions, lower-cased, by CLIP's byte pair encoding.

        Args:
            expressions (Sequence[str]): E expressions.

        Returns:
            Tensor: Of shape (E, L), int64, L the longest expression's length; 0
            after the end. An expression that passes the context length is cut
            there, with one warning. Places of a learned prompt hold the id of the
            start of the text.
        """
        for expression in expressions:
            if not isinstance(expression, str):
                raise ValueError(
                    f'An expression must be a str, got {type(expression).__name__}: '
                    f'{expression!r}.'
                )
        room = self.context_length - self.prompt_length
        tokens = self.tokenizer([self.template.format(e) for e in expressions], room)
        lengths = (tokens > 0).sum(1)
        # A cut expression fills the context to its last place.
        if not self._warned_of_length and bool((lengths == room).any()):
            longest = expressions[int(lengths.argmax())]
            self._warned_of_length = True
            print_log(
                f'An expression fills or passes the {room} tokens that the text tower '
                f'has for it, and is cut there: {longest[:80]!r}... (said once)',
                logger='current',
                level=logging.WARNING,
            )
        tokens = tokens[:, : int(lengths.max())]
        start = tokens[:, :1]
        return torch.cat([start.expand(-1, 1 + self.prompt_length), tokens[:, 1:]], 1)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Encode token ids of shape (E, L) to text tokens of shape (E, L, D)."""
        tower = self.transformer
        length = token_ids.shape[1]
        tokens = tower.token_embedding(token_ids)
        if self.prompt is not None:
            prompt = self.prompt.expand(len(tokens), self.prompt_length, -1)
            after = tokens[:, 1 + self.prompt_length :]
            tokens = torch.cat([tokens[:, :1], prompt, after], dim=1)
        tokens = tokens + tower.positional_embedding[:length]
        mask = tower.attn_mask[:length, :length]
        for block in tower.transformer.resblocks:
            tokens = _run(
                partial(block, attn_mask=mask), tokens, self.with_cp and self.training
            )
        tokens = tower.ln_final(tokens)
        projection: Any = tower.text_projection
        if projection is None:
            return tokens
        if isinstance(projection, nn.Linear):
            return projection(tokens)
        return tokens @ projection
