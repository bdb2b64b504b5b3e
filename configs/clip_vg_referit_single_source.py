"""CLIP-VG on template pseudo-labels of ReferIt: no human label is trained on."""

_base_ = './clip_vg_referit.py'

train_dataloader = dict(
    dataset=dict(ann_file='referit/pseudo/template.jsonl', split_file=None, split=None)
)
