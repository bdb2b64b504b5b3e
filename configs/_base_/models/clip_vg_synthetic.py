"""CLIP-VG on a tiny CLIP, for the built-in toy data set: CPU, no download."""

_base_ = './clip_vg_vit-b16.py'

arch = dict(
    embed_dim=64,
    quick_gelu=True,
    vision_cfg=dict(
        image_size=64,
        patch_size=8,
        width=64,
        layers=3,
        head_width=16,
        pos_embed_type='sin_cos_2d',
        # Its patches agree with texts, not its class token.
        pool_type='avg',
    ),
    # The vocabulary is CLIP's own.
    text_cfg=dict(context_length=77, vocab_size=49408, width=64, heads=2, layers=1),
)
weights = 'projects/clip_vg/assets/tiny_clip.safetensors'
model = dict(
    visual_encoder=dict(
        arch=dict(_delete_=True, **arch),
        extract_layers=(0, 1, 2),
        pretrained=weights,
        train_pos_embed=False,
    ),
    text_encoder=dict(arch=dict(_delete_=True, **arch), pretrained=weights),
    fusion=dict(
        num_layers=3,
        num_heads=4,
        feedforward_channels=256,
        dropout=0.0,
        pos_embed_init='sin_cos_2d',
    ),
)
# What it was pretrained with; see CropTextCLIP.
agreement = dict(
    template='{}', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]
)
# Of `--zero-shot`; see zero_shot_synthetic.py.
zero_shot = dict(signals=dict(crop=0.5, heat=1.0), geometry=dict(margin=5.0))
del arch, weights
