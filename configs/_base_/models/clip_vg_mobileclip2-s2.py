"""CLIP-VG with MobileCLIP 2 S2 at 224, and its own normalisation."""

_base_ = './clip_vg_vit-b16.py'

model = dict(
    # Its images are in [0, 1].
    data_preprocessor=dict(mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0]),
    visual_encoder=dict(
        arch='MobileCLIP2-S2',
        # Stages of stride 16 and 32; its convolutions take images of any size.
        extract_layers=(2, 3),
        pretrained='dfndr2b',
        image_size=224,
        train_pos_embed=False,
    ),
    text_encoder=dict(arch='MobileCLIP2-S2', pretrained='dfndr2b'),
)
