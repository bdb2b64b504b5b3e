"""Expressions that refer to nothing, checked against the truth of the scenes."""

import numpy as np
import pytest

from benchmarks.confidence import change_word, has_no_referent
from benchmarks.label_truth import verdict_of
from projects.clip_vg.synthetic.detections import read_shapes
from projects.clip_vg.synthetic.expressions import Shape
from projects.clip_vg_core.data.readers import read_annotations

SIZE = (160, 120)
OBJECTS = [
    Shape('circle', 'red', 'small', (10, 10, 30, 30)),
    Shape('circle', 'blue', 'big', (100, 60, 150, 110)),
    Shape('star', 'red', 'small', (60, 10, 80, 30)),
]


@pytest.mark.parametrize(
    ('text', 'nothing'),
    [
        ('red circle', False),
        ('circle', False),  # several are meant: not nothing
        ('blue star', True),
        ('green one', True),
        ('red one on the left', False),
        ('big star', True),
        ('leftmost square', True),
        ('object at the top', False),
        ('biggest thing', False),
        ('star left of the green square', False),  # a star there is
        ('square left of the red star', True),
    ],
)
def test_whether_anything_has_the_name(text, nothing):
    assert has_no_referent(text, OBJECTS) == nothing


@pytest.fixture(scope='module')
def scenes(shapes):
    """Truth and labels of the images: (size, objects, labels)."""
    instances = shapes / 'shapes' / 'instances.json'
    labels = {}
    for label in read_annotations(instances, shapes / 'shapes' / 'refs(synthetic).p'):
        labels.setdefault(label['image'], []).append(label)
    return [
        ((image['width'], image['height']), objects, labels[image['file_name']])
        for image, objects in read_shapes(instances)
    ]


def test_a_label_refers_to_something(scenes):
    for _, objects, labels in scenes:
        for label in labels:
            assert not has_no_referent(label['text'], objects), label['text']


def test_a_twin_differs_by_a_word_and_is_wrong(scenes):
    rng, found = np.random.default_rng(0), 0
    for size, objects, labels in scenes:
        for label in labels:
            text = label['text']
            twin = change_word(text, objects, rng)
            if twin is None:
                assert not set(text.split()[:3]) & {'circle', 'star', 'red', 'blue'}
                continue
            found += 1
            pairs = zip(text.split(), twin.split(), strict=True)
            assert sum(one != other for one, other in pairs) == 1
            verdicts = {verdict_of(twin, item.box, size, objects) for item in objects}
            assert verdicts <= {'wrong class', 'wrong attribute'}, (text, twin)
    assert found > 100


def test_twins_come_from_the_seed_alone():
    twins = [
        change_word('red circle', OBJECTS, np.random.default_rng(seed))
        for seed in (1, 1, 2, 3, 4)
    ]
    assert twins[0] == twins[1]
    assert len(set(twins)) > 1


def test_what_names_neither_colour_nor_shape_has_no_twin():
    assert change_word('largest object', OBJECTS, np.random.default_rng(0)) is None
