"""The detector of the benchmark of any number of targets, on the tiny frozen CLIP."""

_base_ = '../../configs/clip_vg_synthetic.py'

image_size = 64
model = dict(
    visual_encoder=dict(image_size=image_size),
    # The queries agree on who takes what in the layer before the last.
    fusion=dict(num_layers=3, num_heads=4, feedforward_channels=128),
    confidence_head=dict(type='GroundingConfidenceHead'),
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
