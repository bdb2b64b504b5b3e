"""CLIP-VG on three sources of pseudo-labels of Flickr30k, merged as they are."""

_base_ = './clip_vg_flickr30k.py'

sources = ['template', 'relation', 'caption']
train_dataloader = dict(
    dataset=dict(
        ann_file=[f'flickr30k/pseudo/{source}.jsonl' for source in sources],
        split_file=None,
        split=None,
        source=sources,
    )
)
del sources
