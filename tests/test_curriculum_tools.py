"""The curriculum's commands, as a user types them."""

import json
import os
import shutil
import signal
import sys
import time

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps
from mmengine.config import Config

from projects.clip_vg_core.curriculum.official_files import read_iou_result
from projects.clip_vg_core.data.readers import read_annotations

from .helpers import ROOT
from .helpers.commands import FORKS, run, run_here, tool
from .helpers.configs import CONFIG
from .helpers.work_dirs import metrics, record_of

SOURCE = """
train_dataloader = dict(dataset=dict(
    _delete_=True, type='RefExpDataset', ann_file=['{sources}/one.jsonl'],
    data_prefix=dict(img='{data}/images'), pipeline=_base_.train_pipeline))
# The towers here have random weights.
zero_shot = dict(signals=dict(crop=0.5, heat=1.0))
agreement = dict(
    arch={arch}, pretrained='projects/clip_vg/assets/tiny_clip.safetensors')
"""


@pytest.fixture(scope='module')
def config(tmp_path_factory, shapes, sources):
    folder = tmp_path_factory.mktemp('config')
    # In a base of its own, as a dict of one file cannot delete what it inherits twice.
    (folder / 'base.py').write_text(CONFIG.format(root=ROOT, data=shapes))
    path = folder / 'one.py'
    cfg = Config.fromfile(ROOT / 'configs/clip_vg_synthetic.py')
    arch = cfg.model.visual_encoder.arch.to_dict()
    path.write_text(
        f"_base_ = '{folder}/base.py'\n"
        + SOURCE.format(sources=sources, data=shapes, arch=arch)
    )
    return path


@pytest.fixture(scope='module')
def searched(tmp_path_factory, config):
    work_dir = tmp_path_factory.mktemp('search')
    tool(
        *('tools/self_paced.py', config, '--work-dir', work_dir),
        *('--strategy', 'fixed', '--start', '0'),
    )
    return work_dir


def test_a_search_ends_with_a_model_that_can_be_tested(searched, tmp_path):
    record = record_of(searched)
    assert record['final']['trial'] == 'one_by_one_0'
    final = searched / 'final'
    tool(
        *('tools/test.py', final / 'config.py', final / 'model.pth'),
        *('--work-dir', tmp_path),
        *('--cfg-options', 'test_dataloader.dataset.split=val'),
    )
    # As the search scored it.
    found = metrics(tmp_path)['grounding/acc_0.5']
    assert found == pytest.approx(record['final']['score'], abs=1e-6)
    assert (searched / 'report.html').stat().st_size > 10_000
    # What the trial trained on is what its record says.
    reliability = np.load(searched / 'reliability' / 'one__one.npy')
    assert record['trials'][0]['labels'] == (reliability > 0).sum()
    state = torch.load(
        searched / 'trials/one_by_one_0/epoch_2.pth', weights_only=False
    )['sampler']
    np.testing.assert_array_equal(state['selection'], np.flatnonzero(reliability > 0))


def test_again_it_trains_nothing(searched, config):
    before = (searched / 'journal.jsonl').read_bytes()
    record = (searched / 'curriculum.json').read_bytes()
    command = ('tools/self_paced.py', config, '--work-dir', searched)
    tool(*command, '--strategy', 'fixed', '--start', '0')
    assert (searched / 'journal.jsonl').read_bytes() == before
    assert (searched / 'curriculum.json').read_bytes() == record
    done = tool(*command, '--strategy', 'grid', check=False)
    assert done.returncode
    assert str(searched) in done.stderr.splitlines()[-1]


def test_two_processes_score_as_one(searched, tmp_path):
    folder = searched / 'measurers' / 'measurer_one'
    checkpoint = next(folder.glob('best_*.pth'))
    done = tool(
        *('tools/score_reliability.py', folder / 'score.py', checkpoint),
        *('--out-dir', tmp_path, '--name', 'two', '--launcher', 'pytorch'),
        *('--batch-size', '2', '--report', '--work-dir', tmp_path / 'work'),
        ranks=2,
    )
    assert '100%' in done.stderr
    one = np.load(searched / 'reliability' / 'one__one.npy')
    two = np.load(tmp_path / 'two__one.npy')
    assert np.isfinite(two).all()
    assert two == pytest.approx(one, abs=1e-5)
    assert (tmp_path / 'two.html').is_file()


def test_zero_shot_grounding_scores_without_a_checkpoint(config, tmp_path):
    command = ('tools/score_reliability.py', config, '--work-dir', tmp_path / 'work')
    out = ('--out-dir', tmp_path / 'scores')
    tool(*command, '--zero-shot', *out)
    own = np.load(tmp_path / 'scores/zero_shot__one.npy')
    # The labels of `sources` are true, and the tiny CLIP knows shapes.
    assert np.isfinite(own).all() and own.mean() > 0.6
    given = ROOT / 'configs/zero_shot_synthetic.py'
    tool(*command, '--zero-shot', given, *out, '--name', 'given')
    given = np.load(tmp_path / 'scores/given__one.npy')
    assert np.isfinite(given).all() and given.mean() > 0.6
    changed = ('--cfg-options', 'zero_shot.geometry.margin=1.0')
    done = tool(*command, '--zero-shot', *out, *changed, check=False)
    assert done.returncode and 'zero_shot__one' in done.stderr


def test_scores_of_a_file_are_joined_by_sample_id(config, sources, tmp_path):
    names = list(read_annotations(sources / 'one.jsonl').sample_ids)
    rows = [f'{name},{i / len(names)}' for i, name in enumerate(names)]
    file = tmp_path / 'outside.csv'
    command = ('tools/score_reliability.py', config, '--measurer-file', file)
    out = ('--out-dir', tmp_path / 'scores', '--work-dir', tmp_path / 'work')

    def write(lines):
        file.write_text('sample_id,probability\n' + '\n'.join(lines) + '\n')

    write(rows[::-1])
    tool(*command, *out)
    values = np.load(tmp_path / 'scores/outside__one.npy')
    np.testing.assert_allclose(values, np.arange(len(names)) / len(names), rtol=1e-6)
    for lines, named in ((rows[1:], names[0]), ([*rows, 'nobody,0.5'], 'nobody')):
        write(lines)
        done = tool(*command, *out, '--overwrite', check=False)
        assert done.returncode and named in done.stderr


def test_clips_agreement_scores_without_a_checkpoint(config, tmp_path):
    options = ('--agreement', '--out-dir', tmp_path, '--work-dir', tmp_path / 'work')
    tool('tools/score_reliability.py', config, *options, '--report')
    one = np.load(tmp_path / 'agreement__one.npy')
    assert np.isfinite(one).all() and 0 <= one.min() < one.max() <= 1
    assert (tmp_path / 'agreement.html').is_file()
    # In shards the same bytes, and the report once.
    shards = ('--agreement', '--out-dir', tmp_path / 'shards', '--work-dir', tmp_path)
    auto = (*shards, '--report', '--shard', 'auto')
    tool('tools/score_reliability.py', config, *auto, ranks=2)
    for path in tmp_path.glob('agreement__one.*'):
        assert (tmp_path / 'shards' / path.name).read_bytes() == path.read_bytes()
    assert (tmp_path / 'shards' / 'agreement.html').is_file()
    both = (*auto, '--launcher', 'pytorch')
    done = tool('tools/score_reliability.py', config, *both, check=False)
    assert done.returncode and '--launcher' in done.stderr.splitlines()[-1]
    tool(
        *('tools/score_reliability.py', config, *options),
        *('--name', 'two', '--launcher', 'pytorch', '--batch-size', '2'),
        ranks=2,
    )
    assert np.load(tmp_path / 'two__one.npy') == pytest.approx(one, abs=1e-4)
    # Not over what other options have made.
    changed = (*options, '--cfg-options', 'agreement.context=2.0')
    done = tool('tools/score_reliability.py', config, *changed, check=False)
    assert done.returncode and 'agreement__one' in done.stderr
    both = ('x.pth', *options)
    done = tool('tools/score_reliability.py', config, *both, check=False)
    assert done.returncode and '--agreement' in done.stderr.splitlines()[-1]


def test_released_files_there_and_back(searched, sources, tmp_path):
    script = 'tools/dataset_converters/released_reliability.py'
    scored = searched / 'reliability' / 'one__one.npy'
    labels = sources / 'one.jsonl'
    result = tmp_path / 'unc_train_iou_result.pth'
    tool(script, 'export', labels, scored, '--out', result)
    np.testing.assert_array_equal(read_iou_result(result), np.load(scored))
    entries = torch.load(result, weights_only=True)
    true, predicted = (
        bbox_cxcywh_to_xyxy(torch.stack([entry[field] for entry in entries]))
        for field in (4, 5)
    )
    # Labels of this data set have fractions, which the official code drops.
    overlaps = bbox_overlaps(true, predicted, is_aligned=True).numpy()
    np.testing.assert_allclose(overlaps, np.load(scored), atol=0.06)
    tool(script, 'import', result, '--out-dir', tmp_path, '--name', 'm')
    back = np.load(tmp_path / 'm__pseudo.npy')
    np.testing.assert_array_equal(back, np.load(scored))
    refined = tmp_path / 'unc_train_refine_0_0.pth'
    tool(script, 'select', labels, scored, '--out', refined, '--threshold', '0')
    assert len(read_annotations(refined)) == (np.load(scored) > 0).sum()
    done = tool(script, 'select', labels, scored, '--out', refined, check=False)
    assert done.returncode and str(refined) in done.stderr


def weights(work_dir):
    state = torch.load(work_dir / 'final' / 'model.pth', weights_only=False)
    return state['state_dict']


def half_scored(work_dir):
    try:
        return np.isfinite(np.load(work_dir / 'reliability' / 'one__one.npy')).any()
    except (OSError, ValueError, EOFError):
        return False


def test_what_a_correction_costs_is_told_before(config, tmp_path):
    command = ('tools/self_paced.py', config, '--work-dir', tmp_path, '--dry-run')
    for options, runs in (
        (('--correct',), 3),
        (('--correct', '--rounds', '1'), 2),
        (('--correct', '--folds', '2'), 4),
    ):
        done = tool(*command, *options)
        assert f'Total: {runs} training runs' in done.stdout + done.stderr
    for options, named in (
        (('--rounds', '1'), '--correct'),
        (('--correct', '--rounds', '0'), '--rounds'),
        (('--correct', '--strategy', 'grid'), 'grid'),
        (('--correct', '--measurer', 'model'), '--folds 2'),
    ):
        done = tool(*command, *options, check=False)
        assert done.returncode and named in done.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    # A model of two epochs knows nothing: few labels pass a higher threshold.
    'options',
    [('--start', '0.1'), ('--correct', '--rounds', '1')],
    ids=['selection', 'correction'],
)
def test_killed_at_three_points_it_ends_the_same(config, tmp_path, options):
    """In a measurer's training, in the scoring, in a trial; `kill -9` each time."""
    command = ('tools/self_paced.py', config, *options, '--work-dir')
    tool(*command, tmp_path / 'whole')
    points = {
        'training': lambda d: list(d.glob('measurers/*/epoch_1.pth')),
        'scoring': half_scored,
        'trial': lambda d: list(d.glob('trials/*/epoch_1.pth')),
    }
    for name, reached in points.items():
        work_dir = tmp_path / name
        # A fork as of `tool`, which leaves the text of configs unformatted too: a
        # search goes on with a config of the same text only.
        argv = [str(part) for part in (*command, work_dir)]
        process = FORKS.Process(target=run_here, args=(argv, os.devnull, os.devnull))
        process.start()
        limit = time.time() + 200
        while not reached(work_dir) and process.is_alive():
            assert time.time() < limit
            time.sleep(0.01)
        # The search alone: what it has started must end with it.
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        tool(*command, work_dir)
        assert record_of(work_dir) == record_of(tmp_path / 'whole')
        again, whole = weights(work_dir), weights(tmp_path / 'whole')
        assert all(torch.equal(again[key], whole[key]) for key in whole)


@pytest.mark.slow
def test_two_processes_a_training(config, tmp_path):
    command = ('tools/self_paced.py', config, '--work-dir', tmp_path, '--start', '0')
    options = ('--strategy', 'fixed', '--launcher', 'pytorch', '--processes', '2')
    run(sys.executable, *command, *options)
    assert record_of(tmp_path)['final']['trial'] == 'one_by_one_0'
    log = (tmp_path / 'trials' / 'one_by_one_0' / 'log.txt').read_text()
    assert '--nproc-per-node 2' in log


@pytest.mark.slow
def test_online_and_valley_searches_run(config, tmp_path):
    for strategy, *more in (
        ('online',),
        ('valley',),
        ('online', '--agreement'),
        ('valley', '--agreement'),
    ):
        shutil.rmtree(tmp_path / strategy, ignore_errors=True)
        tool(
            *('tools/self_paced.py', config, '--work-dir', tmp_path / strategy),
            *('--strategy', strategy, '--criterion', 'label-free', *more),
            *('--cfg-options', 'train_cfg.max_epochs=3'),
            'param_scheduler.0.total_steps=3',
        )
        assert json.loads((tmp_path / strategy / 'curriculum.json').read_text())
        assert (tmp_path / strategy / 'report.html').is_file()
    shutil.rmtree(tmp_path)
