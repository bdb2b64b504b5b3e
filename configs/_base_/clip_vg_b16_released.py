"""Model, data and schedule of the official code; a top-level config adds its data."""

_base_ = [
    './models/clip_vg_vit-b16.py',
    './datasets/refexp_224.py',
    './schedules/released.py',
]
