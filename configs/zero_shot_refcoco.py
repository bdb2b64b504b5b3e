"""Zero-shot grounding on RefCOCO: RTMDet's boxes, CLIP ViT-B/16, nothing trained.

python tools/test.py configs/zero_shot_refcoco.py
"""

_base_ = ['./_base_/models/zero_shot_vit-b16.py', './_base_/datasets/refexp_whole.py']

test_dataloader = dict(
    dataset=dict(
        ann_file='refcoco/instances.json',
        split_file='refcoco/refs(unc).p',
        split=('val', 'testA', 'testB'),
        data_prefix=dict(img='train2014/'),
    )
)
