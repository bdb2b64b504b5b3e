"""CLIP-VG on template pseudo-labels of RefCOCOg-google: no human label is used."""

_base_ = './clip_vg_refcocog_google.py'

train_dataloader = dict(
    dataset=dict(
        ann_file='refcocog/google/pseudo/template.jsonl', split_file=None, split=None
    )
)
