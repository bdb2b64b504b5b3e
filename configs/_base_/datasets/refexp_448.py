"""``refexp_224.py`` with images of 448 pixels."""

_base_ = './refexp_224.py'

train_pipeline = _base_.train_pipeline
plain, cropped = train_pipeline[2].transforms
plain[-1].size = cropped[-1].size = [448 - 32 * step for step in range(7)]
train_pipeline[4].size = 448
test_pipeline = _base_.test_pipeline
test_pipeline[2].size = test_pipeline[3].size = 448
tta_pipeline = _base_.tta_pipeline
views = tta_pipeline[2].transforms
views[0][0].size, views[0][1].size, views[2][0].size = 448, 416, 448

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
del plain, cropped, views
