"""CLIP-VG on RefCOCOg (Google split, which has no public test)."""

_base_ = './_base_/clip_vg_b16_released.py'

dataset = dict(
    ann_file='refcocog/instances.json',
    split_file='refcocog/refs(google).p',
    data_prefix=dict(img='train2014/'),
    int_boxes=True,
)
train_dataloader = dict(dataset=dict(**dataset))
val_dataloader = dict(dataset=dict(**dataset))
test_dataloader = dict(dataset=dict(split='val', **dataset))
del dataset
