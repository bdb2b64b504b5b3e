"""CLIP-VG with DINOv2 ViT-B/14 and the text tower of CLIP on RefCOCO (UNC split)."""

_base_ = [
    './_base_/models/clip_vg_dinov2-b14.py',
    './_base_/datasets/refcoco_224.py',
    './_base_/schedules/released.py',
]
