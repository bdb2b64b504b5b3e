"""CLIP-VG with CLIP ViT-L/14 on RefCOCO (UNC split)."""

_base_ = [
    './_base_/models/clip_vg_vit-l14.py',
    './_base_/datasets/refcoco_224.py',
    './_base_/schedules/released.py',
]
