"""Adapters in towers of all families: each trained weight counts, and LoRA merges."""

import copy

import pytest
import torch
from torch import nn

from projects.clip_vg.models import CLIPTextEncoder, CLIPVisualEncoder
from projects.clip_vg.models.adapters import merge_adapters

from ..helpers.shrink import shrink_timm, small_arch, tiny_hugging_face

# Towers that are built in ways of their own.
VISUAL = [
    *('coca_ViT-B-32', 'ViT-SO400M-14-SigLIP', 'EVA01-g-14', 'EVA02-B-16'),
    *('PE-Core-B-16', 'MobileCLIP2-S3', 'convnext_large_d', 'ViTamin-L-336'),
    *('swin_base_patch4_window7_224', 'vit_relpos_medium_patch16_cls_224'),
]
TEXT = [
    *('coca_ViT-B-32', 'MobileCLIP2-S0', 'ViT-L-14-CLIPA', 'coca_roberta-ViT-B-32'),
    *('mt5-base-ViT-B-32', 'nllb-clip-base'),
]
TOWERS = [(CLIPVisualEncoder, n) for n in VISUAL] + [(CLIPTextEncoder, n) for n in TEXT]


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Folders of tiny text towers of Hugging Face, by their names on the hub."""
    made = {}

    def folder(name):
        if name not in made:
            made[name] = tiny_hugging_face(tmp_path_factory.mktemp('hf'), name)
        return made[name]

    return folder


@pytest.mark.parametrize('tower, name', TOWERS, ids=[n for _, n in TOWERS])
def test_what_is_trained_counts_and_merges(tower, name, folders, monkeypatch):
    shrink_timm(monkeypatch)
    arch = small_arch(name, folders)
    kinds = (
        ('lora', 'last_blocks') if 'mt5' in name else ('lora', 'bias', 'last_blocks')
    )
    for kind in kinds:  # mT5 has no biases
        torch.manual_seed(0)
        net = tower(arch, adapter=dict(kind=kind)).train()
        for path, parameter in net.named_parameters():
            if path.endswith('lora_b') or parameter.std() == 0:
                nn.init.normal_(parameter, std=0.1)
        if tower is CLIPVisualEncoder:
            given = torch.randn(2, 3, *net.image_size)
        else:
            given = net.tokenize(['left man', 'the dog behind the red car'])
        net(given).square().sum().backward()
        trained = {n: p for n, p in net.named_parameters() if p.requires_grad}
        idle = [n for n, p in trained.items() if p.grad is None]
        assert trained
        assert idle == []
        if kind == 'lora':
            assert all(p.grad.abs().max() > 0 for p in trained.values())
            merged = copy.deepcopy(net.eval())
            merge_adapters(merged)
            assert not [n for n in merged.state_dict() if 'lora' in n]
            with torch.no_grad():
                before, after = net(given), merged(given)
            torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
