"""CLIP-VG on template pseudo-labels of Flickr30k: no human label is trained on."""

_base_ = './clip_vg_flickr30k.py'

train_dataloader = dict(
    dataset=dict(
        ann_file='flickr30k/pseudo/template.jsonl', split_file=None, split=None
    )
)
