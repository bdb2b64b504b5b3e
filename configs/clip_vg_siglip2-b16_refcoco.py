"""CLIP-VG with SigLIP 2 ViT-B/16 on RefCOCO (UNC split)."""

_base_ = [
    './_base_/models/clip_vg_siglip2-b16.py',
    './_base_/datasets/refexp_224.py',
    './_base_/schedules/released.py',
]

dataset = dict(
    ann_file='refcoco/instances.json',
    split_file='refcoco/refs(unc).p',
    data_prefix=dict(img='train2014/'),
    int_boxes=True,
)
train_dataloader = dict(dataset=dict(**dataset))
val_dataloader = dict(dataset=dict(**dataset))
test_dataloader = dict(dataset=dict(split=('val', 'testA', 'testB'), **dataset))
del dataset
