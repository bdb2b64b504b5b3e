"""CLIP-VG with DINOv2 ViT-B/14 as the visual tower, and the text tower of CLIP."""

_base_ = './clip_vg_vit-b16.py'

model = dict(
    visual_encoder=dict(
        # A model of timm; 'vit_base_patch16_dinov3' (and its tag 'lvd1689m', and
        # train_pos_embed=False) for DINOv3. ImageNet's normalisation is its own.
        arch=dict(
            _delete_=True,
            embed_dim=768,
            vision_cfg=dict(
                timm_model_name='vit_base_patch14_dinov2',
                timm_pool='token',
                timm_proj='none',
                image_size=224,
            ),
            text_cfg=dict(),
        ),
        pretrained='lvd142m',
    ),
)
