"""The embedded default: pictures of shapes, a tiny frozen CLIP, minutes on a CPU.

Make the data with ``python tools/make_synthetic.py``; ``make quickstart`` does all.
"""

_base_ = [
    './_base_/models/clip_vg_synthetic.py',
    './_base_/datasets/refexp_224.py',
    './_base_/schedules/released.py',
]

image_size = 64
train_pipeline = [
    dict(type='LoadGroundingImage'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PILResize', size=image_size),
    dict(type='Letterbox', size=image_size, placement='random'),
    dict(type='PackGroundingInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='PILResize', size=image_size),
    dict(type='Letterbox', size=image_size),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackGroundingInputs'),
]
tta_model = dict(type='GroundingTTAModel')
tta_pipeline = [
    test_pipeline[0],
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='PILResize', size=size)
                for size in (image_size, image_size - 4)
            ],
            [dict(type='TextAwareFlip', prob=prob) for prob in (0.0, 1.0)],
            *([step] for step in test_pipeline[2:]),
        ],
    ),
]
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
