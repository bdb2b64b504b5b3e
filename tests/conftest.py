"""Small models and data that the tests share; all offline, on the CPU."""

import logging
import multiprocessing
import os
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import config
from mmengine.registry import init_default_scope

import projects.clip_vg  # noqa: F401
from projects.clip_vg.synthetic.data_set import make_synthetic
from projects.clip_vg.synthetic.tiny_bert import make_tiny_bert
from projects.clip_vg_core.data.readers import read_annotations, write_odvg

from .helpers.commands import FORKS
from .helpers.configs import model_config, unformatted
from .helpers.models import initialised
from .helpers.shrink import tiny_hugging_face

# For models this small, threads cost more than they do, above all on a busy machine.
torch.set_num_threads(1)
os.environ['OMP_NUM_THREADS'] = '1'  # of processes that tests start
os.environ['HF_HUB_OFFLINE'] = '1'  # nor do they wait for a network
# At every checkpoint MMEngine formats the config anew: half the time of a short run.
config.FormatCode = unformatted


def pytest_addoption(parser):
    for name, what in (
        ('realdata', 'real RefCOCO annotations and photographs'),
        ('parity', 'recorded answers of the published model'),
    ):
        parser.addoption(
            f'--{name}-dir',
            default=os.environ.get(f'CLIP_VG_{name.upper()}'),
            help=f'folder of {what}; default: $CLIP_VG_{name.upper()}',
        )


@pytest.fixture(autouse=True)
def _mmdet_scope():
    logging.disable(logging.NOTSET)  # of whatever ran before in this process
    torch.manual_seed(0)
    init_default_scope('mmdet')


@pytest.fixture
def offline(monkeypatch):
    """Nothing is fetched, also not from a cache of downloads."""

    def refuse(*args, **kwargs):
        raise AssertionError('something is to be fetched')

    monkeypatch.setattr(socket.socket, 'connect', refuse)
    monkeypatch.setattr(open_clip, 'download_pretrained', refuse)


@pytest.fixture
def forks(monkeypatch):
    """Processes that are started anew are forks instead, which import nothing."""
    monkeypatch.setattr(multiprocessing, 'get_context', lambda method=None: FORKS)


@pytest.fixture(scope='session')
def bert(tmp_path_factory):
    """Makes a tiny BERT when asked for its folder, and skips without transformers."""
    made = []

    def folder():
        pytest.importorskip('transformers')
        if not made:
            made.append(str(tmp_path_factory.mktemp('bert') / 'bert'))
            make_tiny_bert(Path(made[0]))
        return made[0]

    return folder


@pytest.fixture(scope='session')
def folders(tmp_path_factory):
    """Folders of tiny text towers of Hugging Face, by their names on the hub."""
    made = {}

    def folder(name):
        if name not in made:
            made[name] = tiny_hugging_face(tmp_path_factory.mktemp('hf'), name)
        return made[name]

    return folder


@pytest.fixture
def realdata(request):
    path = request.config.getoption('--realdata-dir')
    if not path:
        pytest.skip('no --realdata-dir and no CLIP_VG_REALDATA')
    return Path(path)


@pytest.fixture(scope='session')
def shapes(tmp_path_factory):
    """A synthetic data set of 24 training and 6 test images."""
    root = tmp_path_factory.mktemp('data') / 'shapes'
    return make_synthetic(root, dict(train=24, val=6, test=6), seed=3)


@pytest.fixture(scope='session')
def any_shapes(tmp_path_factory):
    """The data set of ``shapes``, with labels of several targets and of none too."""
    root = tmp_path_factory.mktemp('any') / 'shapes'
    return make_synthetic(root, dict(train=24, val=6, test=6), seed=3, targets='any')


@pytest.fixture
def tiny_model():
    """A tiny CLIPVG with random weights, in eval mode."""
    return initialised(MODELS.build(model_config())).eval()


@pytest.fixture(scope='session')
def sources(shapes, tmp_path_factory):
    """Two label files of the training images of ``shapes``: 'one' and 'two'."""
    folder = tmp_path_factory.mktemp('sources')
    labels = read_annotations(
        shapes / 'shapes' / 'instances.json',
        shapes / 'shapes' / 'refs(synthetic).p',
        splits=['train'],
    )
    for offset, name in enumerate(('one', 'two')):
        part = labels.take(np.arange(offset, len(labels), 2))
        part = replace(part, source_names=(name,))
        write_odvg(part, folder / f'{name}.jsonl')
    return folder
