"""Pipelines, loaders and metric of referring expressions at 224 pixels.

A top-level config says which files: ``data_root``, ``ann_file``, ``split_file``,
``split``. ``refexp_336.py`` shows how another size is written.
"""

# The square's side and six smaller ones, 32 apart.
long_sides = [224 - 32 * step for step in range(7)]
train_pipeline = [
    dict(type='LoadGroundingImage'),
    dict(type='LoadAnnotations', with_bbox=True),
    # As in the official code (method, section 2): half of the images whose
    # expression names no place are cropped.
    dict(
        type='ExpressionAwareChoice',
        prob=[0.5, 0.5],
        transforms=[
            [dict(type='PILResize', size=long_sides)],
            [
                dict(type='PILResize', size=[400, 500, 600], side='short'),
                dict(type='ReferentCrop', min_size=384, max_size=600),
                dict(type='PILResize', size=long_sides),
            ],
        ],
    ),
    dict(type='PILColorJitter'),
    dict(type='Letterbox', size=224, placement='random'),
    dict(type='PackGroundingInputs'),
]
test_pipeline = [
    # MMDetection's DetInferencer puts its own loader in the place of the one of this
    # name, and shows photographs upright as this one does.
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    # Images of labels, as their boxes need them: as stored, or upright.
    dict(type='LoadGroundingImage'),
    dict(type='PILResize', size=224),
    dict(type='Letterbox', size=224),
    # After the geometry: true boxes stay in pixels of the original image.
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackGroundingInputs'),
]

# What `--tta` of the test tools takes: four views, of which the predictions that agree
# are averaged.
tta_model = dict(type='GroundingTTAModel')
tta_pipeline = [
    *test_pipeline[:2],
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='PILResize', size=size) for size in (224, 192)],
            [dict(type='TextAwareFlip', prob=prob) for prob in (0.0, 1.0)],
            *([step] for step in test_pipeline[3:]),
        ],
    ),
]

# Missing images are an error before the first step; 'warn' or 'off' where that is slow.
dataset = dict(type='RefExpDataset', data_root='data/coco/', check_images='error')
train_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(split='train', pipeline=train_pipeline, **dataset),
)
# Images, not expressions, are counted: each is encoded once for all of its.
val_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='ImageGroupSampler', shuffle=False),
    dataset=dict(
        split='val',
        test_mode=True,
        # As in the official code: an invalid box is a miss, not left out.
        filter_cfg=dict(invalid_boxes=False),
        pipeline=test_pipeline,
        **dataset,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='GroundingMetric')
test_evaluator = val_evaluator

# Names used above only; a dumped config has what the run reads.
del dataset, long_sides
