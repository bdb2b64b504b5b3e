"""RefCOCO, RefCOCO+, RefCOCOg, ReferIt and Flickr30k as one data set.

Each is a source, with a metric of its own: ``grounding/refcoco/testA/acc_0.5``.
"""

_base_ = './refexp_224.py'

test_splits = {
    'refcoco': ('val', 'testA', 'testB'),
    'refcoco+': ('val', 'testA', 'testB'),
    'refcocog': ('val', 'test'),
    'referit': ('val', 'test'),
    'flickr30k': ('val', 'test'),
}
dataset = dict(
    data_root='data/',
    source=list(test_splits),
    ann_file=[
        'coco/refcoco/instances.json',
        'coco/refcoco+/instances.json',
        'coco/refcocog/instances.json',
        'referit/referit_{split}.pth',
        'flickr30k/flickr_{split}.pth',
    ],
    split_file=[
        'coco/refcoco/refs(unc).p',
        'coco/refcoco+/refs(unc).p',
        'coco/refcocog/refs(umd).p',
        None,
        None,
    ],
    # ReferIt's and Flickr30k's images are numbered: one name may be two images.
    data_prefix=dict(
        img={
            'refcoco': 'coco/train2014',
            'refcoco+': 'coco/train2014',
            'refcocog': 'coco/train2014',
            'referit': 'referit/images',
            'flickr30k': 'flickr30k/flickr30k-images',
        }
    ),
    int_boxes=True,
)
train_dataloader = dict(
    # RefCOCOg trains on images that RefCOCO tests on, and the other way round.
    dataset=dict(held_out=dict(split=test_splits), on_leak='drop', **dataset)
)
val_dataloader = dict(dataset=dict(**dataset))
test_dataloader = dict(
    dataset=dict(split=dict(_delete_=True, **test_splits), **dataset)
)
del dataset, test_splits
