"""``refexp_224.py`` with pictures of 336 pixels."""

_base_ = './refexp_224.py'

image_size = 336
long_sides = [image_size - 32 * step for step in range(7)]
train_pipeline = [
    dict(type='LoadGroundingImage'),
    dict(type='LoadAnnotations', with_bbox=True),
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
                for size in (image_size, image_size - 32)
            ],
            [dict(type='TextAwareFlip', prob=prob) for prob in (0.0, 1.0)],
            *([step] for step in test_pipeline[2:]),
        ],
    ),
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
