"""CLIP-VG on template pseudo-labels of RefCOCOg-umd: no human label is trained on."""

_base_ = './clip_vg_refcocog_umd.py'

train_dataloader = dict(
    dataset=dict(
        ann_file='refcocog/umd/pseudo/template.jsonl', split_file=None, split=None
    )
)
