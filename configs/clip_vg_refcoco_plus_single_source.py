"""CLIP-VG on template pseudo-labels of RefCOCO+: no human label is trained on."""

_base_ = './clip_vg_refcoco_plus.py'

train_dataloader = dict(
    dataset=dict(ann_file='refcoco+/pseudo/template.jsonl', split_file=None, split=None)
)
