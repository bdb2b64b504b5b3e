"""MMDetection's Grounding DINO on pseudo-labels of RefCOCO, selected during training.

Model, training transforms and schedule are MMDetection's; the labels, the metric and
the curriculum are ours. It needs ``pip install -e '.[grounding-dino]'``.
"""

_base_ = (
    'mmdet::mm_grounding_dino/refcoco/grounding_dino_swin-t_finetune_8xb4_5e_refcoco.py'
)

custom_imports = dict(imports=['projects.clip_vg'], allow_failed_imports=False)

# Activations are stored, not recomputed by fairscale, which nothing here installs.
model = dict(encoder=dict(num_cp=0))

dataset = dict(
    _delete_=True,
    type='RefExpDataset',
    data_root='data/coco/',
    data_prefix=dict(img='train2014/'),
)
sources = ['template', 'relation', 'caption']
train_dataloader = dict(
    sampler=dict(_delete_=True, type='CurriculumSampler'),
    dataset=dict(
        ann_file=[f'refcoco/pseudo/{source}.jsonl' for source in sources],
        source=sources,
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
dataset.update(
    ann_file='refcoco/instances.json',
    split_file='refcoco/refs(unc).p',
    test_mode=True,
    pipeline=test_pipeline,
)
val_dataloader = dict(dataset=dict(split='val', **dataset))
test_dataloader = dict(dataset=dict(split=('val', 'testA', 'testB'), **dataset))
val_evaluator = dict(_delete_=True, type='GroundingMetric')
test_evaluator = val_evaluator

# Of 5 epochs: after 2 of warm-up the labels are scored, and once more.
custom_hooks = [
    dict(
        type='PseudoLabelReliabilityHook',
        begin=2,
        interval=2,
        threshold='otsu',
        batch_size=8,
        out_dir='work_dirs/mm_grounding_dino_refcoco_curriculum/reliability',
    )
]
default_hooks = dict(
    run_check=dict(type='RunCheckHook'),
    sampler_seed=dict(type='ExactResumeHook'),
    checkpoint=dict(save_best='grounding/acc_0.5', rule='greater'),
    visualization=dict(type='DetVisualizationHook'),
)
visualizer = dict(type='GroundingVisualizer')
del dataset, sources
