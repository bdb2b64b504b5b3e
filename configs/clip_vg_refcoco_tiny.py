"""A tiny CLIP-VG from scratch on RefCOCO: sanity-check your data.

It overfits the training expressions of a few images (``max_images``) in minutes on a
CPU, and is of no other use: look at the accuracy on these.
"""

_base_ = './clip_vg_synthetic.py'

model = dict(
    visual_encoder=dict(pretrained=None, frozen=False),
    text_encoder=dict(pretrained=None, frozen=False),
)

dataset = dict(
    data_root='data/coco/',
    ann_file='refcoco/instances.json',
    split_file='refcoco/refs(unc).p',
    data_prefix=dict(img='train2014/'),
    max_images=32,
)
train_dataloader = dict(dataset=dict(**dataset))
val_dataloader = dict(dataset=dict(split='train', **dataset))
test_dataloader = dict(dataset=dict(split='train', **dataset))

max_epochs = 300
train_cfg = dict(max_epochs=max_epochs, val_interval=100)
param_scheduler = [
    dict(
        type='OneCycleLR',
        eta_max=1e-3,
        total_steps=max_epochs,
        pct_start=0.1,
        convert_to_iter_based=True,
    )
]
default_hooks = dict(
    checkpoint=dict(interval=100),
    logger=dict(interval=2),
    run_check=dict(on_leak='ignore'),  # it is tested on what it has learnt
)
del dataset, max_epochs
