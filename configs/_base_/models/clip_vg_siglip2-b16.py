"""CLIP-VG with SigLIP 2 ViT-B/16 at 224, and its own normalisation."""

_base_ = './clip_vg_vit-b16.py'

model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    visual_encoder=dict(arch='ViT-B-16-SigLIP2', pretrained='webli'),
    text_encoder=dict(arch='ViT-B-16-SigLIP2', pretrained='webli'),
)
