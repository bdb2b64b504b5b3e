"""Levels of CLIP's visual towers: blocks of a ViT, stages of a convolutional one."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from .clip_blocks import init_blocks, run_block, use_lean_activations

__all__ = [
    'Level',
    'class_tokens_of',
    'default_layers',
    'is_hierarchical',
    'is_plain_vit',
    'prune_levels',
    'read_levels',
    'set_input_size',
    'vit_levels',
    'visual_levels',
]


class Level(NamedTuple):
    """A place in a visual tower whose features can be read.

    Attributes:
        width (int): Channels.
        stride (int): Pixels of the input from one feature to the next.
    """

    width: int
    stride: int


def visual_levels(net: Any) -> list[Level]:
    """All levels of a visual tower of open_clip, first to last.

    Args:
        net (nn.Module): A ViT of open_clip (blocks), its ModifiedResNet (the stem and
            four stages), or a tower of timm (blocks, or stages of a hierarchical one).

    Raises:
        ValueError: It is a tower of timm that gives no intermediate features.
    """
    if isinstance(net, VisionTransformer):
        level = Level(net.conv1.out_channels, net.patch_size[0])
        return [level] * len(net.transformer.resblocks)
    if isinstance(net, ModifiedResNet):
        stages = [net.layer1, net.layer2, net.layer3, net.layer4]
        widths = [net.conv3.out_channels] + [s[-1].conv3.out_channels for s in stages]
        return [
            Level(width, stride)
            for width, stride in zip(widths, (4, 4, 8, 16, 32), strict=True)
        ]
    trunk = net.trunk
    if not hasattr(trunk, 'forward_intermediates'):
        raise ValueError(
            f"timm's {type(trunk).__name__} has no forward_intermediates, by which "
            'levels of a tower are read; expected a model of timm that has.'
        )
    info = trunk.feature_info
    return [
        Level(entry['num_chs'], entry['reduction'])
        for entry in (info if isinstance(info, list) else info.info)
    ]


def is_plain_vit(vision: dict) -> bool:
    """Whether a ``vision_cfg`` of open_clip is that of its own ViT."""
    return not vision.get('timm_model_name') and isinstance(
        vision.get('layers', 12), int
    )


def is_hierarchical(levels: Sequence[Level]) -> bool:
    """Whether levels of a tower have several strides, as those of a ViT have not."""
    return len({level.stride for level in levels}) > 1


def default_layers(levels: Sequence[Level]) -> tuple[int, ...]:
    """Levels to read: four of a ViT as in the official code, else those from stride 16.

    The finest of them has as many patches as a ViT of patches of 16 pixels.
    """
    if is_hierarchical(levels):
        return tuple(i for i, level in enumerate(levels) if level.stride >= 16)
    return tuple(
        sorted({0, *(max(0, len(levels) * part // 3 - 1) for part in (1, 2, 3))})
    )


def class_tokens_of(net: Any) -> int:
    """Tokens before the patches: the class token first, then registers; 0 if none."""
    if isinstance(net, VisionTransformer):
        return 1
    return getattr(getattr(net, 'trunk', None), 'num_prefix_tokens', 0) or 0


def prune_levels(net: Any, layers: Sequence[int]) -> None:
    """Remove what is behind the last level that is read, in place."""
    last = max(layers)
    if isinstance(net, VisionTransformer):
        init_blocks(net.transformer.resblocks)
        net.ln_post, net.proj = nn.Identity(), None
        net.attn_pool = net.attn_pool_contrastive = None
        del net.transformer.resblocks[last + 1 :]
        use_lean_activations(net.transformer.resblocks)
    elif isinstance(net, ModifiedResNet):
        net.attnpool = None
        for number in range(last + 1, 5):
            setattr(net, f'layer{number}', None)
    else:
        net.head = nn.Identity()
        net.trunk.prune_intermediate_layers(
            sorted(set(layers)), prune_norm=True, prune_head=True
        )


def read_levels(
    net: Any, images: Tensor, layers: Sequence[int], with_cp: bool
) -> list[tuple[Tensor | None, Tensor]]:
    """Features of levels, in the order of ``layers``.

    Args:
        net (nn.Module): See :func:`visual_levels`.
        images (Tensor): Normalised, of shape (B, 3, H, W).
        layers (Sequence[int]): Numbers of levels.
        with_cp (bool): Whether activations are recomputed in the backward pass.

    Returns:
        list[tuple[Tensor or None, Tensor]]: Of each level the tokens before the
        patches, of shape (B, N, C), None where there are none; and the patches, of
        shape (B, C, rows, columns).
    """
    wanted = sorted(set(layers))
    split: list[tuple[Tensor | None, Tensor]] = []
    if isinstance(net, VisionTransformer):
        split = [
            (tokens[:, :1], tokens[:, 1:].transpose(1, 2).unflatten(2, net.grid_size))
            for tokens in vit_levels(net, images, wanted, with_cp)
        ]
    elif isinstance(net, ModifiedResNet):
        stages = [net.stem, net.layer1, net.layer2, net.layer3, net.layer4]
        features = images
        for index in range(wanted[-1] + 1):
            features = run_block(stages[index], features, with_cp)
            if index in wanted:
                split.append((None, features))
    else:
        # Only where it changes: an exporter does not let a pass set anything.
        if getattr(net, 'with_cp', False) != with_cp:
            net.trunk.set_grad_checkpointing(with_cp)
            net.with_cp = with_cp
        split = _timm_levels(net.trunk, images, wanted)
    numbered = dict(zip(wanted, split, strict=True))
    return [numbered[layer] for layer in layers]


def vit_levels(
    net: Any, images: Tensor, layers: Sequence[int], with_cp: bool
) -> list[Tensor]:
    """Class token and patches (B, 1 + P, C) after blocks of a ViT of open_clip."""
    tokens, extracted = net._embeds(images), {}
    for index, block in enumerate(net.transformer.resblocks):
        tokens = run_block(block, tokens, with_cp)
        extracted[index] = tokens
    return [extracted[layer] for layer in layers]


def _timm_levels(
    trunk: Any, images: Tensor, wanted: list[int]
) -> list[tuple[Tensor | None, Tensor]]:
    """Levels of a model of timm, by its own method."""
    options: dict[str, Any] = {}
    # Hierarchical towers do not know the option; EVA's fails without such tokens.
    if getattr(trunk, 'num_prefix_tokens', 0):
        options['return_prefix_tokens'] = True
    features = trunk.forward_intermediates(
        images, wanted, intermediates_only=True, output_fmt='NCHW', **options
    )
    return [
        (level[1], level[0]) if isinstance(level, tuple) else (None, level)
        for level in features
    ]


def set_input_size(net: Any, size: tuple[int, int], name: object) -> None:
    """Make a tower of timm or a ModifiedResNet take images of another size.

    Args:
        net (nn.Module): Changed in place.
        size (tuple[int, int]): Height and width in pixels.
        name (object): The architecture as the user named it.

    Raises:
        ValueError: It cannot take images of that size.
    """
    net.image_size = size
    patch_embed = getattr(getattr(net, 'trunk', None), 'patch_embed', None)
    own = getattr(patch_embed, 'img_size', None)
    if own is None or tuple(own) == size:
        return
    options: dict[str, Any] = {}
    stages: Any = net.trunk.layers if isinstance(net.trunk, SwinTransformer) else None
    if stages is not None:
        # Its positions are within a window, and fit weights of the same alone.
        options['window_size'] = stages[0].blocks[0].window_size
    try:
        net.trunk.set_input_size(size, **options)
    except (AssertionError, AttributeError, ValueError) as error:
        raise ValueError(
            f'{name!r} cannot take images of {size} (H, W): {error}'
        ) from error
