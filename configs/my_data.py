"""CLIP-VG on your own labels: a template, explained in docs/own_labels.md."""

_base_ = './_base_/clip_vg_own_labels.py'

dataset = dict(
    data_root='data/mine/',  # or tools/train.py --data-root
    ann_file='labels.csv',  # any file of docs/data.md
    data_prefix=dict(img='images/'),
)
train_dataloader = val_dataloader = test_dataloader = dict(dataset=dataset)
load_from = None  # a checkpoint of CLIP-VG to go on from
del dataset
