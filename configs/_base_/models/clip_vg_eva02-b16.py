"""CLIP-VG with EVA02-CLIP B/16 at 224, and its own normalisation."""

_base_ = './clip_vg_vit-b16.py'

model = dict(
    # OpenAI's.
    data_preprocessor=dict(
        mean=[122.771, 116.746, 104.094], std=[68.5005, 66.6322, 70.3232]
    ),
    visual_encoder=dict(arch='EVA02-B-16', pretrained='merged2b_s8b_b131k'),
    text_encoder=dict(arch='EVA02-B-16', pretrained='merged2b_s8b_b131k'),
)
