"""CLIP-VG with SigLIP 2 ViT-B/16 on RefCOCO (UNC split)."""

_base_ = [
    './_base_/models/clip_vg_siglip2-b16.py',
    './_base_/datasets/refcoco_224.py',
    './_base_/schedules/released.py',
]
