"""The detector of the curriculum benchmark: the tiny frozen CLIP, a small fusion.

Chosen so that a training ends in about a minute on one core and noise hurts it.
"""

_base_ = '../../configs/clip_vg_synthetic.py'

image_size = 48
model = dict(
    visual_encoder=dict(image_size=image_size),
    fusion=dict(num_layers=2, num_heads=2, feedforward_channels=128),
)
test_pipeline = [
    dict(type='LoadGroundingImage'),
    dict(type='PILResize', size=image_size),
    dict(type='Letterbox', size=image_size),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackGroundingInputs'),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
optim_wrapper = dict(
    optimizer=dict(lr=1e-3, betas=(0.9, 0.95), fused=True), clip_grad=dict(max_norm=1.0)
)
