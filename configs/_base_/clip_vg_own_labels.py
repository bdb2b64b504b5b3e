"""Fine-tuning on the labels of one file, a fifth of its images being held out.

For some dozens to some thousands of labels; docs/own_labels.md has the page.
"""

_base_ = './clip_vg_b16_released.py'

# CLIP is frozen, also its positions: the fusion and the box head are trained.
model = dict(visual_encoder=dict(train_pos_embed=False))

train_dataloader = dict(
    batch_size=16,
    num_workers=2,
    drop_last=False,  # of few labels, all count
    dataset=dict(split=None, image_folds=dict(number=5, keep=[0, 1, 2, 3])),
)
held_out = dict(split=None, image_folds=dict(number=5, keep=[4]))
val_dataloader = dict(num_workers=2, dataset=held_out)
test_dataloader = dict(num_workers=2, dataset=held_out)

max_epochs = 20
train_cfg = dict(max_epochs=max_epochs, val_interval=5)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=max_epochs, end=max_epochs, eta_min=0)
]
default_hooks = dict(checkpoint=dict(interval=5), logger=dict(interval=10))
del held_out, max_epochs
