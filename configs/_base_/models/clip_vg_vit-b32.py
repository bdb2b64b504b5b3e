"""CLIP-VG with CLIP ViT-B/32."""

_base_ = './clip_vg_vit-b16.py'

model = dict(
    visual_encoder=dict(arch='ViT-B-32-quickgelu'),
    text_encoder=dict(arch='ViT-B-32-quickgelu'),
)
