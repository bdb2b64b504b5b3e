"""MMDetection's YOLOF on a frozen CLIP: our visual tower as any detector's backbone.

YOLOF reads one map of one stride, which is what a plain ViT gives.
"""

_base_ = 'mmdet::yolof/yolof_r50-c5_8xb8-1x_coco.py'

custom_imports = dict(imports=['projects.clip_vg'], allow_failed_imports=False)

image_size = 512
model = dict(
    data_preprocessor=dict(
        # CLIP's own.
        mean=[122.771, 116.746, 104.094],
        std=[68.501, 66.632, 70.323],
        bgr_to_rgb=True,
        # Always a square: the position embeddings are of one size.
        pad_size_divisor=image_size,
    ),
    backbone=dict(
        _delete_=True,
        type='CLIPVisualEncoder',
        arch='ViT-B-16-quickgelu',
        pretrained='openai',
        image_size=image_size,
        extract_layers=(11,),
        out_maps=True,
    ),
    neck=dict(in_channels=768),
    # Anchors as large as YOLOF's, at half of its stride.
    bbox_head=dict(anchor_generator=dict(scales=[2, 4, 8, 16, 32], strides=[16])),
)

scale = (image_size, image_size)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomShift', prob=0.5, max_shift_px=32),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
default_hooks = dict(run_check=dict(type='RunCheckHook'))
del image_size, scale
