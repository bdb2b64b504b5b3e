"""Configs of small models on small data, as dicts and as files."""

from mmengine.config import Config

# A CLIP of two layers: width 32 seen, 24 read, fused at 16.
ARCH = dict(
    embed_dim=16,
    quick_gelu=True,
    vision_cfg=dict(image_size=32, patch_size=8, width=32, layers=2, head_width=16),
    text_cfg=dict(context_length=12, vocab_size=49408, width=24, heads=2, layers=2),
)
TRAIN = [
    dict(type='LoadGroundingImage'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PILResize', size=32),
    dict(type='Letterbox', size=32),
    dict(type='PackGroundingInputs'),
]
TEST = [TRAIN[0], *TRAIN[2:4], TRAIN[1], TRAIN[4]]
CONFIG = """
_base_ = '{root}/configs/clip_vg_synthetic.py'
arch = dict(
    embed_dim=16,
    quick_gelu=True,
    vision_cfg=dict(image_size=32, patch_size=8, width=32, layers=3, head_width=16),
    text_cfg=dict(context_length=77, vocab_size=49408, width=24, heads=2, layers=1))
model = dict(
    visual_encoder=dict(arch=arch, pretrained=None, image_size=64),
    text_encoder=dict(arch=arch, pretrained=None))
train_dataloader = dict(
    batch_size=8, num_workers=0, persistent_workers=False,
    dataset=dict(data_root='{data}'))
val_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(data_root='{data}'))
test_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(data_root='{data}'))
train_cfg = dict(max_epochs=2, val_interval=1)
param_scheduler = [dict(
    type='OneCycleLR', eta_max=1e-3, total_steps=2, pct_start=0.2,
    convert_to_iter_based=True)]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
"""


def unformatted(text, **_):
    """Stands for yapf's formatting of a config: the text as it is."""
    return text, True


def model_config(**changes):
    """Config of a tiny CLIPVG without weights."""
    cfg = dict(
        type='CLIPVG',
        data_preprocessor=dict(
            type='GroundingDataPreprocessor',
            mean=[123.675, 116.28, 103.53],
            std=[58.395, 57.12, 57.375],
            bgr_to_rgb=True,
        ),
        visual_encoder=dict(type='CLIPVisualEncoder', arch=ARCH, extract_layers=(0, 1)),
        text_encoder=dict(type='CLIPTextEncoder', arch=ARCH),
        fusion=dict(
            type='VisionLanguageFusion',
            num_layers=3,
            num_heads=4,
            feedforward_channels=32,
        ),
        bbox_head=dict(
            type='GroundingBoxHead',
            loss_bbox=dict(type='L1Loss', loss_weight=1.0),
            loss_iou=dict(type='GIoULoss', loss_weight=1.0),
        ),
    )
    for key, value in changes.items():
        cfg[key] = dict(cfg[key], **value)
    return cfg


def pool_config(shapes, folder, names=('one', 'two'), **changes):
    """Config of the training labels of ``sources``."""
    return dict(
        type='RefExpDataset',
        ann_file=[str(folder / f'{name}.jsonl') for name in names],
        source=list(names),
        data_prefix=dict(img=str(shapes / 'images')),
        pipeline=TRAIN,
        **changes,
    )


def runner_config(shapes, folder, work_dir, **changes):
    """Two epochs of a tiny CLIPVG on ``sources``, validated on ``shapes``."""
    loader = dict(num_workers=0, persistent_workers=False)
    cfg = dict(
        default_scope='mmdet',
        model=model_config(),
        work_dir=str(work_dir),
        experiment_name=f'{work_dir}',
        train_dataloader=dict(
            loader,
            batch_size=8,
            sampler=dict(type='CurriculumSampler', grouped=True),
            dataset=pool_config(shapes, folder),
        ),
        val_dataloader=dict(
            loader,
            batch_size=4,
            sampler=dict(type='ImageGroupSampler', shuffle=False),
            dataset=dict(
                type='RefExpDataset',
                data_root=str(shapes),
                ann_file='shapes/instances.json',
                split_file='shapes/refs(synthetic).p',
                split='val',
                data_prefix=dict(img='images'),
                test_mode=True,
                pipeline=TEST,
            ),
        ),
        val_evaluator=dict(type='GroundingMetric'),
        val_cfg=dict(type='ValLoop'),
        train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=1),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1),
            sampler_seed=dict(type='ExactResumeHook'),
            checkpoint=dict(
                type='CheckpointHook', interval=1, save_best='grounding/acc_0.5'
            ),
        ),
        randomness=dict(seed=0),
        log_level='ERROR',
    )
    cfg.update(changes)
    return Config(cfg)
