"""The search as a whole, its runs replaced by a formula: plans, kills, records."""

import copy
import json
import re
import shutil

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.config import Config

from projects.clip_vg.self_paced.launch import RunResult
from projects.clip_vg.self_paced.search import SelfPaced
from projects.clip_vg_core.curriculum.search_settings import Settings
from projects.clip_vg_core.utils.folder_lock import lock_folder
from projects.clip_vg_core.visualization.curriculum_report import write_report

from ..helpers.configs import runner_config
from ..helpers.searches import Runs
from ..helpers.searches import make_search as make
from ..helpers.work_dirs import record_of

CASES = [
    dict(names=['one']),
    dict(),
    dict(strategy='grid', names=['one'], step=0.25),
    dict(strategy='valley'),
    dict(strategy='online'),
    dict(names=['one'], folds=2),
    dict(measurer='clip'),
    dict(strategy='valley', measurer='clip'),
    dict(strategy='online', measurer='zero-shot'),
    dict(names=['one'], measurer='mean'),
    dict(names=['one'], criterion='label-free'),
    dict(init='previous', unhelpful='keep', equal='epochs'),
]


@pytest.mark.parametrize('case', CASES, ids=str)
def test_killed_at_any_step_it_ends_the_same(shapes, sources, tmp_path, case):
    def go(name, *stop):
        runs = Runs(*stop)
        make(shapes, sources, tmp_path / name, runs, **case).run()
        return runs

    whole = go('whole')
    steps = len(whole.trained) + len(whole.scored)
    reference = record_of(tmp_path / 'whole')
    assert len(set(whole.trained)) == len(whole.trained)  # no trial twice
    for before, after in {(0, None), (steps // 2, None), (None, 1), (None, steps)}:
        name = f'killed_{before}_{after}'
        with pytest.raises(KeyboardInterrupt):
            go(name, before, after)
        rest = go(name)
        finished = after - 1 if before is None else before
        assert len(rest.trained) + len(rest.scored) == steps - finished
        assert record_of(tmp_path / name) == reference
    final = torch.load(tmp_path / 'whole/final/model.pth', weights_only=True)
    assert final['name'] == reference['final']['trial']
    plan = make(shapes, sources, tmp_path / 'plan', Runs(), **case).plan()
    total = plan.splitlines()[-1]
    fewest, *most, epochs = map(int, re.findall(r'\d+', total))
    tried = len(reference['trials']) + len(reference['measurers'])
    assert fewest <= tried <= (most or [fewest])[0]
    assert epochs == 2


def test_the_plan_counts_measurers_comparisons_and_threshold_runs(
    shapes, sources, tmp_path
):
    plan = make(shapes, sources, tmp_path, Runs(), strategy='fixed').plan()
    # Each source: 2 measurers at 0.5, the better of which is its threshold run.
    assert [int(n) for n in re.findall(r'^(?:Total: )?(\d+) ', plan, re.M)] == [2, 6]
    plan = make(shapes, sources, tmp_path, Runs(), names=['one']).plan()
    assert plan.splitlines()[-3:] == [
        '1 measurer to train.',
        'Per source: 1 measurer compared at h = 0.5, then 3 to 7 threshold runs.',
        'Total: 4 to 8 training runs of 2 epochs.',
    ]
    plan = make(shapes, sources, tmp_path, Runs(), strategy='online').plan()
    assert plan.endswith('\nTotal: 1 training run of 2 epochs.')


def test_ssa_takes_the_best_threshold_that_it_tried(shapes, sources, tmp_path):
    make(shapes, sources, tmp_path, Runs(), names=['one']).run()
    record = record_of(tmp_path)
    scores = {t['name']: t['score'] for t in record['trials'] if t['score'] is not None}
    assert record['final']['score'] == max(scores.values())
    assert scores[record['final']['trial']] == record['final']['score']
    assert {p['measurer'] for t in record['trials'] for p in t['picks']} == {'one'}
    for trial in record['trials']:
        assert trial['labels'] == sum(pick['labels'] for pick in trial['picks'])


def test_msa_orders_sources_by_words_and_builds_on_what_it_chose(
    shapes, sources, tmp_path
):
    search = make(shapes, sources, tmp_path, Runs())
    search.run()
    record = record_of(tmp_path)
    words = [source['mean_words'] for source in record['sources']]
    assert words == sorted(words)
    first = record['sources'][0]['name']
    assert all(t['picks'][0]['source'] == first for t in record['trials'] if t['picks'])
    by_hand = np.mean(
        [
            len(label['text'].split())
            for label in search.dataset.table
            if label['source'] == first
        ]
    )
    assert words[0] == pytest.approx(by_hand, abs=1e-3)
    other = make(shapes, sources, tmp_path / 'o', Runs(), order=('two', 'one'))
    assert other.sources == ['two', 'one']


def test_with_agreement_clip_is_the_only_measurer(shapes, sources, tmp_path):
    runs = Runs()
    options = dict(measurer='clip', strategy='online')
    make(shapes, sources, tmp_path / 'on', runs, **options).run()
    assert runs.scored == ['agreement'] and runs.trained == ['online']
    online = Config.fromfile(tmp_path / 'on/trials/online/config.py')
    (hook,) = online.custom_hooks
    files = {f'agreement__{name}.npy' for name in ('one', 'two')}
    assert set(hook.prior) == {str(tmp_path / 'on/reliability' / f) for f in files}
    runs = Runs()
    make(shapes, sources, tmp_path / 'v', runs, measurer='clip').run()
    record = record_of(tmp_path / 'v')
    assert record['measurers'] == [] and runs.scored == ['agreement']
    picks = [pick for trial in record['trials'] for pick in trial['picks']]
    assert {pick['measurer'] for pick in picks} == {'agreement'}
    with pytest.raises(ValueError, match="A source is called 'agreement'"):
        search = make(shapes, sources, tmp_path / 'n', Runs())
        cfg = search.cfg
        cfg.train_dataloader.dataset.source = ['one', 'agreement']
        SelfPaced(cfg, tmp_path / 'n', Settings(measurer='clip'), Runs())


def test_a_trial_continues_from_what_it_builds_on(shapes, sources, tmp_path):
    runs = Runs()
    options = dict(init='previous', equal='epochs', strategy='fixed', start=0.6)
    make(shapes, sources, tmp_path, runs, order=('one', 'two'), **options).run()
    configs = {
        name: Config.fromfile(tmp_path / 'trials' / name / 'config.py')
        for name in runs.trained
        if not name.startswith('measurer')
    }
    assert len(configs) == 4
    (best,) = (
        decision['measurer']
        for decision in record_of(tmp_path)['decisions']
        if decision['source'] == 'one'
    )
    for name, cfg in configs.items():
        (start,) = (tmp_path / cfg.load_from).parent.relative_to(tmp_path).parts[-1:]
        first, *more = name.split('+')
        # The best trial of the first source, or the measurer of a first one.
        assert start == (first if more else f'measurer_{first.split("_by_")[1][:3]}')
        assert not more or first == f'one_by_{best}_0.6'
        assert cfg.train_dataloader.sampler.epoch_length == 'selected'
    record = record_of(tmp_path)['settings']
    assert (record['init'], record['equal']) == ('previous', 'epochs')
    assert 'unhelpful' not in record and 'correct' not in record


def test_settings_of_earlier_journals_are_those_of_today():
    """What version 0.1 and 0.2 wrote before there were options to write."""
    assert Settings().described() == dict(
        strategy='greedy',
        criterion='val',
        start=0.5,
        step=0.1,
        valley='otsu',
        order=None,
        folds=1,
        agreement=False,
    )


@pytest.mark.parametrize('criterion', ['val', 'label-free'])
def test_a_model_no_better_than_chance_is_told(
    shapes, sources, tmp_path, monkeypatch, criterion
):
    told = []
    monkeypatch.setattr(
        'projects.clip_vg.self_paced.validation.print_log',
        lambda text, **_: told.append(text),
    )
    runs = Runs()
    options = dict(names=['one'], strategy='fixed', start=0.0, criterion=criterion)
    search = make(shapes, sources, tmp_path, runs, **options)
    train = runs.train

    def as_good_as(score):
        def scored(configs):
            for folder, result, seconds in train(configs):
                yield folder, RunResult(score, result.checkpoint), seconds

        return scored

    chance = search.validation.chance
    assert 0 < chance.constant < 1 and 0 < chance.candidate < 1
    runs.train = as_good_as(chance.best + 0.01)
    search.run()
    assert not told
    runs.train = as_good_as(chance.best)
    shutil.rmtree(tmp_path)
    search = make(shapes, sources, tmp_path, runs, **options)
    search.run()
    count = len(DATASETS.build(search.cfg.val_dataloader.dataset))
    assert [text.split(':')[0] for text in told] == ['measurer_one', 'The final model']
    assert all(f'{chance.best:.4f}' in text for text in told)
    assert all(f' {count} ' in text and 'IoU 0.5' in text for text in told)
    record = record_of(tmp_path)['validation']
    assert record['random_candidate'] == chance.candidate
    # Held-out pseudo-labels are no truth, so no accuracy.
    assert ('accuracy' in record['unit']) == (criterion == 'val')


def test_untrained_measurers_are_compared_with_chance(shapes, sources, tmp_path):
    search = make(shapes, sources, tmp_path, Runs(), measurer='clip', strategy='valley')
    search.run()
    rows = record_of(tmp_path)['agreements']
    assert [(r['measurer'], r['source']) for r in rows] == [
        ('agreement', name) for name in search.sources
    ]
    # `Runs` predicts boxes without an area.
    assert all(r['agreement'] == 0 < r['random_candidate'] for r in rows)
    assert sum(r['labels'] for r in rows) <= len(search.dataset)


def test_the_mean_is_of_the_own_model_and_zero_shot(shapes, sources, tmp_path):
    runs = Runs()
    make(shapes, sources, tmp_path, runs, measurer='mean', strategy='valley').run()
    assert sorted(runs.scored) == ['one', 'two', 'zero_shot']
    folder = tmp_path / 'reliability'
    for source in ('one', 'two'):
        mean, own, other = (
            np.load(folder / f'{name}__{source}.npy')
            for name in ('mean', source, 'zero_shot')
        )
        np.testing.assert_allclose(mean, (own + other) / 2, rtol=1e-6)
    record = record_of(tmp_path)
    assert record['settings']['measurer'] == 'mean' and len(record['measurers']) == 2


def test_a_file_is_told_to_the_scoring_and_its_content_counts(
    shapes, sources, tmp_path, monkeypatch
):
    file = tmp_path / 'judged.csv'
    file.write_text('sample_id,probability\n')
    runs, told = Runs(), []
    score = runs.score

    def note(config, measurer, name, out_dir):
        told.append((measurer, name))
        score(config, measurer, name, out_dir)

    monkeypatch.setattr(runs, 'score', note)
    options = dict(measurer='file', measurer_file=str(file), strategy='valley')
    make(shapes, sources, tmp_path / 'w', runs, **options).run()
    assert told == [(f'--measurer-file={file}', 'file')]
    file.write_text('sample_id,probability\na,1\n')
    with pytest.raises(ValueError, match='measurer_sha256'):
        make(shapes, sources, tmp_path / 'w', runs, **options).run()


@pytest.mark.parametrize(
    'settings',
    [
        dict(measurer='nobody'),
        dict(measurer='file'),
        dict(measurer='clip', measurer_file='a.csv'),
        dict(measurer='mean', strategy='online'),
        dict(measurer='mean', correct=1),
        dict(init='nobody'),
        dict(unhelpful='drop'),
        dict(equal='seconds'),
        dict(init='previous', strategy='online'),
        dict(correct=-1),
        dict(correct=1, strategy='grid'),
        dict(folds=3, correct=1),
    ],
)
def test_unusable_settings_are_refused(settings):
    with pytest.raises(ValueError, match=f'{next(iter(settings))}='):
        Settings(**settings)


def test_label_free_validates_on_images_it_does_not_train_on(shapes, sources, tmp_path):
    cfg = make(shapes, sources, tmp_path, Runs(), criterion='label-free').cfg
    train = DATASETS.build(copy.deepcopy(cfg.train_dataloader.dataset)).table
    val = DATASETS.build(copy.deepcopy(cfg.val_dataloader.dataset)).table
    images = [{label['image'] for label in table} for table in (train, val)]
    assert not images[0] & images[1]
    assert len(images[0] | images[1]) == 24  # all training images of `shapes`
    assert {label['source'] for label in val} == {'one', 'two'}


def test_folds_score_images_they_have_not_seen(shapes, sources, tmp_path):
    runs = Runs(stop_before=6)
    search = make(shapes, sources, tmp_path, runs, names=['one'], folds=3)
    with pytest.raises(KeyboardInterrupt):
        search.run()
    scored = []
    for name in ('one_fold0', 'one_fold1', 'one_fold2'):
        images = runs.images[f'score_{name}']
        assert images and not images & runs.images[f'measurer_{name}']
        scored += images
    assert len(set(scored)) == len(scored) == 24


def test_where_no_threshold_selects_enough_the_histograms_are_named(
    shapes, sources, tmp_path
):
    runs = Runs()
    score = runs.score

    def all_missed(config, checkpoint, name, out_dir):
        score(config, checkpoint, name, out_dir)
        for path in out_dir.glob('*__one.npy'):
            np.load(path, mmap_mode='r+')[:] = 0

    runs.score = all_missed
    search = make(shapes, sources, tmp_path, runs, names=['one'])
    with pytest.raises(ValueError, match=f'{tmp_path}/reliability'):
        search.run()
    assert runs.trained == ['measurer_one']


def test_a_search_on_changed_labels_does_not_end_with_the_old_model(
    shapes, sources, tmp_path
):
    """Other boxes under the same sample_ids; images are the same."""
    mine = shutil.copytree(sources, tmp_path / 'sources')
    work_dir, options = tmp_path / 'search', dict(strategy='fixed', start=0.0)

    def go(runs, overwrite=False):
        search = make(shapes, mine, work_dir, runs, names=['one'], **options)
        return search.run(overwrite)

    first = Runs()
    go(first)
    (work_dir / 'notes.txt').write_text('mine')
    again = Runs()
    with lock_folder(work_dir), pytest.raises(RuntimeError, match=str(work_dir)):
        go(again)
    go(again)
    assert first.trained and not again.trained
    lines = [json.loads(line) for line in (mine / 'one.jsonl').open()]
    for line in lines:
        line['grounding']['regions'][0]['bbox'] = [1, 1, 20, 20]
    (mine / 'one.jsonl').write_text(''.join(json.dumps(x) + '\n' for x in lines))
    changed = Runs()
    with pytest.raises(ValueError, match=r'labels\.one was \w+\.\.\., is'):
        go(changed)
    assert not changed.trained
    go(changed, overwrite=True)
    assert changed.trained == first.trained and changed.scored == first.scored
    assert (work_dir / 'notes.txt').is_file()


def test_wrong_configs_and_orders_are_named(shapes, sources, tmp_path):
    with pytest.raises(ValueError, match=r"order=\['one'\].*'one', 'two'"):
        make(shapes, sources, tmp_path, Runs(), order=('one',))
    cfg = runner_config(shapes, sources, tmp_path)
    cfg.default_hooks.checkpoint.save_best = None
    with pytest.raises(ValueError, match='save_best'):
        SelfPaced(cfg, tmp_path, Settings(), Runs())
    cfg.train_dataloader.dataset.type = 'CocoDataset'
    with pytest.raises(ValueError, match='RefExpDataset.*CocoDataset'):
        SelfPaced(cfg, tmp_path, Settings(), Runs())


@pytest.mark.parametrize('case', [dict(), dict(strategy='valley'), dict(names=['one'])])
def test_the_report_is_one_page_with_its_figures(shapes, sources, tmp_path, case):
    search = make(shapes, sources, tmp_path, Runs(), **case)
    page = write_report(search.run(), search.dataset)
    text = page.read_text()
    figures = {path.stem for path in (tmp_path / 'report').glob('*.png')}
    assert {'histograms', 'kept'} <= figures
    assert ('search' in figures) == (case.get('strategy') != 'valley')
    assert any(name.startswith('examples_') for name in figures)
    assert text.count('data:image/png;base64,') == len(figures)
    assert 'src="http' not in text and 'href="http' not in text
    assert record_of(tmp_path)['final']['trial'] in text
