"""CLIP-VG on RefCOCO with CLIP ViT-B/16 at 336 pixels, by interpolated positions."""

_base_ = [
    './_base_/models/clip_vg_vit-b16.py',
    './_base_/datasets/refexp_336.py',
    './_base_/schedules/released.py',
]

model = dict(visual_encoder=dict(image_size=336))
dataset = dict(
    ann_file='refcoco/instances.json',
    split_file='refcoco/refs(unc).p',
    data_prefix=dict(img='train2014/'),
    int_boxes=True,
)
train_dataloader = val_dataloader = dict(dataset=dict(**dataset))
test_dataloader = dict(dataset=dict(split=('val', 'testA', 'testB'), **dataset))
del dataset
