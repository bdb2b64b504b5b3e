"""Correction in rounds, the models replaced by measurers that are right at a rate."""

import json
import re

import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config

from projects.clip_vg.self_paced.correction import read_corrected
from projects.clip_vg_core.curriculum.correction import DROPPED, KEPT, MOVED
from projects.clip_vg_core.curriculum.reliability_file import (
    read_boxes,
    read_outcomes,
    read_reliability,
)
from projects.clip_vg_core.data.readers import read_annotations
from projects.clip_vg_core.metrics.accuracy import aligned_ious
from projects.clip_vg_core.visualization.curriculum_report import write_report

from ..helpers.searches import Runs
from ..helpers.searches import make_search as make
from ..helpers.work_dirs import record_of


@pytest.fixture(scope='module')
def wrong(sources, tmp_path_factory):
    """The label files of ``sources``; 40 % of the boxes are of another object."""
    folder = tmp_path_factory.mktemp('wrong')
    rng = np.random.default_rng(0)
    every = [json.loads(x) for f in sources.glob('*.jsonl') for x in f.open()]
    objects = {}
    for row in every:
        box = row['grounding']['regions'][0]['bbox']
        own = objects.setdefault(row['filename'], [])
        if box not in own:
            own.append(box)
    for file in sources.glob('*.jsonl'):
        with (folder / file.name).open('w') as out:
            for line in file.open():
                row = json.loads(line)
                region = row['grounding']['regions'][0]
                others = [b for b in objects[row['filename']] if b != region['bbox']]
                if others and rng.random() < 0.4:
                    region['bbox'] = others[rng.integers(len(others))]
                out.write(json.dumps(row) + '\n')
    return folder


class Voters(Runs):
    """Measurers that predict the true box of an expression at a rate, else another.

    Args:
        truth (Path): Folder of the true labels.
        rates (dict): Of each measurer on each source, 0.95 where none is
            named.
    """

    def __init__(self, truth, rates=(), **stop):
        super().__init__(**stop)
        self.rates = dict(rates)
        self.truth = {
            name: read_annotations(truth / f'{name}.jsonl').boxes
            for name in ('one', 'two')
        }

    def predict(self, name, file):
        rng = np.random.default_rng([len(name), len(file.source), sum(map(ord, name))])
        truth = self.truth[file.source]
        rate = self.rates.get((name, file.source), 0.95)
        is_right = rng.random(len(truth)) < rate
        guesses = truth[rng.integers(len(truth), size=len(truth))]
        boxes = np.where(is_right[:, None], truth, guesses).astype(np.float32)
        return np.full(file.count, 0.5, np.float32), boxes


def go(shapes, wrong, sources, work_dir, stop=(), rates=(), **settings):
    runs = Voters(sources, rates, **dict(stop))
    search = make(shapes, wrong, work_dir, runs, **settings)
    search.run()
    return search, runs


CASES = [
    dict(names=['one'], correct=2, measurer='clip'),
    dict(names=['one'], correct=2, folds=2),
    dict(correct=2),
    dict(correct=1, folds=2, measurer='clip', criterion='label-free'),
]


def outputs(work_dir):
    """Bytes of what a correction writes."""
    files = [*(work_dir / 'corrected').rglob('*'), *work_dir.glob('reliability/*.npy')]
    return {
        str(file.relative_to(work_dir)): file.read_bytes()
        for file in files
        if file.is_file()
    }


@pytest.mark.parametrize('case', CASES, ids=str)
def test_killed_at_any_step_it_ends_the_same(shapes, wrong, sources, tmp_path, case):
    search, whole = go(shapes, wrong, sources, tmp_path / 'whole', **case)
    steps = len(whole.trained) + len(whole.scored)
    reference = record_of(tmp_path / 'whole')
    assert len(set(whole.trained)) == len(whole.trained)
    # Measurers, and one run a round.
    assert len(whole.trained) == len(search.measurers.models) + case['correct']
    total = search.plan().splitlines()[-1]
    assert int(re.search(r'\d+', total)[0]) == len(whole.trained)
    for stop in (dict(stop_before=steps // 2), dict(stop_after=steps)):
        name = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt):
            go(shapes, wrong, sources, name, stop, **case)
        _, rest = go(shapes, wrong, sources, name, **case)
        assert len(rest.trained) + len(rest.scored) <= steps - steps // 2
        assert record_of(name) == reference
        assert outputs(name) == outputs(tmp_path / 'whole')


def test_corrected_labels_are_an_annotation_file_of_the_same_labels(
    shapes, wrong, sources, tmp_path
):
    options = dict(names=['one'], correct=1, measurer='clip')
    search, _ = go(shapes, wrong, sources, tmp_path, **options)
    before = read_annotations(wrong / 'one.jsonl')
    after = read_annotations(tmp_path / 'corrected/corrected_1/one.jsonl')
    lines = (tmp_path / 'corrected/corrected_1/one.jsonl').read_text().splitlines()
    rows = {row['sample_id']: row for row in map(json.loads, lines)}
    path = tmp_path / 'reliability/correction_1__one.npy'
    (file,) = search.dataset.label_files
    outcomes = read_outcomes(path, file)
    boxes = read_boxes(path, file)
    values = read_reliability(path, file)
    assert len(outcomes) == len(before) and {*outcomes} == {KEPT, MOVED, DROPPED}
    place = {name: index for index, name in enumerate(after.sample_ids)}
    for index, outcome in enumerate(outcomes):
        name = before.sample_ids[index]
        # Dropped labels are told by the table alone.
        assert (name in place) == (outcome != DROPPED)
        if outcome == DROPPED:
            assert np.isnan(boxes[index]).all() and values[index] == 0
            continue
        now, row = after.boxes[place[name]], rows[name]
        np.testing.assert_array_equal(now, boxes[index])
        np.testing.assert_array_equal(row['original_bbox'], before.boxes[index])
        assert row['outcome'] == ('kept' if outcome == KEPT else 'moved')
        assert (now == before.boxes[index]).all() == (outcome == KEPT)
        assert after.texts[place[name]] == before.texts[index]
    # Moved labels are mostly right, which they were not.
    truth = read_annotations(sources / 'one.jsonl').boxes
    moved = outcomes == MOVED
    assert (aligned_ious(boxes, truth)[moved] >= 0.5).mean() > 0.9
    assert (aligned_ious(before.boxes, truth)[moved] >= 0.5).mean() < 0.1
    # The training run reads it as any other file, for as many steps as all labels.
    cfg = Config.fromfile(tmp_path / 'trials/corrected_1/config.py')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert list(dataset.table.sample_ids) == list(after.sample_ids)
    assert cfg.train_dataloader.sampler.epoch_length == len(np.unique(before.images))
    (trial,) = record_of(tmp_path)['trials']
    (counts,) = trial['corrections']
    assert [counts[k] for k in ('kept', 'moved', 'dropped')] == [
        (outcomes == code).sum() for code in (KEPT, MOVED, DROPPED)
    ]
    assert trial['labels'] == len(after)


def test_who_votes(shapes, wrong, sources, tmp_path):
    models = ('one', 'two', 'agreement', 'one_fold0', 'one_fold1', 'corrected_1')
    sure = {(name, source): 1.0 for name in models for source in ('one', 'two')}

    def voters(name, rates=(), **options):
        rates = sure | dict(rates)
        go(shapes, wrong, sources, tmp_path / name, rates=rates, **options)
        return [
            {c['source']: c['measurers'] for c in trial['corrections']}
            for trial in record_of(tmp_path / name)['trials']
        ]

    one = dict(names=['one'], correct=2)
    assert voters('clip', measurer='clip', **one) == [
        dict(one=['one', 'agreement']),
        dict(one=['corrected_1', 'agreement']),
    ]
    halves = ['one_fold0', 'one_fold1']
    assert voters('halves', folds=2, **one) == [
        dict(one=halves),
        dict(one=['corrected_1', *halves]),
    ]
    assert voters('several', correct=2) == [
        dict(one=['one', 'two'], two=['two', 'one']),
        dict(one=['corrected_1', 'one', 'two'], two=['corrected_1', 'two', 'one']),
    ]
    # The model of 'two' guesses on 'one': it does not speak its language.
    foreign = {('two', 'one'): 0.0}
    assert voters('foreign', correct=1, measurer='clip', rates=foreign) == [
        dict(one=['one', 'agreement'], two=['two', 'agreement', 'one'])
    ]
    # It knows a little of it, clearly more than nothing and not half of what the
    # others know: its votes would outvote theirs.
    weak = voters('weak', correct=1, measurer='clip', rates={('two', 'one'): 0.66})
    assert weak == [dict(one=['one', 'agreement'], two=['two', 'agreement', 'one'])]
    rows = {
        (row['measurer'], row['source']): row
        for row in record_of(tmp_path / 'weak')['agreements']
    }
    above = {
        name: row['agreement'] - max(row['constant_box'], row['random_candidate'])
        for (name, source), row in rows.items()
        if source == 'one'
    }
    assert 0.1 < above['two'] < above['agreement'] / 2
    half = voters('half', correct=1, measurer='clip', rates={('two', 'one'): 0.8})
    assert half[0]['one'] == ['one', 'agreement', 'two']


def test_where_one_measurer_speaks_the_language_the_labels_stay(
    shapes, wrong, sources, tmp_path
):
    search, _ = go(
        *(shapes, wrong, sources, tmp_path),
        **dict(correct=1, rates={('two', 'one'): 0.0}),
    )
    (trial,) = record_of(tmp_path)['trials']
    counts = {c['source']: c for c in trial['corrections']}
    assert counts['one']['measurers'] == ['one']
    assert counts['one']['kept'] == search.files['one'].count
    assert counts['two']['moved'] > 0
    rows = record_of(tmp_path)['agreements']
    assert {(r['measurer'], r['source']) for r in rows} == {
        (a, b) for a in ('one', 'two') for b in ('one', 'two')
    }


def test_halves_of_the_images_both_score_every_label(shapes, wrong, sources, tmp_path):
    _, runs = go(
        *(shapes, wrong, sources, tmp_path), **dict(names=['one'], correct=1, folds=2)
    )
    seen = [runs.images[f'measurer_one_fold{fold}'] for fold in (0, 1)]
    assert not seen[0] & seen[1]
    for fold in (0, 1):
        assert runs.images[f'score_one_fold{fold}'] == seen[0] | seen[1]
        assert np.isfinite(
            np.load(tmp_path / f'reliability/one_fold{fold}__one.npy')
        ).all()


def test_what_cannot_be_corrected_is_named(shapes, wrong, sources, tmp_path):
    with pytest.raises(ValueError, match='--measurer.*--folds 2'):
        make(shapes, wrong, tmp_path, Voters(sources), names=['one'], correct=1)
    nobody = dict.fromkeys([('one', 'one'), ('agreement', 'one')], 0.0)
    # Boxes of one image that are nowhere: they agree with themselves and no label.
    runs = Voters(sources, nobody)
    runs.predict = lambda name, file: (
        np.zeros(file.count, np.float32),
        np.full((file.count, 4), np.nan, np.float32),
    )
    options = dict(names=['one'], correct=1, measurer='clip')
    search = make(shapes, wrong, tmp_path, runs, **options)
    with pytest.raises(ValueError, match='corrected_1: 0 labels'):
        search.run()
    assert runs.trained == ['measurer_one']


def test_how_the_original_files_are_read_says_nothing_of_corrected_ones(tmp_path):
    dataset = Config(
        dict(
            data=dict(
                type='RefExpDataset',
                ann_file=['instances.json', 'b.csv'],
                split_file=['refs(unc).p', None],
                split=dict(a='train', b='val'),
                source=['a', 'b'],
                fields=dict(text='caption'),
                int_boxes=True,
                box_format='xywh',
                held_out=dict(split='testA'),
                data_prefix=dict(img=dict(a='images/a', b='images/b')),
                upright=True,
            )
        )
    ).data
    before = dataset.to_dict()
    read = read_corrected(dataset, dict(b=tmp_path / 'b.jsonl'))
    assert read.to_dict() == dict(
        type='RefExpDataset',
        ann_file=[str(tmp_path / 'b.jsonl')],
        split=dict(b='val'),
        source=['b'],
        data_prefix=dict(img=''),
        upright=True,
    )
    assert dataset.to_dict() == before


def test_the_report_draws_what_was_moved(shapes, wrong, sources, tmp_path):
    options = dict(names=['one'], correct=1, measurer='clip')
    search, _ = go(shapes, wrong, sources, tmp_path, **options)
    page = write_report(tmp_path / 'curriculum.json', search.dataset)
    figures = {path.stem for path in (tmp_path / 'report').glob('*.png')}
    examples = {f'corrected_1_one_{what}' for what in ('kept', 'moved', 'dropped')}
    assert figures == {'histograms', 'outcomes', *examples}
    text = page.read_text()
    assert text.count('data:image/png;base64,') == len(figures)
    for trial in record_of(tmp_path)['trials']:
        for row in trial['corrections']:
            assert f'<td class="n">{row["moved"]}</td>' in text
