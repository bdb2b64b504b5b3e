"""The built-in toy data set: images of shapes, a tiny frozen CLIP, minutes on a CPU.

Make the data with ``python tools/make_synthetic.py``; ``make quickstart`` does all.
"""

_base_ = [
    './_base_/models/clip_vg_synthetic.py',
    './_base_/datasets/refexp_224.py',
    './_base_/schedules/released.py',
]

train_pipeline = [
    dict(type='LoadGroundingImage'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PILResize', size=64),
    dict(type='Letterbox', size=64, placement='random'),
    dict(type='PackGroundingInputs'),
]
test_pipeline = _base_.test_pipeline
test_pipeline[2].size = test_pipeline[3].size = 64
tta_pipeline = _base_.tta_pipeline
views = tta_pipeline[2].transforms
views[0][0].size, views[0][1].size, views[2][0].size = 64, 60, 64
dataset = dict(
    data_root='data/synthetic/',
    ann_file='shapes/instances.json',
    split_file='shapes/refs(synthetic).p',
    data_prefix=dict(img='images/'),
)
train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    sampler=dict(_delete_=True, type='ImageGroupSampler'),
    dataset=dict(pipeline=train_pipeline, **dataset),
)
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline, **dataset))
test_dataloader = dict(
    num_workers=1, dataset=dict(pipeline=test_pipeline, split='test', **dataset)
)

max_epochs = 12
train_cfg = dict(max_epochs=max_epochs, val_interval=4)
optim_wrapper = dict(optimizer=dict(lr=1e-3), clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(
        type='OneCycleLR',
        eta_max=1e-3,
        total_steps=max_epochs,
        pct_start=0.2,
        convert_to_iter_based=True,
    )
]
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=4))
del dataset, max_epochs, views
