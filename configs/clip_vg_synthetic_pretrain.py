"""Pretrain the tiny CLIP of the embedded default by grounding other pictures.

``tools/make_synthetic.py --out data/synthetic_pretrain --seed 1000 --train 24000``,
``tools/train.py`` this, and ``tools/model_converters/export_clip_towers.py``.
"""

_base_ = './clip_vg_synthetic.py'

model = dict(
    visual_encoder=dict(pretrained=None, frozen=False),
    text_encoder=dict(pretrained=None, frozen=False),
)
data_root = 'data/synthetic_pretrain/'
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
