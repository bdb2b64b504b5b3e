"""The two towers of CLIP, from open_clip, as CLIP-VG reads them."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.utils import OptMultiConfig
from torch import Tensor, nn

from .clip_tower import (
    CLIPTower,
    build_tower,
    init_blocks,
    run_block,
    use_lean_activations,
)
from .expression_tokenizer import ExpressionTokenizer

__all__ = ['CLIPTextEncoder', 'CLIPVisualEncoder']


@MODELS.register_module()
class CLIPVisualEncoder(CLIPTower):
    """Visual tokens of a CLIP ViT: several of its layers, side by side.

    The residual stream after each of ``extract_layers``, class token included,
    without ``ln_post`` and without the projection (method, section 1). With
    ``out_maps`` it is the backbone of any MMDetection detector.

    Args:
        arch (str or dict): See :func:`clip_config`.
        extract_layers (Sequence[int]): Blocks to read, counted from 0. Defaults
            to (0, 3, 7, 11), the official choice for the B models.
        pretrained (str, optional): A tag of open_clip ('openai', 'laion2b_...')
            or a local file. Defaults to None: random weights.
        image_size (int, optional): Side of the square input in pixels, if other
            than the architecture's; position embeddings are interpolated.
        frozen (bool): Whether CLIP's weights stay as they are. Defaults to True.
        train_pos_embed (bool): Whether the position embedding is trained all the
            same, as in the official code. It costs a backward pass through
            the whole tower. Defaults to False.
        with_cp (bool): Whether activations are recomputed in the backward pass.
            Defaults to False.
        out_maps (bool): Whether the output is a tuple with a feature map for each
            extracted layer, as MMDetection's backbones give it, all of the
            stride ``patch_size``. Defaults to False: tokens.
        init_cfg (dict or list[dict], optional): See :class:`CLIPTower`. Defaults to
            None.
        adapter (dict, optional): What of the frozen tower is trained, such as
            ``dict(kind='lora', rank=8)``, ``dict(kind='bias')`` or
            ``dict(kind='last_blocks', number=2)``; see :func:`adapt`. Defaults to
            None: nothing.

    Raises:
        ValueError: The architecture is unknown, or an extracted layer does not exist.
    """

    kind, net_name = 'visual', 'vit'

    def __init__(
        self,
        arch: str | dict,
        extract_layers: Sequence[int] = (0, 3, 7, 11),
        pretrained: str | None = None,
        image_size: int | None = None,
        frozen: bool = True,
        train_pos_embed: bool = False,
        with_cp: bool = False,
        out_maps: bool = False,
        init_cfg: OptMultiConfig = None,
        adapter: dict | None = None,
    ) -> None:
        super().__init__(arch, pretrained, frozen, with_cp, init_cfg, adapter)
        if image_size is not None:
            self.config['vision_cfg']['image_size'] = image_size
        vit = build_tower(self.kind, self.config)
        depth = len(vit.transformer.resblocks)
        self.extract_layers = tuple(extract_layers)
        if not self.extract_layers or not set(self.extract_layers) <= set(range(depth)):
            raise ValueError(
                f'extract_layers={self.extract_layers}, but {arch!r} has the blocks '
                f'0 to {depth - 1}.'
            )
        init_blocks(vit.transformer.resblocks)
        self.image_size = vit.image_size
        self.patch_size = vit.patch_size
        self.grid_size = vit.grid_size
        self.out_maps = out_maps
        width = vit.conv1.out_channels
        self.out_channels = width if out_maps else width * len(self.extract_layers)
        # Never read: the pooled output, and blocks after the last extracted one.
        vit.ln_post, vit.proj = nn.Identity(), None
        del vit.transformer.resblocks[max(self.extract_layers) + 1 :]
        use_lean_activations(vit.transformer.resblocks)
        self.vit = vit
        trains_positions = train_pos_embed or not frozen
        self.freeze_clip(('positional_embedding',) if trains_positions else ())

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Encode normalised images.

        Args:
            images (Tensor): Of shape (B, 3, H, W), with H and W of
                ``image_size``.

        Returns:
            Tensor or tuple[Tensor]: The class token and the patches in rows, of
            shape (B, 1 + P, C), C = ``out_channels``; with ``out_maps`` for each
            layer the patches alone, of shape (B, C, rows, columns).
        """
        if tuple(images.shape[-2:]) != tuple(self.image_size):
            raise ValueError(
                f'The visual tower takes images of {self.image_size} (H, W), got '
                f"{tuple(images.shape[-2:])}: set `size` of the pipeline's resize "
                'and letterbox (or `scale`, and `pad_size_divisor` of the '
                'preprocessor), or `image_size` of the encoder.'
            )
        tokens = self.vit._embeds(images)
        extracted = {}
        for index, block in enumerate(self.vit.transformer.resblocks):
            tokens = run_block(block, tokens, self.with_cp and self.training)
            extracted[index] = tokens
        layers = [extracted[index] for index in self.extract_layers]
        if not self.out_maps:
            return torch.cat(layers, dim=-1)
        return tuple(
            layer[:, 1:].transpose(1, 2).unflatten(2, self.grid_size)
            for layer in layers
        )


@MODELS.register_module()
class CLIPTextEncoder(CLIPTower):
    """All text tokens of CLIP: last layer, ``ln_final``, ``text_projection``.

    Attention is causal, so a batch is cut to its longest expression without
    changing a token (method, section 1; performance page).

    Args:
        arch (str or dict): See :func:`clip_config`.
        pretrained (str, optional): A tag of open_clip or a local file. Defaults
            to None: random weights.
        frozen (bool): Whether CLIP's weights stay as they are. Defaults to True.
        template (str): Prompt template of an expression, e.g. 'find the region of
            {}'. Defaults to '{}': the expression itself.
        prompt (dict, optional): Learned context vectors between the start of the
            text and the expression, as CoOp has them (arXiv 2109.01134):
            ``length`` (int) vectors; ``init`` (str, optional), words they start
            as, which then give the length; ``per_position`` (bool), False for
            one vector at all positions. The official "learnable prompt" is made
            of token ids and cannot learn. Defaults to None: no prompt.
        with_cp (bool): Whether activations are recomputed in the backward pass.
            Defaults to False.
        init_cfg (dict or list[dict], optional): See :class:`CLIPTower`. Defaults to
            None.
        adapter (dict, optional): What of the frozen tower is trained, such as
            ``dict(kind='lora', rank=8)``, ``dict(kind='bias')`` or
            ``dict(kind='last_blocks', number=2)``; see :func:`adapt`. Defaults to
            None: nothing.

    Raises:
        ValueError: The architecture is unknown, the template has no {}, or the
            prompt leaves no token to the expression.
    """

    kind, net_name = 'text', 'transformer'

    def __init__(
        self,
        arch: str | dict,
        pretrained: str | None = None,
        frozen: bool = True,
        template: str = '{}',
        prompt: dict | None = None,
        with_cp: bool = False,
        init_cfg: OptMultiConfig = None,
        adapter: dict | None = None,
    ) -> None:
        super().__init__(arch, pretrained, frozen, with_cp, init_cfg, adapter)
        transformer = build_tower(self.kind, self.config)
        self.context_length = transformer.context_length
        self.out_channels = transformer.output_dim
        self.expression_tokenizer = ExpressionTokenizer(self.context_length, template)
        self.tokenizer = self.expression_tokenizer.words
        use_lean_activations(transformer.transformer.resblocks)
        self.transformer = transformer
        self.freeze_clip()
        self.prompt_length, self.prompt = 0, None
        self._prompt_words: list[int] = []
        if prompt is not None:
            self.prompt_length, self.prompt = self._start_prompt(**prompt)
            self.expression_tokenizer.prompt_length = self.prompt_length

    def _start_prompt(
        self, length: int = 4, init: str | None = None, per_position: bool = True
    ) -> tuple[int, nn.Parameter]:
        """The length of the prompt, and its vectors of shape (length or 1, width)."""
        words = self.tokenizer.encode(init) if init else []
        length = len(words) or length
        if not 1 <= length <= self.context_length - 3:
            raise ValueError(
                f'A prompt of {length} vectors; expected 1 to '
                f'{self.context_length - 3}, so that an expression has tokens.'
            )
        self._prompt_words = words
        if words:
            start = self._embedded(words)
        else:
            width = self.transformer.token_embedding.embedding_dim
            start = torch.empty(length, width).normal_(std=0.02)  # CoOp's
        return length, nn.Parameter(start if per_position else start.mean(0, True))

    def _embedded(self, words: list[int]) -> Tensor:
        """What the tower has for words, of shape (length, width)."""
        return self.transformer.token_embedding.weight.detach()[words].clone()

    def init_weights(self) -> None:
        """Load CLIP's weights; then a prompt can begin as words."""
        if self.is_init or not self._prompt_words:
            super().init_weights()
            return
        assert self.prompt is not None
        before = self.prompt.detach().clone()
        super().init_weights()
        if torch.equal(self.prompt, before):  # no `init_cfg` has filled it
            start = self._embedded(self._prompt_words)
            if len(before) < len(start):
                start = start.mean(0, True)
            self.prompt.data.copy_(start)

    def tokenize(self, expressions: Sequence[str]) -> Tensor:
        """Token ids (E, L) of expressions; see :class:`ExpressionTokenizer`."""
        return self.expression_tokenizer(expressions)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Encode token ids of shape (E, L) to text tokens of shape (E, L, D)."""
        tower = self.transformer
        length = token_ids.shape[1]
        tokens = tower.token_embedding(token_ids)
        if self.prompt is not None:
            prompt = self.prompt.expand(tokens.shape[0], self.prompt_length, -1)
            after = tokens[:, 1 + self.prompt_length :]
            tokens = torch.cat([tokens[:, :1], prompt, after], dim=1)
        tokens = tokens + tower.positional_embedding[:length]
        # Causal: no token reads what was cut off behind it.
        mask = tower.attn_mask[:length, :length]
        for block in tower.transformer.resblocks:
            tokens = run_block(
                partial(block, attn_mask=mask), tokens, self.with_cp and self.training
            )
        tokens = tower.ln_final(tokens)
        projection: Any = tower.text_projection
        if projection is None:
            return tokens
        # With a bias, in architectures that have `proj_bias`.
        if isinstance(projection, nn.Linear):
            return projection(tokens)
        return tokens @ projection
