"""CLIP-VG on Flickr30k Entities, the lists of TransVG."""

_base_ = './_base_/clip_vg_b16_released.py'

dataset = dict(
    data_root='data/',
    ann_file='flickr30k/flickr_{split}.pth',
    data_prefix=dict(img='flickr30k/flickr30k-images/'),
    int_boxes=True,
)
train_dataloader = dict(dataset=dict(**dataset))
val_dataloader = dict(dataset=dict(**dataset))
test_dataloader = dict(dataset=dict(split='test', **dataset))
del dataset
