"""CLIP-VG on three sources, selecting labels during training."""

_base_ = './clip_vg_refcoco_multi_source.py'

train_dataloader = dict(sampler=dict(_delete_=True, type='CurriculumSampler'))
# Of 110 epochs: after 66 of warm-up the labels are scored, and once more.
custom_hooks = [
    dict(
        type='PseudoLabelReliabilityHook',
        begin=66,
        interval=22,
        end=88,
        threshold='otsu',
        out_dir='work_dirs/clip_vg_refcoco_multi_source_online/reliability',
    )
]
