"""The built-in toy data set with expressions of no object, of one and of several.

Make the data with ``python tools/make_synthetic.py --targets any``; see
docs/generalized_grounding.md.
"""

_base_ = './clip_vg_synthetic.py'

model = dict(num_queries=5, confidence_head=dict(type='GroundingConfidenceHead'))
dataset = dict(split_file='shapes/grefs(synthetic).json', targets='any')
train_dataloader = dict(dataset=dict(**dataset))
val_dataloader = dict(dataset=dict(**dataset))
test_dataloader = dict(dataset=dict(**dataset))
# Scores are expected IoUs: from 0.5 on, a box is rather right than wrong.
val_evaluator = dict(_delete_=True, type='GeneralizedGroundingMetric', score_thr=0.5)
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best='grounding/f1_acc'))
del dataset
