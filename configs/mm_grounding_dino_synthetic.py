"""MMDetection's Grounding DINO, tiny and from scratch, on the built-in toy data set.

Data, metric and curriculum in a few minutes on a CPU, without a download. It needs
``pip install -e '.[grounding-dino]'``, ``make data`` and
``python tools/make_tiny_bert.py data/tiny_bert``.
"""

_base_ = './mm_grounding_dino_refcoco_curriculum.py'

load_from = None
bert = 'data/tiny_bert'
model = dict(
    num_queries=20,
    language_model=dict(name=bert),
    backbone=dict(
        embed_dims=24, depths=[1, 1, 1, 1], init_cfg=None, convert_weights=False
    ),
    neck=dict(in_channels=[48, 96, 192]),
    encoder=dict(num_layers=1),
    decoder=dict(num_layers=1),
    test_cfg=dict(max_per_img=5),
)

dataset = dict(
    data_root='data/synthetic/',
    data_prefix=dict(img='images/'),
    ann_file='shapes/instances.json',
    split_file='shapes/refs(synthetic).p',
)
resize = dict(type='FixScaleResize', scale=(96, 96), keep_ratio=True)
train_pipeline = [
    dict(type='LoadGroundingImage'),
    dict(type='LoadAnnotations', with_bbox=True),
    resize,
    dict(
        type='RandomSamplingNegPos',
        tokenizer_name=bert,
        num_sample_negative=85,
        max_tokens=256,
    ),
    _base_.train_dataloader.dataset.pipeline[-1],
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    sampler=dict(epoch_length=160),
    dataset=dict(
        split='train', source=None, max_images=60, pipeline=train_pipeline, **dataset
    ),
)
test_pipeline = [*_base_.test_pipeline]
test_pipeline[2] = resize
dataset.update(pipeline=test_pipeline)
val_dataloader = dict(num_workers=1, dataset=dict(max_images=10, **dataset))
test_dataloader = dict(
    num_workers=1, dataset=dict(split='test', max_images=30, **dataset)
)
reliability = 'work_dirs/mm_grounding_dino_synthetic/reliability'
custom_hooks = [dict(_base_.custom_hooks[0], out_dir=reliability)]
del dataset, resize, bert, reliability
