"""CLIP-VG on ReferIt (RefCLEF), the lists of TransVG."""

_base_ = './_base_/clip_vg_b16_released.py'

dataset = dict(
    data_root='data/',
    ann_file='referit/referit_{split}.pth',
    data_prefix=dict(img='referit/images/'),
    int_boxes=True,
)
train_dataloader = dict(dataset=dict(**dataset))
val_dataloader = dict(dataset=dict(**dataset))
test_dataloader = dict(dataset=dict(split='test', **dataset))
del dataset
