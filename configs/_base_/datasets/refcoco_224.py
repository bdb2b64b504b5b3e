"""RefCOCO (UNC split) through the pipelines of ``refexp_224.py``."""

_base_ = './refexp_224.py'

dataset = dict(
    ann_file='refcoco/instances.json',
    split_file='refcoco/refs(unc).p',
    data_prefix=dict(img='train2014/'),
    int_boxes=True,
)
train_dataloader = dict(dataset=dict(**dataset))
val_dataloader = dict(dataset=dict(**dataset))
test_dataloader = dict(dataset=dict(split=('val', 'testA', 'testB'), **dataset))
del dataset
