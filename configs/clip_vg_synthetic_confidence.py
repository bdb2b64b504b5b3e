"""The built-in toy data set, with confidence scores: docs/confidence.md."""

_base_ = './clip_vg_synthetic.py'

model = dict(confidence_head=dict(type='GroundingConfidenceHead', neg_ratio=0.25))
