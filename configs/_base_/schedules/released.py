"""The official schedule (method, section 3), and the runtime of all configs."""

_base_ = 'mmdet::_base_/default_runtime.py'

custom_imports = dict(imports=['projects.clip_vg'], allow_failed_imports=False)

max_epochs = 110
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=2.5e-4, weight_decay=1e-4)
)
# Cosine by epoch to 0, no warm-up.
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=max_epochs, end=max_epochs, eta_min=0)
]
randomness = dict(seed=13)

default_hooks = dict(
    run_check=dict(type='RunCheckHook'),
    sampler_seed=dict(type='ExactResumeHook'),
    checkpoint=dict(
        save_best='grounding/acc_0.5',
        rule='greater',
        max_keep_ckpts=2,
        backend_args=dict(backend='AtomicLocalBackend'),
    ),
    visualization=dict(interval=100),
)
# One file for each sample, also where images share a name.
visualizer = dict(type='GroundingVisualizer')
log_processor = dict(window_size=50)
del max_epochs
