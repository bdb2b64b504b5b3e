"""The two towers of CLIP, from open_clip, as CLIP-VG reads them."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.utils import OptMultiConfig
from mmengine.logging import print_log
from mmengine.utils import to_2tuple
from open_clip.transformer import TextTransformer, VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from ..checkpoints.clip_weights import trained_normalization
from .clip_blocks import run_block, use_lean_activations
from .clip_tower import CLIPTower, build_tower, in_compute_dtype, positions_name
from .expression_tokenizer import ExpressionTokenizer, VocabularyTokenizer
from .visual_towers import (
    class_tokens_of,
    default_layers,
    is_hierarchical,
    is_plain_vit,
    prune_levels,
    read_levels,
    set_input_size,
    visual_levels,
    vit_levels,
)

__all__ = ['CLIPTextEncoder', 'CLIPVisualEncoder']


@MODELS.register_module()
class CLIPVisualEncoder(CLIPTower):
    """Visual tokens of a CLIP tower: several of its levels, side by side.

    Of a ViT, the residual stream after each of ``extract_layers``, without the last
    norm and without the projection (method, section 1); of a hierarchical tower its
    stages, the coarser ones interpolated bilinearly to the patches of the finest: the
    projection that the fusion begins with makes a sum of them. With ``out_maps`` it is
    the backbone of any MMDetection detector.

    Args:
        arch (str or dict): See :func:`clip_config`; docs/towers.md lists the families.
        extract_layers (Sequence[int], optional): Levels to read, counted from 0: the
            blocks of a ViT, or stages. Defaults to None: the official choice for a
            ViT, (0, 3, 7, 11) of 12 blocks, else the stages of stride 16 and more.
        pretrained (str, optional): A tag of open_clip ('openai', 'laion2b_...')
            or a local file. Defaults to None: random weights.
        image_size (int or tuple[int, int], optional): Side of the square input in
            pixels, or its height and width, if other than the architecture's;
            position embeddings are interpolated.
        frozen (bool): Whether CLIP's weights stay as they are. Defaults to True.
        train_pos_embed (bool): Whether the position embedding is trained all the
            same, as in the official code. It costs a backward pass through
            the whole tower. Defaults to False.
        with_cp (bool): Whether activations are recomputed in the backward pass.
            Defaults to False.
        out_maps (bool): Whether the output is a tuple with a feature map for each
            extracted layer, as MMDetection's backbones give it, each of its own
            stride. Defaults to False: tokens.
        class_token (str, optional): What is before the patches: 'prefix', the tower's
            own class token; 'pooled', the mean of the patches; 'none'. Defaults to
            None: 'prefix' of a tower that has one, else 'none'.
        init_cfg (dict or list[dict], optional): See :class:`CLIPTower`. Defaults to
            None.
        adapter (dict, optional): What of the frozen tower is trained, such as
            ``dict(kind='lora', rank=8)``, ``dict(kind='bias')`` or
            ``dict(kind='last_blocks', number=2)``; see :func:`adapt`. Defaults to
            None: nothing.
        compute_dtype (str, optional): 'float16' or 'bfloat16'; see :class:`CLIPTower`.
            Defaults to None: that of the weights.

    Raises:
        ValueError: The architecture is unknown, an extracted layer does not exist, or
            the tower has no class token, or none of its positions can be trained.
    """

    kind, net_name = 'visual', 'vit'

    def __init__(
        self,
        arch: str | dict,
        extract_layers: Sequence[int] | None = None,
        pretrained: str | None = None,
        image_size: int | tuple[int, int] | None = None,
        frozen: bool = True,
        train_pos_embed: bool = False,
        with_cp: bool = False,
        out_maps: bool = False,
        class_token: str | None = None,
        init_cfg: OptMultiConfig = None,
        adapter: dict | None = None,
        compute_dtype: str | None = None,
    ) -> None:
        super().__init__(
            *(arch, pretrained, frozen, with_cp, init_cfg, adapter, compute_dtype)
        )
        vision = self.config['vision_cfg']
        self.image_size = tuple(to_2tuple(image_size or vision.get('image_size', 224)))
        plain = is_plain_vit(vision)
        if image_size is not None and plain:
            vision['image_size'] = image_size
        vit = build_tower(self.kind, self.config)
        if not plain:
            set_input_size(vit, self.image_size, arch)
        levels = visual_levels(vit)
        self.extract_layers = (
            default_layers(levels) if extract_layers is None else tuple(extract_layers)
        )
        if not self.extract_layers or not set(self.extract_layers) <= set(
            range(len(levels))
        ):
            raise ValueError(
                f'extract_layers={self.extract_layers}, but {arch!r} has the blocks '
                f'0 to {len(levels) - 1}.'
            )
        read = [levels[layer] for layer in self.extract_layers]
        self.patch_size, self.grid_size = self._grid([level.stride for level in read])
        if plain:
            self.patch_size, self.grid_size = vit.patch_size, vit.grid_size
        self.out_maps = out_maps
        widths = [level.width for level in read]
        self.out_channels: int | list[int] = sum(widths)
        if out_maps:
            self.out_channels = widths if is_hierarchical(levels) else widths[0]
        self.class_token = self._class_token(class_token, class_tokens_of(vit))
        # Never read: the pooled output, and what is after the last extracted level.
        prune_levels(vit, self.extract_layers)
        self.vit = vit
        trained = []
        if train_pos_embed or (plain and not frozen):
            trained = [self._positions(vit)]
        self.freeze_clip(trained)

    def _grid(self, strides: list[int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Height and width of a patch of the finest level, and rows and columns."""
        height, width = self.image_size
        coarsest, finest = max(strides), min(strides)
        # Of several strides, features would lie over each other only by about.
        if coarsest != finest and (height % coarsest or width % coarsest):
            raise ValueError(
                f'{self.arch!r} is read at the strides {strides}, of which the image '
                f'size {self.image_size} (H, W) must be a multiple.'
            )
        return (finest, finest), (height // finest, width // finest)

    def _class_token(self, wanted: str | None, prefix_tokens: int) -> str:
        """Which class token there is: 'prefix', 'pooled' or 'none'."""
        known = ('prefix', 'pooled', 'none')[0 if prefix_tokens else 1 :]
        if wanted is not None and wanted not in known:
            raise ValueError(
                f'class_token={wanted!r}, but {self.arch!r} has {prefix_tokens} tokens '
                f'before its patches; expected one of {known}.'
            )
        return wanted or known[0 if prefix_tokens else -1]

    def _positions(self, vit: nn.Module) -> str:
        """The name of the position embedding, to train it."""
        name = positions_name(vit)
        if name is None:
            raise ValueError(
                f'train_pos_embed=True, but {self.arch!r} has no position embedding '
                'that can be trained; set it to False.'
            )
        return name

    def log_normalization(self, preprocessor: nn.Module) -> None:
        """Log where images are normalised otherwise than for the weights' training.

        Args:
            preprocessor (nn.Module): Of MMDetection, whose ``mean`` and ``std`` have
                shape (3, 1, 1).
        """
        known = self.pretrained and trained_normalization(self.arch, self.pretrained)
        if not known or not hasattr(preprocessor, 'mean'):
            return
        own = [
            getattr(preprocessor, name).flatten().tolist() for name in ('mean', 'std')
        ]
        if all(
            math.isclose(one, other, abs_tol=0.1)
            for pair in zip(own, known, strict=True)
            for one, other in zip(*pair, strict=True)
        ):
            return
        print_log(
            f'{self.pretrained} of {self.arch!r} was trained with images of mean '
            f'{known[0]} and std {known[1]}; data_preprocessor has {own[0]} and '
            f'{own[1]}. The official recipe has those of ImageNet.',
            logger='current',
        )

    @in_compute_dtype
    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Encode normalised images.

        Args:
            images (Tensor): Of shape (B, 3, H, W), with H and W of
                ``image_size``.

        Returns:
            Tensor or tuple[Tensor]: The class token, if there is one, and the patches
            in rows, of shape (B, 1 + P, C) or (B, P, C), C = ``out_channels``; with
            ``out_maps`` for each layer the patches alone, of shape
            (B, C, rows, columns).
        """
        if tuple(images.shape[-2:]) != tuple(self.image_size):
            raise ValueError(
                f'The visual tower takes images of {self.image_size} (H, W), got '
                f"{tuple(images.shape[-2:])}: set `size` of the pipeline's resize "
                'and letterbox (or `scale`, and `pad_size_divisor` of the '
                'preprocessor), or `image_size` of the encoder.'
            )
        with_cp = self.with_cp and self.training
        if isinstance(self.vit, VisionTransformer) and not self.out_maps:
            layers = vit_levels(self.vit, images, self.extract_layers, with_cp)
            tokens = torch.cat(layers, dim=-1)
            if self.class_token == 'prefix':
                return tokens
            return self._with_class_token(None, tokens[:, 1:])
        levels = read_levels(self.vit, images, self.extract_layers, with_cp)
        if self.out_maps:
            return tuple(patches for _, patches in levels)
        maps = [
            patches
            if patches.shape[-2:] == self.grid_size
            else interpolate(patches, self.grid_size, mode='bilinear')
            for _, patches in levels
        ]
        prefixes = [prefix[:, :1] for prefix, _ in levels if prefix is not None]
        return self._with_class_token(
            torch.cat(prefixes, dim=-1) if prefixes else None,
            torch.cat(maps, dim=1).flatten(2).transpose(1, 2),
        )

    def _with_class_token(self, prefix: Tensor | None, patches: Tensor) -> Tensor:
        """Patches (B, P, C) behind their class token, if there is to be one."""
        if self.class_token == 'none':
            return patches
        if self.class_token == 'pooled':
            prefix = patches.mean(1, keepdim=True)
        assert prefix is not None
        return torch.cat([prefix, patches], dim=1)


@MODELS.register_module()
class CLIPTextEncoder(CLIPTower):
    """All text tokens of CLIP: last layer, ``ln_final``, ``text_projection``.

    Where attention is causal, or does not read the filling (Hugging Face), a batch is
    cut to its longest expression without changing a token (method, section 1;
    performance page). Where it reads the filling, as SigLIP's does, the tower encodes
    texts of ``context_length``, and what is behind the longest is cut afterwards.

    Args:
        arch (str or dict): See :func:`clip_config`; docs/towers.md lists the families.
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
        hf_folder (str, optional): A folder with the tokenizer, and for a text tower of
            Hugging Face its ``config.json``, in the place of what the architecture
            names on the hub. Defaults to None.
        init_cfg (dict or list[dict], optional): See :class:`CLIPTower`. Defaults to
            None.
        adapter (dict, optional): What of the frozen tower is trained, such as
            ``dict(kind='lora', rank=8)``, ``dict(kind='bias')`` or
            ``dict(kind='last_blocks', number=2)``; see :func:`adapt`. Defaults to
            None: nothing.
        compute_dtype (str, optional): 'float16' or 'bfloat16'; see :class:`CLIPTower`.
            Defaults to None: that of the weights.

    Raises:
        ImportError: The tower is of Hugging Face, and its package is not installed.
        ValueError: The architecture is unknown, its config is not on this machine, the
            template has no {}, or a prompt leaves no token to the expression or is not
            of CLIP's vocabulary.
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
        hf_folder: str | None = None,
        init_cfg: OptMultiConfig = None,
        adapter: dict | None = None,
        compute_dtype: str | None = None,
    ) -> None:
        super().__init__(
            *(arch, pretrained, frozen, with_cp, init_cfg, adapter, compute_dtype)
        )
        text = self.config['text_cfg']
        for name in ('hf_model_name', 'hf_tokenizer_name') if hf_folder else ():
            if text.get(name):
                text[name] = hf_folder
        transformer = build_tower(self.kind, self.config)
        self.context_length = text.get('context_length', 77)
        self.out_channels = transformer.output_dim
        self.expression_tokenizer = tokenizer_of(text, template)
        self.fill_id = self.expression_tokenizer.fill_id
        # CoCa's class token is behind the text, which does not read it.
        self._masks_filling = getattr(transformer, 'cls_emb', None) is not None
        if self._masks_filling:
            transformer.cls_emb = None
        if isinstance(transformer, TextTransformer):
            if transformer.text_projection is None:
                self.out_channels = transformer.width
            use_lean_activations(transformer.transformer.resblocks)
        elif with_cp:
            transformer.transformer.gradient_checkpointing_enable(
                dict(use_reentrant=False)
            )
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
        if isinstance(self.expression_tokenizer, VocabularyTokenizer):
            raise ValueError(
                f"prompt: {self.arch!r} does not have CLIP's vocabulary, whose texts "
                'begin with a token that a prompt can follow; use `template`.'
            )
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

    @property
    def tokenizer(self) -> Any:
        """What makes token ids of words."""
        return self.expression_tokenizer.words

    def tokenize(self, expressions: Sequence[str]) -> Tensor:
        """Token ids (E, L) of expressions; see :class:`ExpressionTokenizer`."""
        return self.expression_tokenizer(expressions)

    def padding(self, token_ids: Tensor) -> Tensor:
        """Which token ids (E, L) the fusion does not read, bool.

        In CLIP's vocabulary, as in the official code, id 0, be it filling or "!" in a
        run of symbols; the text tower reads the latter.
        """
        return token_ids == self.fill_id

    @in_compute_dtype
    def forward(self, token_ids: Tensor) -> Tensor:
        """Encode token ids of shape (E, L) to text tokens of shape (E, L, D)."""
        tower = self.transformer
        if not isinstance(tower, TextTransformer):
            return self._forward_hugging_face(token_ids)
        length = token_ids.shape[1]
        mask = tower.attn_mask
        if mask is None:
            token_ids = self._filled(token_ids)
        else:
            # Causal: no token reads what was cut off behind it.
            mask = mask[:length, :length]
        if self._masks_filling:
            mask = mask + self._coca_mask(token_ids)
        if self.fill_id != 0:
            token_ids = token_ids.masked_fill(self.padding(token_ids), self._pad_id())
        tokens = tower.token_embedding(token_ids)
        if self.prompt is not None:
            prompt = self.prompt.expand(tokens.shape[0], self.prompt_length, -1)
            after = tokens[:, 1 + self.prompt_length :]
            tokens = torch.cat([tokens[:, :1], prompt, after], dim=1)
        tokens = tokens + tower.positional_embedding[: token_ids.shape[1]]
        for block in tower.transformer.resblocks:
            tokens = run_block(
                partial(block, attn_mask=mask), tokens, self.with_cp and self.training
            )
        tokens = tower.ln_final(tokens[:, :length])
        projection: Any = tower.text_projection
        if projection is None:
            return tokens
        # With a bias, in architectures that have `proj_bias`.
        if isinstance(projection, nn.Linear):
            return projection(tokens)
        return tokens @ projection

    def _filled(self, token_ids: Tensor) -> Tensor:
        """Token ids (E, L) filled up to the context length."""
        places = torch.arange(self.context_length, device=token_ids.device)
        length = token_ids.shape[1]
        # Gathered, so that an exported graph takes any length, the longest included.
        longer = token_ids[:, places.clamp(max=length - 1)]
        return longer.masked_fill(places >= length, self.fill_id)

    def _coca_mask(self, token_ids: Tensor) -> Tensor:
        """What CoCa adds to logits (E, 1, 1, L): its mask of id 0 is one place late."""
        late = pad(token_ids[:, :-1], (1, 0), value=1) == 0
        logits = torch.zeros(late.shape, device=late.device)
        return logits.masked_fill(late, -torch.inf)[:, None, None]

    def _pad_id(self) -> int:
        """What the tower reads where there is no token."""
        tower = self.transformer
        if isinstance(tower, TextTransformer):
            return self.expression_tokenizer.pad_id if tower.attn_mask is None else 0
        return tower.config.pad_token_id

    def _forward_hugging_face(self, token_ids: Tensor) -> Tensor:
        """The last hidden state through the projection of a pooled text."""
        padding = self.padding(token_ids)
        hidden = self.transformer.transformer(
            input_ids=token_ids.masked_fill(padding, self._pad_id()),
            attention_mask=(~padding).long(),
        ).last_hidden_state
        return self.transformer.proj(hidden)


def tokenizer_of(text: dict, template: str) -> ExpressionTokenizer:
    """The tokenizer of a ``text_cfg`` of open_clip.

    Raises:
        ValueError: open_clip prepares texts for it in a way that is not supported.
    """
    length, name = text.get('context_length', 77), text.get('hf_tokenizer_name')
    if text.get('tokenizer_mode'):
        raise ValueError(
            f'tokenizer_mode={text["tokenizer_mode"]!r} of the text tower is not '
            'supported; expected none.'
        )
    if not name:
        return ExpressionTokenizer(length, template)
    return VocabularyTokenizer(
        length, template, name, **(text.get('tokenizer_kwargs') or {})
    )
