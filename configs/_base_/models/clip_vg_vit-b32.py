"""CLIP-VG with CLIP ViT-B/32."""

_base_ = './clip_vg_vit-b16.py'

arch = 'ViT-B-32-quickgelu'
model = dict(
    visual_encoder=dict(arch=arch),
    text_encoder=dict(arch=arch),
)
