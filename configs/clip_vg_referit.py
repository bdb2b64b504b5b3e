"""CLIP-VG on ReferIt (RefCLEF), the lists of TransVG."""

_base_ = [
    './_base_/models/clip_vg_vit-b16.py',
    './_base_/datasets/refexp_224.py',
    './_base_/schedules/released.py',
]

dataset = dict(
    data_root='data/',
    ann_file='referit/referit_{split}.pth',
    data_prefix=dict(img='referit/images/'),
    int_boxes=True,
)
train_dataloader = dict(dataset=dict(**dataset))
val_dataloader = dict(dataset=dict(**dataset))
test_dataloader = dict(dataset=dict(split='test', **dataset))
