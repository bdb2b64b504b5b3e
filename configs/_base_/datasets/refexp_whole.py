"""Tests on referring expressions, of images as they are: the model resizes."""

_base_ = 'mmdet::_base_/default_runtime.py'

custom_imports = dict(imports=['projects.clip_vg'], allow_failed_imports=False)

test_pipeline = [
    # As in refexp_224.py: MMDetection's DetInferencer replaces the first.
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='LoadGroundingImage'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackGroundingInputs'),
]
# Images, not expressions, are counted: each is encoded once for all of its.
test_dataloader = dict(
    batch_size=4,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='ImageGroupSampler', shuffle=False),
    dataset=dict(
        type='RefExpDataset',
        data_root='data/coco/',
        split='test',
        test_mode=True,
        # As in the official code: an invalid box is a miss, not left out.
        filter_cfg=dict(invalid_boxes=False),
        pipeline=test_pipeline,
        check_images='error',
    ),
)
test_evaluator = dict(type='GroundingMetric')
test_cfg = dict(type='TestLoop')
default_hooks = dict(run_check=dict(type='RunCheckHook'))
visualizer = dict(type='GroundingVisualizer')
