"""Our configs and MMDetection's Grounding DINO, small enough for a test."""

import json
import re
from pathlib import Path

import open_clip
import pytest
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.hub import get_config

from . import ROOT
from .configs import ARCH, model_config

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def shrunk(name, shapes, bert):
    """The config of a name on shapes; its model as it is, but small.

    Args:
        name (str): A file in configs/.
        shapes (Path): The data set.
        bert (Callable): Gives the folder of a tiny BERT, where one is needed.
    """
    cfg = Config.fromfile(ROOT / 'configs' / name)
    for key in cfg.keys() & set(LOADERS):
        dataset = cfg[key].dataset
        dataset.update(
            data_root=str(shapes),
            ann_file='shapes/instances.json',
            data_prefix=dict(img='images'),
        )
        if dataset.type == 'RefExpDataset':
            dataset.update(split_file='shapes/refs(synthetic).p', source=None)
            dataset.update(image_folds=None, held_out=())
            dataset.split = 'train' if key == LOADERS[0] else 'val'
    shrink = dict(
        CLIPVG=clip_vg,
        GroundingDINO=grounding_dino,
        YOLOF=yolof,
        ZeroShotGrounding=zero_shot,
    )
    shrink[cfg.model.type](cfg, shapes, bert)
    return cfg


def clip_vg(cfg, shapes, bert):
    for encoder in ('visual_encoder', 'text_encoder'):
        cfg.model[encoder].pretrained = None
        cfg.model[encoder].arch = ARCH
    steps = cfg.test_dataloader.dataset.pipeline
    size = next(step.size for step in steps if step.type == 'Letterbox')
    # At most as many patches as ViT-B/16 has at 224: attention is of all pairs.
    vision = dict(ARCH['vision_cfg'], patch_size=max(8, size // 14))
    cfg.model.visual_encoder.update(
        arch=dict(ARCH, vision_cfg=vision), extract_layers=(0, 1), image_size=size
    )


def zero_shot(cfg, shapes, bert):
    cfg.model.clip.update(arch=ARCH, pretrained=None)
    if cfg.model.proposals.type == 'DetectorProposals':
        cfg.model.proposals.update(detector=rtmdet(), checkpoint=None, min_score=0.0)
    cfg.model.max_proposals = 8


def rtmdet(size=64):
    """MMDetection's RTMDet, small, without weights."""
    cfg = get_config('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py')
    model = cfg.model
    model.backbone.update(widen_factor=0.0625, init_cfg=None)
    model.neck.update(in_channels=[16, 32, 64], out_channels=16, num_csp_blocks=1)
    model.bbox_head.update(in_channels=16, feat_channels=16)
    model.test_cfg.score_thr = 0.0
    for step in cfg.test_dataloader.dataset.pipeline:
        for key in step.keys() & {'scale', 'size'}:
            step[key] = (size, size)
    return cfg


def grounding_dino(cfg, shapes, bert):
    folder = bert()
    shrink_model(cfg.model, folder)
    for key in LOADERS:
        shrink_pipeline(cfg[key].dataset.pipeline, folder)


def yolof(cfg, shapes, bert):
    """Its classes are the shapes."""
    path = shapes / 'shapes/instances.json'
    classes = [entry['name'] for entry in json.loads(path.read_text())['categories']]
    model = cfg.model
    model.backbone.update(
        arch=ARCH, pretrained=None, image_size=64, extract_layers=(1,)
    )
    model.data_preprocessor.pad_size_divisor = 64
    model.neck.update(in_channels=32, out_channels=16, block_mid_channels=8)
    model.bbox_head.update(num_classes=len(classes), in_channels=16)
    model.bbox_head.anchor_generator.strides = [8]
    model.test_cfg.score_thr = 0.0  # the predictions of a beginner count
    for key in LOADERS:
        cfg[key].dataset.metainfo = dict(classes=classes)
        shrink_pipeline(cfg[key].dataset.pipeline, None)
    cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = str(path)


def shrink_model(model, bert):
    """Make MMDetection's own config small, in place."""
    model.language_model.name = bert
    model.backbone.update(
        embed_dims=24, depths=[1, 1, 1, 1], init_cfg=None, convert_weights=False
    )
    model.neck.in_channels = [48, 96, 192]
    model.encoder.num_layers = 1
    model.decoder.num_layers = 1
    model.num_queries = 20
    model.test_cfg.max_per_img = 5
    return model


def shrink_pipeline(steps, bert, size=64):
    """Make images small, and read words with ``bert``, in place."""
    for step in steps:
        for branch in step.get('transforms', ()):
            shrink_pipeline(branch, bert, size)
        for key, value in dict(
            scale=(size, size),
            scales=[(size, size)],
            crop_size=(size // 2, size),
            tokenizer_name=bert,
        ).items():
            if key in step:
                step[key] = value


# Of each module of timm: what makes its models small, beside their own arguments.
_SMALL_TIMM = {
    'vision_transformer': dict(embed_dim=32, depth=3, num_heads=2),
    'vision_transformer_relpos': dict(embed_dim=32, depth=3, num_heads=2),
    'eva': dict(embed_dim=32, depth=3, num_heads=2),
    'convnext': dict(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32)),
    'swin_transformer': dict(depths=(1, 1, 1, 1), embed_dim=8, num_heads=(1, 1, 1, 1)),
    'vision_transformer_hybrid': dict(depth=2),  # its stem has a width of its own
    'vitamin': dict(embed_dim=32, depth=3, num_heads=2),
}


def shrink_timm(monkeypatch):
    """Let open_clip build models of timm small, by arguments that timm takes."""
    import timm

    create_model = timm.create_model

    def create_small(name, **kwargs):
        kind = timm.models.model_entrypoint(name).__module__.rsplit('.', 1)[-1]
        small = dict(_SMALL_TIMM.get(kind, {}))
        if kind == 'vitamin':
            stem = timm.models.vitamin.VitCfg((8, 16, 32), (1, 1, 1), 8, head_type='1d')
            stem.conv_cfg.norm_layer = 'layernorm2d'
            small.update(embed_cfg=stem)
        if kind == 'fastvit':
            stages = 5 if name in ('fastvit_mci3', 'fastvit_mci4') else 4
            widths = (32, 64, 128, 256, 512)[:stages]
            small = dict(layers=(1,) * stages, embed_dims=widths)
        return create_model(name, **dict(kwargs, **small))

    monkeypatch.setattr(timm, 'create_model', create_small)


def small_arch(name, folders):
    """A named architecture of open_clip, as narrow and shallow as it can be.

    Args:
        name (str): Of open_clip.
        folders (Callable): Gives the folder of a tiny text tower of Hugging Face with
            its tokenizer, for the name of one on the hub.
    """
    arch = open_clip.get_model_config(name)
    vision, text = arch['vision_cfg'], arch['text_cfg']
    arch['embed_dim'] = 16
    timm_name = vision.get('timm_model_name', '')
    if timm_name.startswith('swin'):
        pass  # its windows are made for its own size
    elif timm_name:
        patch = re.search(r'patch(\d+)', timm_name)
        vision['image_size'] = 4 * int(patch[1] if patch else 16)
    elif isinstance(vision['layers'], list):
        vision.update(layers=[1, 1, 1, 1], width=8, image_size=64)
    else:
        vision.update(width=32, layers=3, head_width=16, mlp_ratio=2.0)
        vision.update(patch_size=8, image_size=32, attn_pooler_heads=2)
    if 'hf_model_name' in text:
        folder = folders(text['hf_model_name'])
        text.update(hf_model_name=folder, hf_tokenizer_name=folder)
    else:
        text.update(width=32, heads=2, layers=2, mlp_ratio=2.0)
        if 'hf_tokenizer_name' in text:
            text.update(hf_tokenizer_name=folders(''), vocab_size=64)
    return arch


def small_detector(arch, **visual):
    """A CLIPVG of an architecture, with random weights."""
    cfg = model_config(fusion=dict(num_layers=2, num_heads=2, embed_dims=16))
    cfg['visual_encoder'] = dict(type='CLIPVisualEncoder', arch=arch, **visual)
    cfg['text_encoder'] = dict(type='CLIPTextEncoder', arch=arch)
    return MODELS.build(cfg)


def tiny_hugging_face(folder: Path, name: str) -> str:
    """A folder with a tiny text tower of the kind of a name on the hub.

    Args:
        folder (Path): Made.
        name (str): Such as 'roberta-base'; '' for a tokenizer alone.
    """
    transformers = pytest.importorskip('transformers')
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    letters = [*'abcdefghijklmnopqrstuvwxyz']
    words = ['<pad>', '</s>', '<unk>', *letters]
    tokenizer = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(words)}, '<unk>')
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split('', 'isolated')
    tokenizer.post_processor = processors.TemplateProcessing(
        single='$A </s>', special_tokens=[('</s>', 1)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **dict(pad_token='<pad>', eos_token='</s>', sep_token='</s>'),
    ).save_pretrained(folder)
    common = dict(vocab_size=64, pad_token_id=0, num_hidden_layers=2)
    bert = dict(common, hidden_size=32, num_attention_heads=2, intermediate_size=32)
    if 'xlm' in name:
        config = transformers.XLMRobertaConfig(**bert, max_position_embeddings=90)
    elif 'roberta' in name:
        config = transformers.RobertaConfig(**bert, max_position_embeddings=90)
    elif 'mt5' in name:
        config = transformers.MT5Config(
            vocab_size=64, d_model=32, d_kv=16, d_ff=32, num_layers=2, num_heads=2
        )
    elif 'nllb' in name:
        config = transformers.M2M100Config(
            **dict(vocab_size=64, pad_token_id=0, d_model=32, encoder_layers=2),
            **dict(decoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=32),
            **dict(decoder_attention_heads=2, decoder_ffn_dim=32),
        )
    else:
        return str(folder)
    config.save_pretrained(folder)
    return str(folder)
