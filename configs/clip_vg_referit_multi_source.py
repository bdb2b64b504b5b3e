"""CLIP-VG on three sources of pseudo-labels of ReferIt, merged as they are."""

_base_ = './clip_vg_referit.py'

sources = ['template', 'relation', 'caption']
train_dataloader = dict(
    dataset=dict(
        ann_file=[f'referit/pseudo/{source}.jsonl' for source in sources],
        split_file=None,
        split=None,
        source=sources,
    )
)
del sources
