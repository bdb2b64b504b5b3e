"""What a checkpoint holds beside its weights: plain values are read, nothing is run."""

import copy

import pytest
import torch
from mmengine.config import Config

from projects.clip_vg.apis import GroundingInferencer
from projects.clip_vg.checkpoints.checkpoint_config import (
    config_of_checkpoint,
    parse_config_text,
)
from projects.clip_vg_core.utils.config_types import (
    MODEL_PARTS,
    TRANSFORMS,
    check_config,
)

from ..helpers import ROOT
from ..helpers.models import save_tiny

CONFIGS = sorted((ROOT / 'configs').glob('clip_vg_*.py'))


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_what_mmengine_writes_comes_back(path):
    cfg = Config.fromfile(path)
    read = parse_config_text(cfg.pretty_text, 'it').to_dict()
    assert read == cfg.to_dict()
    for part, allowed in (
        (read['model'], MODEL_PARTS),
        (read['test_dataloader']['dataset']['pipeline'], TRANSFORMS),
        (read['train_dataloader']['dataset']['pipeline'], TRANSFORMS),
    ):
        check_config(part, allowed, 'it', '')


@pytest.mark.parametrize(
    'text',
    [
        'import os',
        'a = __import__("os").system("true")',
        'a = open("x")',
        'a = [x for x in (1, 2)]',
        'a = b',
        'a = dict(**{"b": 1})',
        'a = f"{1}"',
        'a.b = 1',
        'def f(): pass',
        'a = 1 +',
        'a: int = 1',
        'a = ' + '[' * 50_000,
        'a = ' + '-' * 50_000 + '1',
        'a = ' + '[' * 80 + ']' * 80 + '\0',
        'a = {[]: 1}',
        'a = ' + '9' * 5000,
        'filename = 1',
    ],
)
def test_anything_but_plain_values_is_refused(text):
    with pytest.raises(ValueError, match='it: its config'):
        parse_config_text(text, 'it')


@pytest.mark.parametrize(
    ('text', 'found'),
    [
        ('a = 1\nb = dict(c=[1, open("x")])', "open('x')"),
        ('a = 1\nb = dict(\n  c=other)', 'b = '),
        ('a = 1\nb.c = 2', 'b.c = 2'),
        ('a = {**{}}', 'a = '),
    ],
)
def test_what_is_refused_is_named(text, found):
    with pytest.raises(ValueError) as caught:
        parse_config_text(text, 'odd.pth')
    assert 'odd.pth' in str(caught.value) and found in str(caught.value)


def test_nested_values_of_every_kind_are_read():
    text = 'a = dict(b=[dict(c=(1, 2)), {"d": -1.5}], e=None, f={1, 2}, g=True)'
    assert parse_config_text(text, 'it').to_dict() == dict(
        a=dict(b=[dict(c=(1, 2)), dict(d=-1.5)], e=None, f={1, 2}, g=True)
    )


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    path = save_tiny(tmp_path_factory.mktemp('checkpoint') / 'tiny.pth', 0)
    return torch.load(path, weights_only=True)


@pytest.fixture
def changed(tiny, tmp_path):
    """Writes the tiny checkpoint with a change, and names the file."""

    def changed(change):
        checkpoint = copy.deepcopy(tiny)
        checkpoint = change(checkpoint) or checkpoint
        torch.save(checkpoint, tmp_path / 'odd.pth')
        return tmp_path / 'odd.pth'

    return changed


def with_config(change):
    """A change of the config in a checkpoint."""

    def changed(checkpoint):
        cfg = parse_config_text(checkpoint['meta']['cfg'], 'it')
        change(cfg)
        checkpoint['meta']['cfg'] = cfg.pretty_text

    return changed


def test_the_unchanged_one_is_read(changed):
    cfg = config_of_checkpoint(changed(lambda checkpoint: None))
    assert cfg.model.type == 'CLIPVG'


@pytest.mark.parametrize(
    ('change', 'found'),
    [
        # A registered class that runs a Python file, in the place of each part.
        (
            lambda cfg: cfg.update(
                model=dict(
                    type='KnowledgeDistillationSingleStageDetector',
                    teacher_config='c/teacher.py',
                )
            ),
            'KnowledgeDistillationSingleStageDetector',
        ),
        (lambda cfg: cfg.model.bbox_head.loss_bbox.update(type='L2Loss'), 'L2Loss'),
        (lambda cfg: cfg.model.update(type='subprocess.Popen'), 'subprocess.Popen'),
        (lambda cfg: cfg.model.update(type=['CLIPVG']), 'CLIPVG'),
        (lambda cfg: cfg.model.update(type=None), 'None'),
        (lambda cfg: cfg.update(model=dict(type='L1Loss')), "'L1Loss'"),
        (lambda cfg: cfg.model.fusion.update(_scope_='os'), '_scope_'),
        (
            lambda cfg: cfg.model.bbox_head.loss_bbox.update(
                init_cfg=dict(type='Pretrained', checkpoint='x.pth')
            ),
            'init_cfg',
        ),
        (
            lambda cfg: cfg.test_dataloader.dataset.pipeline.append(
                dict(type='LoadPanopticAnnotations')
            ),
            'LoadPanopticAnnotations',
        ),
        (
            lambda cfg: cfg.test_dataloader.dataset.pipeline[0].update(
                backend_args=dict(backend='http')
            ),
            'backend_args',
        ),
        (lambda cfg: cfg.model.visual_encoder.update(arch='../x'), '../x'),
        (lambda cfg: cfg.model.visual_encoder.update(arch='C:x'), 'C:x'),
        (lambda cfg: cfg.model.fusion.update(num_layers=10**9), 'num_layers'),
        (
            lambda cfg: cfg.model.text_encoder.arch.text_cfg.update(layers=10**9),
            'layers',
        ),
        (lambda cfg: cfg.model.pop('fusion'), 'fusion'),
        (lambda cfg: cfg.pop('model'), 'model'),
        (lambda cfg: cfg.update(model=3), 'model'),
        (lambda cfg: cfg.pop('test_dataloader'), 'test_dataloader'),
        (lambda cfg: cfg.test_dataloader.update(dataset=[]), 'dataset'),
        (lambda cfg: cfg.model.fusion.update(num_layers='many'), 'TypeError'),
    ],
)
def test_other_parts_and_paths_are_refused(changed, change, found):
    path = changed(with_config(change))
    with pytest.raises(ValueError, match=r'odd\.pth') as caught:
        GroundingInferencer(path, device='cpu')
    assert found in str(caught.value)


def test_what_a_training_began_with_is_not_looked_for(changed):
    """Of a whole checkpoint, which has it: a path there may lead nowhere."""

    def began(cfg):
        cfg.model.visual_encoder.pretrained = '/nowhere/clip.pt'
        cfg.model.fusion.init_cfg = dict(type='Pretrained', checkpoint='/nowhere/x.pth')

    GroundingInferencer(changed(with_config(began)), device='cpu')


@pytest.mark.parametrize(
    'change',
    [
        lambda cfg: cfg.model.fusion.update(feedforward_channels=10**11),
        lambda cfg: cfg.model.fusion.update(embed_dims=10**9),
        lambda cfg: cfg.model.visual_encoder.arch.vision_cfg.update(width=16 * 10**7),
        lambda cfg: cfg.model.text_encoder.arch.text_cfg.update(vocab_size=10**12),
    ],
)
def test_a_huge_model_takes_no_memory_before_it_is_refused(changed, change):
    """400 GB and more, which no machine of a test has."""
    with pytest.raises(ValueError, match=r'odd\.pth.*not of this model'):
        GroundingInferencer(changed(with_config(change)), device='cpu')


def test_weights_of_a_slim_checkpoint_are_not_taken_from_a_path(changed):
    def slim(checkpoint):
        with_config(
            lambda cfg: cfg.model.visual_encoder.update(pretrained='/etc/passwd')
        )(checkpoint)
        checkpoint['state_dict']['frozen_weights_sha256'] = torch.zeros(32).byte()

    with pytest.raises(ValueError, match=r"pretrained='/etc/passwd', a path"):
        GroundingInferencer(changed(slim), device='cpu')


NAME = 'bbox_head.mlp.layers.0.weight'


def weight(change):
    """A change of one weight of a checkpoint."""

    def changed(checkpoint):
        state = checkpoint['state_dict']
        state[NAME] = change(state[NAME])

    return changed


@pytest.mark.parametrize(
    ('change', 'found'),
    [
        (weight(lambda w: w.int()), NAME),
        (weight(lambda w: w * float('nan')), NAME),
        (weight(lambda w: w / 0), NAME),
        (weight(lambda w: w > 0), NAME),
        (weight(lambda w: 3), NAME),
        (weight(lambda w: w[:1]), NAME),
        (lambda c: c.update(state_dict=[1]), 'state_dict'),
        (lambda c: c.update(state_dict={}), 'state_dict'),
        (lambda c: c.update(meta=[1]), 'meta'),
        (lambda c: c['meta'].update(cfg=3) or c, 'config'),
        (lambda c: c.update(meta={}), 'config'),
        (lambda c: dict(meta=c['meta']), 'official_clip_vg.py'),
        (lambda c: [c], 'list'),
        (lambda c: dict(model=c['state_dict']), "'model' holds"),
        (lambda c: dict(ema_state_dict=c['state_dict']), "'ema_state_dict' holds"),
        (
            lambda c: dict(model={'image_encoder_clip_vg.proj': 1}),
            'official_clip_vg.py',
        ),
    ],
)
def test_malformed_parts_are_one_sentence(changed, change, found):
    path = changed(change)
    with pytest.raises(ValueError, match=r'odd\.pth') as caught:
        GroundingInferencer(path, device='cpu')
    assert found in str(caught.value)
    assert '\n' not in str(caught.value)


def test_complex_weights_are_refused(changed):
    """The loader of checkpoints does not know their storage."""
    with pytest.raises(ValueError, match=r'odd\.pth'):
        GroundingInferencer(changed(weight(lambda w: w * 1j)), device='cpu')
