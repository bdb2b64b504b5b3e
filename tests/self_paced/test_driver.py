"""The search as a whole, its trainings replaced by a formula: plans, kills, records."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import DATA_SAMPLERS, DATASETS
from mmengine.config import Config

from projects.clip_vg.engine.launch import Job
from projects.clip_vg.self_paced import driver as self_paced
from projects.clip_vg.self_paced import measurers
from projects.clip_vg.self_paced.driver import SelfPaced
from projects.clip_vg.self_paced.plan import describe_plan
from projects.clip_vg.self_paced.settings import Resources, Settings
from projects.clip_vg.visualization.curriculum_report import write_report
from projects.clip_vg_core.curriculum.reliability_file import ReliabilityFile

from ..helpers.configs import runner_config
from ..helpers.work_dirs import record_of


def images_of(dataset):
    return {label['image'] for label in dataset.table}


class Trainer:
    """Stands for the two tools: a training's score is a formula of its labels."""

    def __init__(self, stop_before=None):
        self.stop_before, self.trained, self.scored = stop_before, [], []
        self.images = {}  # of each training and scoring run

    def __call__(self, jobs, at_once=1, gpus=0):
        for job in jobs:
            if self.stop_before == len(self.trained) + len(self.scored):
                raise KeyboardInterrupt
            assert isinstance(job, Job)
            script = Path(job.command[1]).name
            arguments = list(job.command[2:])
            {'train.py': self.train, 'score_reliability.py': self.score}[script](
                arguments
            )

    def train(self, arguments):
        cfg = Config.fromfile(arguments[0])
        folder = Path(arguments[arguments.index('--work-dir') + 1])
        assert '--resume' in arguments
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        sampler = DATA_SAMPLERS.build(
            dict(cfg.train_dataloader.sampler, dataset=dataset, seed=0)
        )
        self.trained.append(folder.name)
        self.images[folder.name] = images_of(dataset)
        # The more labels of an even place, the better; each other one costs.
        even = (sampler.selection % 2 == 0).sum()
        score = float(2 * even - len(sampler.selection)) / len(dataset) + 0.5
        best = folder / 'best_epoch_2.pth'
        torch.save(dict(state_dict={}, name=folder.name), best)
        info = dict(best_score=score, best_ckpt=str(best))
        torch.save(
            dict(meta=dict(epoch=2), message_hub=dict(runtime_info=info)),
            folder / 'epoch_2.pth',
        )
        (folder / 'last_checkpoint').write_text(str(folder / 'epoch_2.pth'))

    def score(self, arguments):
        cfg = Config.fromfile(arguments[0])
        out = arguments[arguments.index('--out') + 1]
        (name,) = (a.removeprefix('--name=') for a in arguments if '--name=' in a)
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        dataset.full_init()
        self.scored.append(name)
        self.images[f'score_{name}'] = images_of(dataset)
        for file in dataset.label_files:
            store = ReliabilityFile(out, dict(name=name, sha256=name), file)
            keys = dataset.label_keys()[dataset.indices_of(file)]
            places = np.flatnonzero(np.isin(file.keys, keys))
            rng = np.random.default_rng(len(name))
            values = rng.random(file.count).astype(np.float32)
            values[::2] = np.sqrt(values[::2])  # labels of even places agree more
            store.write(file.keys[places], values[places], np.zeros((len(places), 4)))
            store.flush()


def search(shapes, sources, work_dir, trainer, monkeypatch, names=None, **settings):
    for module in (self_paced, measurers):
        monkeypatch.setattr(module, 'run_jobs', trainer)
    cfg = runner_config(shapes, sources, work_dir)
    if names:
        files = [str(sources / f'{name}.jsonl') for name in names]
        cfg.train_dataloader.dataset.update(ann_file=files, source=names)
    cfg.work_dir = None
    return SelfPaced(cfg, work_dir, Settings(**settings), Resources(Path('tools')))


CASES = [
    dict(names=['one']),
    dict(),
    dict(strategy='grid', names=['one'], step=0.25),
    dict(strategy='valley'),
    dict(strategy='online'),
    dict(names=['one'], folds=2),
    dict(agreement=True),
    dict(strategy='valley', agreement=True),
    dict(strategy='online', agreement=True),
    dict(names=['one'], criterion='label-free'),
]


@pytest.mark.parametrize('case', CASES, ids=str)
def test_killed_before_any_step_it_ends_the_same(
    shapes, sources, tmp_path, monkeypatch, case
):
    def go(name, stop_before=None):
        trainer = Trainer(stop_before)
        found = search(shapes, sources, tmp_path / name, trainer, monkeypatch, **case)
        try:
            found.run()
        finally:
            found.journal.close()
        return trainer

    whole = go('whole')
    steps = len(whole.trained) + len(whole.scored)
    reference = record_of(tmp_path / 'whole')
    assert len(set(whole.trained)) == len(whole.trained)  # no trial twice
    for stop in sorted({0, steps // 2, steps - 1}):
        with pytest.raises(KeyboardInterrupt):
            go(f'killed{stop}', stop)
        rest = go(f'killed{stop}')
        assert len(rest.trained) + len(rest.scored) == steps - stop
        assert record_of(tmp_path / f'killed{stop}') == reference
    final = torch.load(tmp_path / 'whole/final/model.pth', weights_only=False)
    assert final['name'] == reference['final']['trial']
    plan = describe_plan(
        search(shapes, sources, tmp_path / 'plan', Trainer(), monkeypatch, **case)
    )
    span = plan.rsplit('In all ', 1)[1].split(' trainings')[0].split(' to ')
    tried = len(reference['trials']) + len(reference['measurers'])
    assert int(span[0]) <= tried <= int(span[-1])


def test_ssa_takes_the_best_threshold_that_it_tried(
    shapes, sources, tmp_path, monkeypatch
):
    search(shapes, sources, tmp_path, Trainer(), monkeypatch, names=['one']).run()
    record = record_of(tmp_path)
    scores = {t['name']: t['score'] for t in record['trials'] if t['score'] is not None}
    assert record['final']['score'] == max(scores.values())
    assert scores[record['final']['trial']] == record['final']['score']
    assert {p['measurer'] for t in record['trials'] for p in t['picks']} == {'one'}
    for trial in record['trials']:
        assert trial['labels'] == sum(pick['labels'] for pick in trial['picks'])


def test_msa_orders_sources_by_words_and_builds_on_what_it_chose(
    shapes, sources, tmp_path, monkeypatch
):
    found = search(shapes, sources, tmp_path, Trainer(), monkeypatch)
    found.run()
    record = record_of(tmp_path)
    words = [source['mean_words'] for source in record['sources']]
    assert words == sorted(words)
    first = record['sources'][0]['name']
    assert all(t['picks'][0]['source'] == first for t in record['trials'] if t['picks'])
    by_hand = np.mean(
        [
            len(label['text'].split())
            for label in found.dataset.table
            if label['source'] == first
        ]
    )
    assert words[0] == pytest.approx(by_hand, abs=1e-3)
    other = search(
        shapes, sources, tmp_path / 'o', Trainer(), monkeypatch, order=('two', 'one')
    )
    assert other.sources == ['two', 'one']


def test_with_agreement_clip_is_the_only_measurer(
    shapes, sources, tmp_path, monkeypatch
):
    trainer = Trainer()
    options = dict(agreement=True, strategy='online')
    search(shapes, sources, tmp_path / 'on', trainer, monkeypatch, **options).run()
    assert trainer.scored == ['agreement'] and trainer.trained == ['online']
    online = Config.fromfile(tmp_path / 'on/trials/online/config.py')
    (hook,) = online.custom_hooks
    files = {f'agreement__{name}.npy' for name in ('one', 'two')}
    assert set(hook.prior) == {str(tmp_path / 'on/reliability' / f) for f in files}
    trainer = Trainer()
    search(shapes, sources, tmp_path / 'v', trainer, monkeypatch, agreement=True).run()
    record = record_of(tmp_path / 'v')
    assert record['measurers'] == [] and trainer.scored == ['agreement']
    picks = [pick for trial in record['trials'] for pick in trial['picks']]
    assert {pick['measurer'] for pick in picks} == {'agreement'}
    with pytest.raises(ValueError, match="A source is called 'agreement'"):
        found = search(shapes, sources, tmp_path / 'n', Trainer(), monkeypatch)
        cfg = found.cfg
        cfg.train_dataloader.dataset.source = ['one', 'agreement']
        SelfPaced(cfg, tmp_path / 'n', Settings(agreement=True), found.resources)


def test_label_free_validates_on_images_it_does_not_train_on(
    shapes, sources, tmp_path, monkeypatch
):
    cfg = search(
        shapes, sources, tmp_path, Trainer(), monkeypatch, criterion='label-free'
    ).cfg
    train = DATASETS.build(copy.deepcopy(cfg.train_dataloader.dataset)).table
    val = DATASETS.build(copy.deepcopy(cfg.val_dataloader.dataset)).table
    images = [{label['image'] for label in table} for table in (train, val)]
    assert not images[0] & images[1]
    assert len(images[0] | images[1]) == 24  # all training pictures of `shapes`
    assert {label['source'] for label in val} == {'one', 'two'}


def test_folds_score_images_they_have_not_seen(shapes, sources, tmp_path, monkeypatch):
    trainer = Trainer(stop_before=6)
    found = search(
        shapes, sources, tmp_path, trainer, monkeypatch, names=['one'], folds=3
    )
    with pytest.raises(KeyboardInterrupt):
        found.run()
    scored = []
    for name in ('one_fold0', 'one_fold1', 'one_fold2'):
        images = trainer.images[f'score_{name}']
        assert images and not images & trainer.images[f'measurer_{name}']
        scored += images
    assert len(set(scored)) == len(scored) == 24


def test_nothing_selected_is_said(shapes, sources, tmp_path, monkeypatch):
    trainer = Trainer()
    score = trainer.score

    def all_missed(arguments):
        score(arguments)
        out = Path(arguments[arguments.index('--out') + 1])
        for path in out.glob('*__one.npy'):
            np.load(path, mmap_mode='r+')[:] = 0

    trainer.score = all_missed
    found = search(shapes, sources, tmp_path, trainer, monkeypatch, names=['one'])
    with pytest.raises(ValueError, match='No threshold left enough labels'):
        found.run()


def test_a_search_on_changed_labels_does_not_end_with_the_old_model(
    shapes, sources, tmp_path, monkeypatch
):
    """Other boxes under the same sample_ids; images are the same."""
    mine = shutil.copytree(sources, tmp_path / 'sources')
    work_dir, options = tmp_path / 'search', dict(strategy='fixed', start=0.0)

    def go(trainer, **more):
        made = search(
            shapes, mine, work_dir, trainer, monkeypatch, names=['one'], **options
        )
        return made.run(**more)

    first = Trainer()
    go(first)
    (work_dir / 'notes.txt').write_text('mine')
    again = Trainer()
    go(again)
    assert first.trained and not again.trained
    lines = [json.loads(line) for line in (mine / 'one.jsonl').open()]
    for line in lines:
        line['grounding']['regions'][0]['bbox'] = [1, 1, 20, 20]
    (mine / 'one.jsonl').write_text(''.join(json.dumps(x) + '\n' for x in lines))
    changed = Trainer()
    with pytest.raises(ValueError, match=r'begun with other settings: labels was'):
        go(changed)
    assert not changed.trained
    go(changed, overwrite=True)
    assert changed.trained == first.trained and changed.scored == first.scored
    assert (work_dir / 'notes.txt').is_file()


def test_wrong_configs_and_orders_are_named(shapes, sources, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"order=\['one'\].*'one', 'two'"):
        search(shapes, sources, tmp_path, Trainer(), monkeypatch, order=('one',))
    cfg = runner_config(shapes, sources, tmp_path)
    cfg.default_hooks.checkpoint.save_best = None
    with pytest.raises(ValueError, match='save_best'):
        SelfPaced(cfg, tmp_path, Settings(), Resources(Path('tools')))
    cfg.train_dataloader.dataset.type = 'CocoDataset'
    with pytest.raises(ValueError, match='RefExpDataset.*CocoDataset'):
        SelfPaced(cfg, tmp_path, Settings(), Resources(Path('tools')))


@pytest.mark.parametrize('case', [dict(), dict(strategy='valley'), dict(names=['one'])])
def test_the_report_is_one_page_with_its_pictures(
    shapes, sources, tmp_path, monkeypatch, case
):
    found = search(shapes, sources, tmp_path, Trainer(), monkeypatch, **case)
    page = write_report(found.run(), found.dataset)
    text = page.read_text()
    pictures = {path.stem for path in (tmp_path / 'report').glob('*.png')}
    assert {'histograms', 'kept'} <= pictures
    assert ('search' in pictures) == (case.get('strategy') != 'valley')
    assert any(name.startswith('examples_') for name in pictures)
    assert text.count('data:image/png;base64,') == len(pictures)
    assert 'src="http' not in text and 'href="http' not in text
    assert record_of(tmp_path)['final']['trial'] in text
