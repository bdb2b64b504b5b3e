"""Model, data and schedule of the released code; a leaf adds the files of its data."""

_base_ = [
    './models/clip_vg_vit-b16.py',
    './datasets/refexp_224.py',
    './schedules/released.py',
]
