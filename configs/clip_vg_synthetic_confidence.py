"""The embedded default with a score for every answer: docs/confidence.md."""

_base_ = './clip_vg_synthetic.py'

model = dict(confidence_head=dict(type='GroundingConfidenceHead', neg_ratio=0.25))
