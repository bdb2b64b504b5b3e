"""What open_clip calls an architecture, and which of them CLIP-VG can read."""

from typing import Any

import open_clip

# Private, but the only ones that build one tower of a config; tests say what is
# relied upon, and setup.py which versions have it.
from open_clip.model import _build_text_tower, _build_vision_tower

__all__ = ['build_tower', 'clip_config']


def clip_config(arch: str | dict) -> dict:
    """The config of a CLIP in open_clip's terms.

    Args:
        arch (str or dict): A model name of open_clip, such as
            'ViT-B-16-quickgelu', or a dict with ``embed_dim``, ``vision_cfg``,
            ``text_cfg`` and, for OpenAI's activation, ``quick_gelu=True``.

    Returns:
        dict: A copy that may be changed.

    Raises:
        ValueError: open_clip has no model of that name, or it is not a ViT.
    """
    if isinstance(arch, str):
        config = open_clip.get_model_config(arch)
        if config is None:
            near = [name for name in open_clip.list_models() if arch[:5] in name]
            raise ValueError(
                f'open_clip {open_clip.__version__} has no model {arch!r}; near it: '
                f'{near[:8] or open_clip.list_models()[:8]}.'
            )
    else:
        config = arch
    config = {
        key: dict(value) if isinstance(value, dict) else value
        for key, value in config.items()
    }
    vision, text = config['vision_cfg'], config['text_cfg']
    unsupported = {'timm_model_name', 'attentional_pool'} & vision.keys()
    if unsupported or not isinstance(vision.get('layers', 12), int):
        raise ValueError(
            f'{arch!r}: the visual tower must be a plain ViT of open_clip.'
        )
    if text.get('hf_model_name') or text.get('embed_cls') or text.get('no_causal_mask'):
        raise ValueError(f'{arch!r}: the text tower must be a causal one of CLIP.')
    # open_clip's own block of plain linears and scaled_dot_product_attention: the
    # same weights and keys as the nn.MultiheadAttention one, without its copies
    # under autocast and its padding to full weights.
    vision['block_type'] = text['block_type'] = 'custom'
    return config


def build_tower(kind: str, config: dict) -> Any:
    """One tower of CLIP with random weights.

    Args:
        kind (str): 'visual' or 'text'.
        config (dict): Of :func:`clip_config`.

    Returns:
        nn.Module: open_clip's tower.
    """
    embed_dim, quick_gelu = config['embed_dim'], config.get('quick_gelu', False)
    if kind == 'visual':
        return _build_vision_tower(embed_dim, config['vision_cfg'], quick_gelu)
    return _build_text_tower(embed_dim, config['text_cfg'], quick_gelu)
