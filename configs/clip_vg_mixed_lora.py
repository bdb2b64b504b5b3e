"""CLIP-VG on five data sets at once, with LoRA in both towers of CLIP."""

_base_ = './clip_vg_mixed.py'

lora = dict(kind='lora', rank=16, dropout=0.1)
model = dict(
    visual_encoder=dict(adapter=lora, train_pos_embed=False),
    text_encoder=dict(adapter=lora),
)
# CLIP's own weights are not trained, and not in the checkpoints.
default_hooks = dict(slim=dict(type='SlimCheckpointHook'))
del lora
