"""MMDetection's Grounding DINO on gRefCOCO: expressions with none, one or many targets.

Model, training transforms and schedule are MMDetection's; the labels and the metric
are ours. It needs ``pip install -e '.[grounding-dino]'``.
"""

_base_ = 'mmdet::mm_grounding_dino/refcoco/grounding_dino_swin-t_finetune_8xb4_5e_grefcoco.py'  # noqa: E501

custom_imports = dict(imports=['projects.clip_vg'], allow_failed_imports=False)

# Activations are stored, not recomputed by fairscale, which nothing here installs.
model = dict(encoder=dict(num_cp=0))

dataset = dict(
    _delete_=True,
    type='RefExpDataset',
    targets='any',
    data_root='data/coco/',
    data_prefix=dict(img='train2014/'),
    ann_file='grefcoco/instances.json',
    split_file='grefcoco/grefs(unc).json',
)
train_dataloader = dict(
    dataset=dict(
        split='train',
        pipeline=[dict(type='LoadGroundingImage'), *_base_.train_pipeline[1:]],
        **dataset,
    ),
)

test_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='LoadGroundingImage'),
    dict(type='FixScaleResize', scale=(800, 1333), keep_ratio=True, backend='pillow'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackGroundingInputs'),
]
# A target that is invalid is never found; its expression is not left out.
dataset.update(
    test_mode=True,
    filter_cfg=dict(invalid_boxes=False),
    pipeline=test_pipeline,
)
val_dataloader = dict(dataset=dict(split='val', **dataset))
test_dataloader = dict(dataset=dict(split=('val', 'testA', 'testB'), **dataset))
# In the place of gRefCOCOMetric, which reads one target of each expression.
val_evaluator = dict(_delete_=True, type='GeneralizedGroundingMetric')
test_evaluator = val_evaluator

default_hooks = dict(
    run_check=dict(type='RunCheckHook'),
    sampler_seed=dict(type='ExactResumeHook'),
    checkpoint=dict(save_best='grounding/f1_acc', rule='greater'),
    visualization=dict(type='DetVisualizationHook'),
)
visualizer = dict(type='GroundingVisualizer')
del dataset
