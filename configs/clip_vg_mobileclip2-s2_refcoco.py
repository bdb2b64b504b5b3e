"""CLIP-VG with MobileCLIP 2 S2 on RefCOCO (UNC split)."""

_base_ = [
    './_base_/models/clip_vg_mobileclip2-s2.py',
    './_base_/datasets/refcoco_224.py',
    './_base_/schedules/released.py',
]
