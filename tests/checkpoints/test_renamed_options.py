"""Options under the names they had: in checkpoints of before, and in users' configs."""

import copy
import inspect

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS

from projects.clip_vg.apis import GroundingInferencer
from projects.clip_vg.checkpoints import renamed_options
from projects.clip_vg.checkpoints.checkpoint_config import config_of_checkpoint
from projects.clip_vg.checkpoints.renamed_options import (
    RENAMED_OPTIONS,
    rename_options,
)

from ..helpers.configs import model_config
from ..helpers.models import save_tiny

OLD = dict(type='GroundingConfidenceHead', absent=0.5, alone=True)
NEW = dict(type='GroundingConfidenceHead', neg_ratio=0.5, freeze_detector=True)


@pytest.fixture
def warned(monkeypatch):
    lines = []
    monkeypatch.setattr(
        renamed_options, 'print_log', lambda text, **_: lines.append(text)
    )
    return lines


@pytest.mark.parametrize('name', RENAMED_OPTIONS)
def test_the_table_is_of_options_that_a_registered_class_has(name):
    options = inspect.signature(MODELS.get(name).__init__).parameters
    renamed = RENAMED_OPTIONS[name]
    assert set(renamed.values()) <= options.keys()
    assert not renamed.keys() & options.keys()


def test_a_config_of_old_names_builds_the_same_model(warned):
    built = []
    for head in (OLD, NEW):
        torch.manual_seed(0)
        built.append(MODELS.build(dict(model_config(), confidence_head=dict(head))))
    old, new = (model.confidence_head for model in built)
    assert (old.neg_ratio, old.freeze_detector) == (0.5, True)
    assert (new.neg_ratio, new.freeze_detector) == (0.5, True)
    assert str(built[0]) == str(built[1])
    trained = [
        {name for name, p in model.named_parameters() if p.requires_grad}
        for model in built
    ]
    assert trained[0] == trained[1]
    # Only the old names are warned of, with what to write.
    assert len(warned) == 2
    assert 'neg_ratio=0.5' in warned[0] and 'freeze_detector=True' in warned[1]


def test_both_names_at_once_are_refused():
    both = dict(NEW, absent=0.1)
    for build in (MODELS.build, rename_options):
        with pytest.raises(ValueError, match=r'absent=0\.1.*neg_ratio=0\.5'):
            build(dict(both, embed_dims=8))


def test_options_are_renamed_wherever_the_type_stands():
    other = dict(type='Other', absent=1, alone=2)
    config = dict(
        model=dict(confidence_head=dict(OLD)), parts=[dict(deep=(dict(OLD), other))]
    )
    rename_options(config)
    assert config['model']['confidence_head'] == NEW
    assert config['parts'][0]['deep'] == (NEW, other)


def test_a_checkpoint_of_before_predicts_the_same(tmp_path, warned):
    path = save_tiny(tmp_path / 'new.pth', 0)
    checkpoint = torch.load(path, weights_only=True)
    cfg = config_of_checkpoint(path)
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    answers, state = [], None
    for name, head in (('new', NEW), ('old', OLD)):
        cfg.model.confidence_head = dict(head)
        if state is None:
            torch.manual_seed(3)
            state = MODELS.build(copy.deepcopy(cfg.model)).state_dict()
            state.update(checkpoint['state_dict'])
        written = dict(state_dict=state, meta=dict(cfg=cfg.pretty_text))
        torch.save(written, tmp_path / f'{name}.pth')
        infer = GroundingInferencer(tmp_path / f'{name}.pth', device='cpu')
        answers.append(infer(image, ['left man', 'red star'])['predictions'])
        assert infer.cfg.model.confidence_head == NEW
    assert answers[0] == answers[1]
    assert min(answers[0][0]['scores']) < 1  # the head was used
    # Nobody can change what a checkpoint holds.
    assert warned == []
