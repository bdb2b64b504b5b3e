"""CLIP-VG on RefCOCO, RefCOCO+, RefCOCOg, ReferIt and Flickr30k at once."""

_base_ = [
    './_base_/models/clip_vg_vit-b16.py',
    './_base_/datasets/mixed_224.py',
    './_base_/schedules/released.py',
]

# By size; or the share of each set, e.g. {'refcoco': 2, 'refcoco+': 2, ...: 1}.
train_dataloader = dict(
    sampler=dict(_delete_=True, type='CurriculumSampler', weights=None)
)
default_hooks = dict(run_check=dict(on_leak='error'))
