"""CLIP-VG with CLIP ViT-B/32 on RefCOCO (UNC split)."""

_base_ = [
    './_base_/models/clip_vg_vit-b32.py',
    './_base_/datasets/refcoco_224.py',
    './_base_/schedules/released.py',
]
