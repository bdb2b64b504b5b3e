"""CLIP-VG on three sources of pseudo-labels of RefCOCOg-umd, merged as they are."""

_base_ = './clip_vg_refcocog_umd.py'

sources = ['template', 'relation', 'caption']
train_dataloader = dict(
    dataset=dict(
        ann_file=[f'refcocog/umd/pseudo/{source}.jsonl' for source in sources],
        split_file=None,
        split=None,
        source=sources,
    )
)
del sources
