"""The config inside a checkpoint: plain values are read, nothing is run."""

import pytest
import torch
from mmengine.config import Config

from projects.clip_vg.apis.checkpoint_config import (
    config_of_checkpoint,
    parse_config_text,
)

from ..conftest import ROOT

CONFIGS = sorted((ROOT / 'configs').glob('clip_vg_*.py'))


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_what_mmengine_writes_comes_back(path):
    cfg = Config.fromfile(path)
    assert parse_config_text(cfg.pretty_text, 'it').to_dict() == cfg.to_dict()


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
    ],
)
def test_anything_but_plain_values_is_refused(text):
    with pytest.raises(ValueError, match='it: its config'):
        parse_config_text(text, 'it')


@pytest.mark.parametrize(
    'text',
    [
        'model = dict(type="subprocess.Popen", args=["true"])',
        'a = dict(b=[dict(c=dict(type="os.system"))])',
        'a = dict(type=["x"])',
    ],
)
def test_a_type_that_is_no_name_of_a_registry_is_refused(text):
    with pytest.raises(ValueError, match='has the type'):
        parse_config_text(text, 'it')


def test_a_checkpoint_without_a_config(tmp_path):
    torch.save(dict(state_dict={}), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='a.pth does not say .* give the config file'):
        config_of_checkpoint(tmp_path / 'a.pth')
