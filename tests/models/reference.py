"""The published way of computing CLIP-VG, slow and plain, on a model's weights.

One expression and one picture at a time; all context tokens, pads included; every
token through every fusion layer; ``nn.MultiheadAttention`` with a padding mask.
"""

import torch
from torch import nn
from torch.nn import functional as F


def attention(in_weight, in_bias, out_proj, heads):
    module = nn.MultiheadAttention(out_proj.in_features, heads, batch_first=True)
    module.load_state_dict(
        {
            'in_proj_weight': in_weight,
            'in_proj_bias': in_bias,
            'out_proj.weight': out_proj.weight,
            'out_proj.bias': out_proj.bias,
        }
    )
    return module.eval()


def clip_block(block, x, mask=None):
    own = block.attn
    mha = attention(own.in_proj_weight, own.in_proj_bias, own.out_proj, own.num_heads)
    normed = block.ln_1(x)
    x = x + mha(normed, normed, normed, attn_mask=mask, need_weights=False)[0]
    return x + block.mlp(block.ln_2(x))


def visual_tokens(encoder, image):
    vit = encoder.vit
    x = vit.conv1(image[None]).flatten(2).transpose(1, 2)
    x = torch.cat([vit.class_embedding.expand(1, 1, -1), x], 1)
    x = vit.ln_pre(x + vit.positional_embedding)
    kept = []
    for index, block in enumerate(vit.transformer.resblocks):
        x = clip_block(block, x)
        if index in encoder.extract_layers:
            kept.append(x)
    return torch.cat(kept, -1)


def text_tokens(encoder, ids):
    tower = encoder.transformer
    x = tower.token_embedding(ids) + tower.positional_embedding
    mask = torch.full((ids.shape[1],) * 2, float('-inf')).triu(1)
    for block in tower.transformer.resblocks:
        x = clip_block(block, x, mask)
    return tower.ln_final(x) @ tower.text_projection


def fusion_layer(layer, x, pos, padding):
    mha = attention(
        torch.cat([p.weight for p in (layer.q_proj, layer.k_proj, layer.v_proj)]),
        torch.cat([p.bias for p in (layer.q_proj, layer.k_proj, layer.v_proj)]),
        layer.out_proj,
        layer.num_heads,
    )
    placed = x + pos
    x = layer.norm1(x + mha(placed, placed, x, key_padding_mask=padding)[0])
    return layer.norm2(x + layer.linear2(F.relu(layer.linear1(x))))


def box_of(model, image, patch_padding, expression):
    """Normalised cxcywh of shape (4, ) for one normalised image (3, H, W)."""
    fusion = model.fusion
    ids = model.text_encoder.tokenizer([expression])
    visual = fusion.visual_proj(visual_tokens(model.visual_encoder, image))
    text = fusion.text_proj(text_tokens(model.text_encoder, ids))
    x = torch.cat([fusion.reg_token.weight[None], text, visual], 1)
    nothing = torch.zeros(1, 1, dtype=torch.bool)
    padding = torch.cat([nothing, ids == 0, nothing, patch_padding[None]], 1)
    for layer in fusion.layers:
        x = fusion_layer(layer, x, fusion.pos_embed.weight[None], padding)
    return model.bbox_head(x[:, 0])[0]
