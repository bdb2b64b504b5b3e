"""Models that are played: their errors come at the rates asked for."""

import json

import numpy as np
import pytest

from benchmarks.label_truth import verdict_of
from projects.clip_vg.synthetic.data_set import make_synthetic
from projects.clip_vg.synthetic.detections import (
    ErrorRates,
    read_shapes,
    simulate_predictions,
)
from projects.clip_vg.synthetic.scenes import COLORS, SHAPES
from projects.clip_vg_core.pseudo_labels.detection import iou

NONE = ErrorRates(**dict.fromkeys(ErrorRates.__dataclass_fields__, 0.0))


@pytest.fixture(scope='module')
def instances(tmp_path_factory):
    root = tmp_path_factory.mktemp('played') / 'data'
    return make_synthetic(root, dict(train=150), 5) / 'shapes' / 'instances.json'


def played(instances, out, **rates):
    simulate_predictions(instances, out, ErrorRates(**{**vars(NONE), **rates}))
    return [
        json.loads((out / f'{name}.json').read_text())
        for name in ('detections', 'triplets', 'captions')
    ]


def pairs(instances, detections):
    """Each detection with the true object that it overlaps most."""
    truth = {image['id']: objects for image, objects in read_shapes(instances)}
    for entry in detections:
        left, top, width, height = entry['bbox']
        box = (left, top, left + width, top + height)
        overlaps = [iou(box, item.box) for item in truth[entry['image_id']]]
        best = int(np.argmax(overlaps))
        yield entry, truth[entry['image_id']][best], overlaps[best]


def wrong_share(instances, detections):
    wrong = dict(misclassed=0, recolored=0, shifted=0)
    for entry, item, overlap in pairs(instances, detections):
        wrong['misclassed'] += SHAPES[entry['category_id'] - 1] != item.shape
        wrong['recolored'] += set(entry['attributes']) != {item.color}
        wrong['shifted'] += overlap < 0.5
    return {key: count / len(detections) for key, count in wrong.items()}


def test_without_errors_all_objects_are_found_as_they_are(instances, tmp_path):
    detections, _, captions = played(instances, tmp_path)
    everything = sum(len(objects) for _, objects in read_shapes(instances))
    assert len(detections) == everything
    assert wrong_share(instances, detections) == dict.fromkeys(
        ('misclassed', 'recolored', 'shifted'), 0
    )
    assert len(captions) == 150


@pytest.mark.parametrize('error', ['misclassed', 'recolored', 'shifted'])
def test_an_error_comes_at_its_rate_and_brings_no_other(instances, tmp_path, error):
    detections, *_ = played(instances, tmp_path, **{error: 0.3})
    shares = wrong_share(instances, detections)
    # About 590 objects: four standard deviations are 0.08.
    assert shares.pop(error) == pytest.approx(0.3, abs=0.08)
    assert set(shares.values()) == {0}


@pytest.mark.parametrize(('error', 'factor'), [('missed', 0.7), ('doubled', 1.3)])
def test_objects_that_are_missed_or_doubled(instances, tmp_path, error, factor):
    detections, *_ = played(instances, tmp_path, **{error: 0.3})
    everything = sum(len(objects) for _, objects in read_shapes(instances))
    assert len(detections) / everything == pytest.approx(factor, abs=0.08)


def test_relations_and_captions_are_true_but_for_their_errors(instances, tmp_path):
    truth = {
        image['id']: ((image['width'], image['height']), objects)
        for image, objects in read_shapes(instances)
    }

    def shares(triplets):
        verdicts = []
        for entry in triplets:
            left, top, width, height = entry['subject']['bbox']
            text = (
                f'{entry["subject"]["name"]} {entry["predicate"]} '
                f'{entry["object"]["name"]}'
            )
            box = (left, top, left + width, top + height)
            verdicts.append(verdict_of(text, box, *truth[entry['image_id']]))
        return {v: verdicts.count(v) / len(verdicts) for v in set(verdicts)}

    _, clean, captions = played(instances, tmp_path)
    assert set(shares(clean)) <= {'right', 'ambiguous'}
    _, spoilt, _ = played(instances, tmp_path / 'b', relation=0.5)
    # Of two objects diagonal to each other, two predicates hold.
    assert 0.2 < shares(spoilt)['wrong relation'] < 0.5
    words = {word for entry in captions for word in entry['caption'].split()}
    assert words >= {*COLORS, *SHAPES, 'left', 'right'}


def test_the_same_seed_says_the_same(instances, tmp_path):
    for name, seed in (('a', 1), ('b', 1), ('c', 2)):
        simulate_predictions(instances, tmp_path / name, seed=seed)
    texts = [
        (tmp_path / name / 'detections.json').read_text() for name in ('a', 'b', 'c')
    ]
    assert texts[0] == texts[1] != texts[2]
