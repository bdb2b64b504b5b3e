"""CLIP-VG with EVA02-CLIP B/16 on RefCOCO (UNC split)."""

_base_ = [
    './_base_/models/clip_vg_eva02-b16.py',
    './_base_/datasets/refcoco_224.py',
    './_base_/schedules/released.py',
]
