"""The official layout of CLIP-VG checkpoints, and ours, as functions of the weights."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ['describe_model', 'from_official', 'to_official']

# Official name and ours, read in both directions. The towers are stored under these
# names and, as the very same tensors, under `clip.`.
_LAYER = 'vl_transformer.encoder.layers.{}'
TABLE = (
    ('image_encoder_clip_vg.{}', 'visual_encoder.vit.{}'),
    ('text_encoder_clip_vg.{}', 'text_encoder.transformer.{}'),
    ('ml_visu_proj.{}', 'fusion.visual_proj.{}'),
    ('text_proj.{}', 'fusion.text_proj.{}'),
    ('reg_token.{}', 'fusion.reg_token.{}'),
    ('vl_pos_embed.{}', 'fusion.pos_embed.{}'),
    (_LAYER + '.self_attn.out_proj.{}', 'fusion.layers.{}.out_proj.{}'),
    (_LAYER + '.linear1.{}', 'fusion.layers.{}.linear1.{}'),
    (_LAYER + '.linear2.{}', 'fusion.layers.{}.linear2.{}'),
    (_LAYER + '.norm1.{}', 'fusion.layers.{}.norm1.{}'),
    (_LAYER + '.norm2.{}', 'fusion.layers.{}.norm2.{}'),
    ('bbox_embed.layers.{}', 'bbox_head.mlp.layers.{}'),
)
# One matrix there, three linears here: queries, keys, values.
_IN_PROJ = _LAYER + '.self_attn.in_proj_{}'
_QKV = tuple(f'fusion.layers.{{}}.{part}_proj.{{}}' for part in 'qkv')
# Stored by the official code, and read by nothing of it.
_UNUSED = re.compile(
    r'visu_proj\..+|clip\.logit_scale|image_encoder_clip_vg\.(?:proj|ln_post\..+)'
)
_ALIASES = (
    ('clip.visual.', 'image_encoder_clip_vg.'),
    ('clip.', 'text_encoder_clip_vg.'),
)


def _translate(name: str, template: str, other: str) -> str | None:
    """``name`` in the terms of ``other`` if it fits ``template``, else None."""
    match = re.fullmatch(re.escape(template).replace(r'\{\}', '(.+?)'), name)
    return other.format(*match.groups()) if match else None


def _aliased(name: str) -> str | None:
    """The tower's own name of an entry stored under ``clip.``."""
    for alias, tower in _ALIASES:
        if name.startswith(alias) and name != 'clip.logit_scale':
            return tower + name.removeprefix(alias)
    return None


def from_official(
    state: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Rename official weights to ours, strictly.

    Args:
        state (Mapping[str, Tensor]): ``checkpoint['model']`` of the official code.

    Returns:
        tuple[dict, dict]: Our weights in float32, and the entries that nothing
        reads, as stored. The towers' copies under ``clip.`` are in neither.

    Raises:
        ValueError: An entry has no counterpart, or a copy under ``clip.`` is not
            the tower's.
    """
    state = {name.removeprefix('module.'): value for name, value in state.items()}
    ours: dict[str, Tensor] = {}
    unused: dict[str, Tensor] = {}
    unknown, unequal = [], []
    for name, value in state.items():
        if _UNUSED.fullmatch(name):
            # Kept, so that a checkpoint can be converted back without a loss.
            unused[name] = value
        elif (tower := _aliased(name)) is not None:
            if tower not in state or not torch.equal(state[tower], value):
                unequal.append(name)
        elif renamed := _to_ours(name, value):
            ours.update(renamed)
        else:
            unknown.append(name)
    if unknown or not ours:
        raise ValueError(
            f'not a checkpoint of the official CLIP-VG: {len(unknown)} of {len(state)} '
            f'entries have no counterpart, e.g. {unknown[:5]}'
        )
    if unequal:
        raise ValueError(
            f'{len(unequal)} entries under `clip.` are not the tower they should be a '
            f'copy of, e.g. {unequal[:3]}: which of them was trained cannot be told'
        )
    return ours, unused


def _to_ours(name: str, value: Tensor) -> dict[str, Tensor]:
    first = _translate(name, _IN_PROJ, _QKV[0])
    if first is not None:
        names = [_translate(name, _IN_PROJ, template) for template in _QKV]
        chunks = value.float().chunk(3)
        return {str(n): c.clone() for n, c in zip(names, chunks, strict=True)}
    for official, own in TABLE:
        renamed = _translate(name, official, own)
        if renamed is not None:
            return {renamed: value.float()}
    return {}


def to_official(
    state: Mapping[str, Tensor],
    unused: Mapping[str, Tensor],
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """Rename our weights to the official names; inverts :func:`from_official`.

    Args:
        state (Mapping[str, Tensor]): Our weights.
        unused (Mapping[str, Tensor]): Entries that the official code stores and
            never reads.
        dtype (torch.dtype): Of the result. Defaults to float32.

    Returns:
        dict[str, Tensor]: ``checkpoint['model']``.

    Raises:
        ValueError: A weight has no counterpart there.
    """
    official: dict[str, Tensor] = {}
    for name, value in state.items():
        if any(_translate(name, template, _IN_PROJ) for template in _QKV):
            continue
        renamed = next(
            (r for theirs, own in TABLE if (r := _translate(name, own, theirs))), None
        )
        if renamed is None:
            raise ValueError(f'{name} has no counterpart in the official CLIP-VG')
        official[renamed] = value.to(dtype)
    for name in state:
        joined = _translate(name, _QKV[0], _IN_PROJ)
        if joined is not None:
            parts = [state[name.replace('.q_proj.', f'.{p}_proj.')] for p in 'qkv']
            official[joined] = torch.cat(parts).to(dtype)
    official.update(unused)
    for alias, tower in _ALIASES:
        copies = {
            alias + name.removeprefix(tower): value
            for name, value in official.items()
            if name.startswith(tower)
        }
        official.update(copies)
    return official


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """Count the different numbers at the group of ``pattern``."""
    matches = (re.match(pattern, name) for name in state)
    return len({match[1] for match in matches if match})


def describe_model(
    ours: Mapping[str, Tensor], num_heads: int = 8, dropout: float = 0.1
) -> dict[str, Any]:
    """Config of the CLIPVG that weights belong to, read off their shapes.

    Args:
        ours (Mapping[str, Tensor]): Weights in our layout.
        num_heads (int): Heads of the fusion; no shape tells. Defaults to 8, as
            officially.
        dropout (float): Dropout of the fusion. Defaults to 0.1, as officially.

    Returns:
        dict[str, Any]: ``visual_encoder``, ``text_encoder``, ``fusion`` and
        ``bbox_head`` to update a config of CLIPVG with. Heads of the towers are
        64 wide, as in all of OpenAI's; extracted layers are the first, and the
        ends of equal parts: (0, 3, 7, 11) of 12.

    Raises:
        ValueError: Shapes do not fit together, or an entry is missing.
    """
    visual, text = 'visual_encoder.vit.', 'text_encoder.transformer.'
    try:
        width, _, patch, _ = ours[f'{visual}conv1.weight'].shape
        tokens = ours[f'{visual}positional_embedding'].shape[0]
        context, text_width = ours[f'{text}positional_embedding'].shape
        vocabulary = ours[f'{text}token_embedding.weight'].shape[0]
        embed_dim = ours[f'{text}text_projection'].shape[1]
        hidden, visual_channels = ours['fusion.visual_proj.weight'].shape
        positions = ours['fusion.pos_embed.weight'].shape[0]
        feedforward = ours['fusion.layers.0.linear1.weight'].shape[0]
        mlp = ours[f'{visual}transformer.resblocks.0.mlp.c_fc.weight'].shape[0]
        text_mlp = ours[f'{text}transformer.resblocks.0.mlp.c_fc.weight'].shape[0]
    except KeyError as error:
        raise ValueError(f'no entry for {error.args[0]}') from None
    depth = _count(ours, r'visual_encoder\.vit\.transformer\.resblocks\.(\d+)\.')
    text_depth = _count(
        ours, r'text_encoder\.transformer\.transformer\.resblocks\.(\d+)\.'
    )
    grid = math.isqrt(tokens - 1)
    parts, rest = divmod(visual_channels, width)
    if grid**2 != tokens - 1 or rest or positions != 1 + context + tokens:
        raise ValueError(
            f'shapes do not fit together: {tokens} visual tokens, {visual_channels} '
            f'channels of {width}, {positions} fused positions for {context} of text'
        )
    layers = [0] + [depth * part // (parts - 1) - 1 for part in range(1, parts)]
    arch = dict(
        embed_dim=embed_dim,
        quick_gelu=True,
        vision_cfg=dict(
            image_size=grid * patch,
            patch_size=patch,
            width=width,
            layers=depth,
            head_width=min(64, width),
            mlp_ratio=mlp / width,
        ),
        text_cfg=dict(
            context_length=context,
            vocab_size=vocabulary,
            width=text_width,
            heads=max(1, text_width // 64),
            layers=text_depth,
            mlp_ratio=text_mlp / text_width,
        ),
    )
    return dict(
        visual_encoder=dict(arch=arch, extract_layers=tuple(layers), pretrained=None),
        text_encoder=dict(arch=arch, pretrained=None),
        fusion=dict(
            embed_dims=hidden,
            num_layers=_count(ours, r'fusion\.layers\.(\d+)\.'),
            num_heads=num_heads,
            feedforward_channels=feedforward,
            dropout=dropout,
        ),
        bbox_head=dict(num_layers=_count(ours, r'bbox_head\.mlp\.layers\.(\d+)\.')),
    )
