"""CLIP-VG with CLIP ViT-B/16 at 224, as the paper's (method, section 1)."""

model = dict(
    type='CLIPVG',
    data_preprocessor=dict(
        type='GroundingDataPreprocessor',
        # ImageNet's, not CLIP's, as in the official code.
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    visual_encoder=dict(
        type='CLIPVisualEncoder',
        arch='ViT-B-16-quickgelu',
        extract_layers=(0, 3, 7, 11),
        pretrained='openai',
        # The paper's figure says frozen; the official code trains it.
        train_pos_embed=True,
    ),
    text_encoder=dict(
        type='CLIPTextEncoder', arch='ViT-B-16-quickgelu', pretrained='openai'
    ),
    fusion=dict(type='VisionLanguageFusion'),
    bbox_head=dict(
        type='GroundingBoxHead',
        loss_bbox=dict(type='L1Loss', loss_weight=1.0),
        loss_iou=dict(type='GIoULoss', loss_weight=1.0),
    ),
)
