"""Zero-shot grounding on the built-in toy data set: a grid, the tiny CLIP.

python tools/test.py configs/zero_shot_synthetic.py
"""

_base_ = ['./_base_/models/zero_shot_vit-b16.py', './_base_/datasets/refexp_whole.py']

model = dict(
    clip=dict(
        arch=dict(
            _delete_=True,
            embed_dim=64,
            quick_gelu=True,
            vision_cfg=dict(
                image_size=64,
                patch_size=8,
                width=64,
                layers=3,
                head_width=16,
                pos_embed_type='sin_cos_2d',
                pool_type='avg',
            ),
            text_cfg=dict(
                context_length=77, vocab_size=49408, width=64, heads=2, layers=1
            ),
        ),
        pretrained='projects/clip_vg/assets/tiny_clip.safetensors',
        # What it was pretrained with; see CropTextCLIP.
        template='{}',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
    ),
    proposals=dict(
        _delete_=True,
        type='GridProposals',
        sizes=(0.2, 0.35),
        ratios=(1.0,),
        stride=0.25,
    ),
    # Its patches agree with texts; all boxes of the grid are looked at.
    signals=dict(crop=0.5, blur=0.0, heat=1.0, category=2.0, score=0.5),
    # Tried on images of another seed than the benchmark's.
    geometry=dict(margin=5.0),
    max_proposals=1000,
)
test_dataloader = dict(
    dataset=dict(
        data_root='data/synthetic/',
        ann_file='shapes/instances.json',
        split_file='shapes/refs(synthetic).p',
        data_prefix=dict(img='images/'),
    )
)
