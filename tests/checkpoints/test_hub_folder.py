"""Published folders: read from a folder or a cache of the hub, and nothing is run."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from mmengine.config import Config
from safetensors.torch import load_file, save_file

from projects.clip_vg.apis import GroundingInferencer
from projects.clip_vg.checkpoints.hub_folder import (
    CONFIG,
    WEIGHTS,
    find_pretrained,
    write_hub,
)
from projects.clip_vg.checkpoints.safe_loading import load_from_local, read_checkpoint
from projects.clip_vg.checkpoints.work_dir import find_checkpoint, find_weights

from ..helpers.models import save_tiny

IMAGE = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
CPU = dict(device='cpu')
TEXTS = ['left man', 'the dog', 'red bus on the right']


class Touches:
    """Whose pickle makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def boxes_of(infer):
    return infer(IMAGE, TEXTS)['predictions'][0]['bboxes']


def publish(checkpoint, folder):
    """Write the folder of a tiny checkpoint."""
    folder.mkdir()
    state = torch.load(checkpoint, weights_only=True)['state_dict']
    cfg = GroundingInferencer(checkpoint, device='cpu').cfg.to_dict()
    write_hub(folder, state, cfg, '# Tiny\n')
    return folder


@pytest.fixture(scope='module')
def two(tmp_path_factory):
    """Two checkpoints, and their folders."""
    root = tmp_path_factory.mktemp('hub')
    made = [save_tiny(root / f'{seed}.pth', seed, spread=20) for seed in (0, 1)]
    return made, [publish(path, root / path.stem) for path in made]


@pytest.fixture
def folder(two, tmp_path):
    """A copy of the first folder."""
    return shutil.copytree(two[1][0], tmp_path / 'odd')


def test_a_folder_predicts_what_its_checkpoint_does(two):
    checkpoints, folders = two
    first, second = (GroundingInferencer(path, device='cpu') for path in checkpoints)
    assert boxes_of(first) != boxes_of(second)
    for name in (folders[0], str(folders[0])):
        published = GroundingInferencer.from_pretrained(name, device='cpu')
        assert boxes_of(published) == boxes_of(first)
    # And by whatever takes a checkpoint.
    assert boxes_of(GroundingInferencer(folders[0], device='cpu')) == boxes_of(first)
    weights = folders[0] / WEIGHTS
    assert find_checkpoint(folders[0]) == find_weights(folders[0]) == weights
    loaded = load_from_local(str(weights))['state_dict']
    expected = read_checkpoint(checkpoints[0])['state_dict']
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in loaded)


def test_all_may_read_what_is_written(folder):
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    (folder / 'new').touch()
    assert set(modes.values()) == {(folder / 'new').stat().st_mode & 0o777}, modes


@pytest.fixture
def cache(two, tmp_path, monkeypatch):
    """A cache of the hub with two commits of a repository, and no network."""
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
    root = tmp_path / 'models--owner--name'
    (root / 'blobs').mkdir(parents=True)
    (root / 'refs').mkdir()
    commits = ['a' * 40, 'b' * 40]
    for commit, published in zip(commits, two[1], strict=True):
        snapshot = root / 'snapshots' / commit
        snapshot.mkdir(parents=True)
        for file in published.iterdir():
            blob = root / 'blobs' / f'{commit[:4]}{file.name.encode().hex()}'
            shutil.copy(file, blob)
            (snapshot / file.name).symlink_to(f'../../blobs/{blob.name}')
    (root / 'refs/main').write_text(commits[0])
    (root / 'refs/v2').write_text(commits[1])
    return root, commits


def test_a_repository_is_read_from_the_cache_at_a_revision(two, cache):
    root, commits = cache
    expected = [boxes_of(GroundingInferencer(path, device='cpu')) for path in two[0]]
    for revision, number in ((None, 0), ('v2', 1), *zip(commits, (0, 1), strict=True)):
        infer = GroundingInferencer.from_pretrained('owner/name', revision, **CPU)
        assert boxes_of(infer) == expected[number], revision
    # A snapshot is a folder as any other.
    snapshot = root / 'snapshots' / commits[1]
    infer = GroundingInferencer.from_pretrained(snapshot, device='cpu')
    assert boxes_of(infer) == expected[1]


@pytest.mark.parametrize(
    ('name', 'revision'),
    [('owner/other', None), ('owner/name', 'v3'), ('./no/folder', None)],
)
def test_what_cannot_be_had_is_one_sentence(cache, name, revision, monkeypatch):
    for offline in (True, False):
        monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', offline)
        monkeypatch.setattr(constants, 'ENDPOINT', 'http://127.0.0.1:9')  # none there
        with pytest.raises(FileNotFoundError) as caught:
            find_pretrained(name, revision)
        text = str(caught.value)
        assert text.startswith(f'{name}: ') and '--local-dir' in text
        assert '\n' not in text and len(text) < 600


def test_a_folder_has_no_revision(folder):
    with pytest.raises(ValueError, match="'v2'"):
        GroundingInferencer.from_pretrained(folder, 'v2')


@pytest.mark.parametrize('missing', [WEIGHTS, CONFIG])
def test_a_missing_file_is_named_and_others_are_not_read(folder, missing, tmp_path):
    """Neither pickles nor programs, whatever they are called."""
    (folder / missing).unlink()
    ran = tmp_path / 'ran'
    for name in ('config.py', 'model.py', '__init__.py'):
        (folder / name).write_text(f'open({str(ran)!r}, "w").close()')
    for name in ('model.pth', 'best_acc_epoch_1.pth', 'pytorch_model.bin'):
        (folder / name).write_bytes(pickle.dumps(Touches(ran)))
    with pytest.raises(FileNotFoundError) as caught:
        GroundingInferencer.from_pretrained(folder)
    text = str(caught.value)
    assert f'{folder} has no {missing};' in text and "'model.pth'" in text
    assert not ran.exists()


def test_a_link_that_leads_nowhere_is_a_missing_file(cache):
    root, commits = cache
    (root / 'snapshots' / commits[0] / WEIGHTS).resolve().unlink()
    with pytest.raises(FileNotFoundError, match=f'has no {WEIGHTS};'):
        find_pretrained('owner/name')


def in_config(change):
    """A change of the values of the config."""

    def changed(folder):
        values = json.loads((folder / CONFIG).read_text())
        change(values)
        (folder / CONFIG).write_text(json.dumps(values))

    return changed


def as_config(text):
    """Another text in the place of the config."""
    return lambda folder: (folder / CONFIG).write_text(text)


def in_weights(change):
    """A change of the weights."""

    def changed(folder):
        state = load_file(folder / WEIGHTS)
        change(state)
        save_file(state, folder / WEIGHTS)

    return changed


HEAD = 'bbox_head.mlp.layers.0.weight'


@pytest.mark.parametrize(
    ('change', 'found'),
    [
        (in_config(lambda v: v['model'].update(type='Runner')), "'Runner'"),
        (in_config(lambda v: v['model']['fusion'].update(type='os.system')), 'os.sys'),
        (in_config(lambda v: v['model']['fusion'].update(a='/etc/x')), '/etc/x'),
        (in_config(lambda v: v['model'].update(_scope_='os')), '_scope_'),
        (
            in_config(
                lambda v: v['test_dataloader']['dataset']['pipeline'].append(
                    dict(type='LoadPanopticAnnotations')
                )
            ),
            'LoadPanopticAnnotations',
        ),
        (in_config(lambda v: v.update(filename='x')), 'filename'),
        (in_config(lambda v: v.update({'import os; a': 1})), 'import os'),
        (in_config(lambda v: v.update(a=float('nan'))), 'nan'),
        (in_config(lambda v: v.pop('model')), 'model'),
        (in_config(lambda v: v['model'].pop('fusion')), 'fusion'),
        (
            in_config(lambda v: v['model']['fusion'].update(embed_dims=10**9)),
            'not of this model',
        ),
        (as_config('[1]'), CONFIG),
        (as_config('{"model": '), CONFIG),
        (as_config('{"a": ' + '[' * 400 + ']' * 400 + '}'), 'config'),
        (as_config('{"a": ' + '[' * 99_999), CONFIG),
        (as_config('{"a": ' + '9' * 5000 + '}'), CONFIG),
        (in_weights(lambda s: s.pop(HEAD)), HEAD),
        (in_weights(lambda s: s.update(more=s[HEAD].clone())), 'more'),
        (in_weights(lambda s: s.update({HEAD: s[HEAD][:1]})), HEAD),
        (in_weights(lambda s: s.update({HEAD: s[HEAD] / 0})), HEAD),
        (in_weights(lambda s: s.update({HEAD: s[HEAD].int()})), HEAD),
        (in_weights(lambda s: s.clear()), 'state_dict'),
        (lambda folder: (folder / WEIGHTS).write_bytes(b''), WEIGHTS),
        (
            lambda folder: (folder / WEIGHTS).write_bytes(
                (folder / WEIGHTS).read_bytes()[:-1]
            ),
            WEIGHTS,
        ),
        (
            lambda folder: torch.save({HEAD: torch.ones(1)}, folder / WEIGHTS),
            WEIGHTS,
        ),
    ],
)
def test_what_is_broken_or_no_detector_is_one_sentence(folder, change, found):
    change(folder)
    with pytest.raises(ValueError) as caught:
        GroundingInferencer.from_pretrained(folder, device='cpu')
    text = str(caught.value)
    assert str(folder) in text and found in text and '\n' not in text


def test_a_config_of_tuples_is_the_same_from_json(folder):
    """JSON has lists in their place."""
    plain = json.loads((folder / CONFIG).read_text())
    assert plain['model']['visual_encoder']['extract_layers'] == [0, 1]
    read = GroundingInferencer.from_pretrained(folder, device='cpu').cfg
    assert isinstance(read, Config) and read.to_dict() == plain
