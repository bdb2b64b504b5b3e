"""Labels that several processes score: the bytes of one, whoever is killed when."""

import json
import multiprocessing
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.structures import InstanceData

from projects.clip_vg.engine import scoring
from projects.clip_vg.engine.scoring import (
    choose_sources,
    evaluation_view,
    score_predictions,
    score_sources,
)
from projects.clip_vg_core.curriculum import reliability_shards
from projects.clip_vg_core.utils.folder_lock import lock_folder
from projects.clip_vg_core.utils.shards import Shards

from ..helpers.configs import TEST, pool_config

MEASURER = dict(name='m', sha256='1', config='c')
FORK = multiprocessing.get_context('fork')


class Box(torch.nn.Module):
    """Predicts a box that its expression and image decide."""

    def test_step(self, data):
        for sample in data['data_samples']:
            texts = [sample.text] if isinstance(sample.text, str) else sample.text
            edges = [[9.0, 9, 30 + len(text), 50 + sample.img_id] for text in texts]
            sample.pred_instances = InstanceData(bboxes=torch.tensor(edges))
        return data['data_samples']


@pytest.fixture(params=[True, False], ids=['images known', 'images unknown'])
def pool(shapes, sources, tmp_path, request):
    config = pool_config(shapes, sources)
    # A label whose box is damaged is dropped by the data set: no shard has it.
    lines = (sources / 'one.jsonl').read_text().splitlines()
    broken = json.loads(lines[3])
    broken['grounding']['regions'][0]['bbox'] = [5.0, 5.0, 5.0, 5.0]
    lines[3] = json.dumps(broken)
    (tmp_path / 'one.jsonl').write_text('\n'.join(lines) + '\n')
    shutil.copy(sources / 'two.jsonl', tmp_path)
    config['ann_file'] = [str(tmp_path / f'{n}.jsonl') for n in ('one', 'two')]
    view = evaluation_view(DATASETS.build(config), TEST)
    if not request.param:
        for file in view.label_files:
            object.__setattr__(file, 'add_image_bytes', None)
    return view


def run(pool, folder, shard=(1, 1), **changes):
    given = dict(
        measurer=MEASURER, batch_size=2, grouped=True, scorer=score_predictions
    )
    given.update(changes)
    return score_sources(
        *(Box(), pool, choose_sources(pool, None), folder, given.pop('measurer'), TEST),
        shard=shard,
        **given,
    )


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob('m__*')}


@pytest.fixture
def whole(pool, tmp_path):
    run(pool, tmp_path / 'whole')
    files = contents(tmp_path / 'whole')
    assert len(files) == 8
    assert np.isnan(np.load(tmp_path / 'whole' / 'm__one.npy')).sum() == 1
    return files


def _die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def _die_while_scoring(pool, folder, shard):
    def scorer(*args):
        if dying.pop():
            _die()
        return score_predictions(*args)

    dying = [True, False]
    run(pool, folder, shard, scorer=scorer)


def _die_while_merging(pool, folder, shard):
    original = reliability_shards.write_scores

    def write_scores(path, manifest, keys, values, boxes):
        original(path, manifest, keys, values, boxes)
        path.with_suffix('.keys.npy').unlink()
        _die()

    reliability_shards.write_scores = write_scores
    run(pool, folder, shard)


def _die_while_removing(pool, folder, shard):
    Shards.remove = _die
    run(pool, folder, shard)


def killed(target, *args):
    process = FORK.Process(target=target, args=args)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize('total', [2, 5])
def test_shards_end_as_the_bytes_of_one_process(pool, whole, tmp_path, total):
    folder = tmp_path / 'parts'
    for number in range(total, 0, -1):
        paths = run(pool, folder, (number, total))
        assert len(paths) == (2 if number == 1 else 0)
    assert contents(folder) == whole
    assert len(run(pool, folder, (2, total))) == 2  # once more: nothing to do
    assert contents(folder) == whole


@pytest.mark.parametrize('finish', ['the shard again', 'one process'])
def test_a_killed_shard_goes_on_where_it_was(
    pool, whole, tmp_path, monkeypatch, finish
):
    folder = tmp_path / 'parts'
    run(pool, folder, (1, 2))
    killed(_die_while_scoring, pool, folder, (2, 2))
    seen = []

    def scorer(*args):
        seen.extend(label for sample in args[2] for label in sample)
        return score_predictions(*args)

    shard = (2, 2) if finish == 'the shard again' else (1, 1)
    run(pool, folder, shard, scorer=scorer)
    assert contents(folder) == whole
    second = {
        label
        for file in pool.label_files
        for batch in scoring.plan_batches(pool, 2, True, pool.indices_of(file), (2, 2))
        for sample in batch
        for label in sample
    }
    assert set(seen) < second and len(seen) == len(set(seen))


@pytest.mark.parametrize('die', [_die_while_merging, _die_while_removing])
def test_putting_together_can_be_killed(pool, whole, tmp_path, die):
    folder = tmp_path / 'parts'
    run(pool, folder, (1, 2))
    killed(die, pool, folder, (2, 2))
    for number in (2, 1):
        run(pool, folder, (number, 2))
    assert contents(folder) == whole


def test_what_one_process_has_scored_is_not_scored_again(pool, whole, tmp_path):
    folder = tmp_path / 'parts'
    killed(_die_while_scoring, pool, folder, (1, 1))
    done = np.isfinite(np.load(folder / 'm__one.npy')).sum()
    assert done
    seen = []

    def scorer(*args):
        seen.extend(label for sample in args[2] for label in sample)
        return score_predictions(*args)

    for number in (1, 2, 3):
        run(pool, folder, (number, 3), scorer=scorer)
    assert len(seen) == len(pool) - done
    assert contents(folder) == whole


@pytest.mark.parametrize(
    ('changes', 'shard', 'named'),
    [
        (dict(measurer=dict(MEASURER, sha256='2')), (2, 2), 'sha256 was 1, is 2'),
        (dict(batch_size=3), (2, 2), 'batch_size was 2, is 3'),
        (dict(), (2, 3), 'shards was 2, is 3'),
        (dict(batch_size=3), (1, 1), 'batch_size was 2, is 3'),
    ],
)
def test_shards_of_something_else_are_refused(pool, tmp_path, changes, shard, named):
    run(pool, tmp_path, (1, 2))
    with pytest.raises(ValueError, match=named):
        run(pool, tmp_path, shard, **changes)
    for number in range(1, shard[1] + 1):
        run(pool, tmp_path, (number, shard[1]), overwrite=True, **changes)
    run(pool, tmp_path / 'other', **changes)
    assert contents(tmp_path) == contents(tmp_path / 'other')


def test_shards_of_other_labels_are_refused(pool, tmp_path):
    run(pool, tmp_path, (1, 2))
    file = pool.label_files[0]
    content = file.content.copy()
    content[0] += np.uint64(1)
    object.__setattr__(file, 'content', content)
    with pytest.raises(ValueError, match='labels_sha256 was'):
        run(pool, tmp_path, (2, 2))


def test_the_scores_of_another_measurer_are_not_replaced(pool, whole, tmp_path):
    other = dict(MEASURER, sha256='2')
    with pytest.raises(ValueError, match='sha256'):
        run(pool, tmp_path / 'whole', (1, 2), measurer=other)
    assert contents(tmp_path / 'whole') == whole
    for number in (1, 2):
        run(pool, tmp_path / 'whole', (number, 2), measurer=other, overwrite=True)
    stored = json.loads((tmp_path / 'whole' / 'm__one.json').read_text())
    assert stored['measurer']['sha256'] == '2'


@pytest.mark.parametrize('rank', ['0', '1'])
def test_a_shard_is_scored_by_one_process_at_a_time(pool, tmp_path, monkeypatch, rank):
    monkeypatch.setenv('RANK', rank)
    run(pool, tmp_path, (1, 2))
    shards = Shards(tmp_path / 'm__one.npy')
    with lock_folder(shards.part(2), every_process=True):
        for shard in ((2, 2), (1, 1)):
            with pytest.raises(RuntimeError, match='2 is in use'):
                run(pool, tmp_path, shard)
