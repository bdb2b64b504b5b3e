"""CLIP-VG on three sources of pseudo-labels of RefCOCO+, merged as they are."""

_base_ = './clip_vg_refcoco_plus.py'

sources = ['template', 'relation', 'caption']
train_dataloader = dict(
    dataset=dict(
        ann_file=[f'refcoco+/pseudo/{source}.jsonl' for source in sources],
        split_file=None,
        split=None,
        source=sources,
    )
)
del sources
