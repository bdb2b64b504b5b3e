"""The same for expressions of no target, one or several: boxes have scores."""

_base_ = './clip_vg_own_labels.py'

# As many boxes as an expression may have, each with its expected IoU as the score.
model = dict(num_queries=5, confidence_head=dict(type='GroundingConfidenceHead'))
dataset = dict(targets='any')
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = dict(dataset=dataset)
# From 0.5 on, a box is rather right than wrong.
val_evaluator = dict(_delete_=True, type='GeneralizedGroundingMetric', score_thr=0.5)
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best='grounding/f1_acc'))
del dataset
