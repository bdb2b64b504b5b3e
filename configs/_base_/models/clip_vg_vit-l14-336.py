"""CLIP-VG with CLIP ViT-L/14@336."""

_base_ = './clip_vg_vit-b16.py'

model = dict(
    visual_encoder=dict(arch='ViT-L-14-336-quickgelu', extract_layers=(0, 7, 15, 23)),
    text_encoder=dict(arch='ViT-L-14-336-quickgelu'),
)
