"""CLIP-VG on gRefCOCO: no target, one or several (docs/generalized_grounding.md)."""

_base_ = './_base_/clip_vg_b16_released.py'

model = dict(num_queries=10, confidence_head=dict(type='GroundingConfidenceHead'))
dataset = dict(
    ann_file='grefcoco/instances.json',
    split_file='grefcoco/grefs(unc).json',
    data_prefix=dict(img='train2014/'),
    targets='any',
)
train_dataloader = dict(dataset=dict(**dataset))
val_dataloader = dict(dataset=dict(**dataset))
test_dataloader = dict(dataset=dict(split=('val', 'testA', 'testB'), **dataset))
val_evaluator = dict(_delete_=True, type='GeneralizedGroundingMetric', score_thr=0.5)
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best='grounding/f1_acc'))
del dataset
