"""Synthetic expressions of several objects and of none are true, and no more is."""

import json
from collections import Counter

import numpy as np
import pytest

from benchmarks.confidence import has_no_referent
from benchmarks.label_truth import SET_VERDICTS, verdict_of_set
from projects.clip_vg.synthetic.any_targets import describe_none, describe_several
from projects.clip_vg.synthetic.data_set import make_synthetic
from projects.clip_vg.synthetic.expressions import Shape
from projects.clip_vg.synthetic.scenes import sample_scene
from projects.clip_vg_core.data.readers import read_annotations

SIZE = (160, 120)
OBJECTS = [
    Shape('star', 'red', 'small', (10, 10, 30, 30)),
    Shape('star', 'red', 'big', (100, 60, 150, 110)),
    Shape('circle', 'blue', 'small', (120, 10, 140, 30)),
    Shape('star', 'green', 'small', (10, 80, 30, 100)),
]


def every(describe, count=40):
    """Expressions of many scenes."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        size, objects = sample_scene(rng)
        for kind, text, indices in describe(size, objects, rng):
            yield kind, text, [objects[i].box for i in indices], size, objects


def test_several_are_all_that_is_meant():
    kinds = Counter()
    for kind, text, boxes, size, objects in every(describe_several):
        assert len(boxes) > 1
        assert verdict_of_set(text, boxes, size, objects) == 'right', text
        kinds[kind] += 1
    assert set(kinds) == {'several', 'several by place', 'several by name'}
    assert min(kinds.values()) > 20


def test_none_is_meant_by_what_no_object_is_called():
    def describe(size, objects, rng):
        return describe_none(objects, rng)

    kinds = Counter()
    for kind, text, boxes, size, objects in every(describe, 15):
        singular = text.removeprefix('all ').removeprefix('two ')
        for plural in ('ones', 'crosses', 'stars', 'circles', 'squares', 'diamonds'):
            singular = singular.replace(
                plural, plural[: -2 if 'sses' in plural else -1]
            )
        singular = singular.replace('triangles', 'triangle')
        assert not boxes and has_no_referent(singular, objects), text
        assert verdict_of_set(text, [], size, objects) == 'right', text
        kinds[kind] += 1
    assert len(kinds) == 4 and min(kinds.values()) > 20


def test_phrases_by_hand():
    rng = np.random.default_rng(0)
    found = {
        (t, i) for _ in range(40) for _, t, i in describe_several(SIZE, OBJECTS, rng)
    }
    assert {('red stars', (0, 1)), ('both red stars', (0, 1))} <= found
    assert {('three stars', (0, 1, 3)), ('stars on the left', (0, 3))} <= found
    assert ('both red stars on the left', (0, 1)) not in found
    assert {i for t, i in found if 'ones' in t and 'red' in t} == {(0, 1)}
    texts = {t for t, _ in found if ' and ' in t}
    assert {'green one and circle', 'blue circle and big red star'} <= texts


@pytest.mark.parametrize(
    ('text', 'indices', 'expected'),
    [
        ('red stars', (0, 1), 'right'),
        ('red stars', (1, 0), 'right'),
        ('stars', (0, 1), 'incomplete'),
        ('red stars', (0, 3), 'wrong attribute'),
        ('stars', (0, 2), 'wrong class'),
        ('stars on the left', (0, 1), 'wrong place'),
        ('both stars on the left', (0, 3), 'right'),
        ('stars', (0, 0), 'box off'),
        ('green one and circle', (2, 3), 'right'),
        ('green one and circle', (3,), 'incomplete'),
        ('red circle', (), 'right'),
        ('red circles', (), 'right'),
        ('circle', (), 'has a referent'),
        ('star', (), 'has a referent'),  # which one is not said
        ('red stars', (), 'has a referent'),
        ('circle', (2,), 'right'),
    ],
)
def test_verdicts_by_hand(text, indices, expected):
    boxes = [OBJECTS[index].box for index in indices]
    assert verdict_of_set(text, boxes, SIZE, OBJECTS) == expected
    assert expected in SET_VERDICTS


def test_all_else_is_as_with_one_target(any_shapes, shapes):
    for path in sorted(shapes.rglob('*.*')):
        if path.name != 'manifest.json':
            other = any_shapes / path.relative_to(shapes)
            assert other.read_bytes() == path.read_bytes()
    again = dict(train=24, val=6, test=6)
    assert make_synthetic(any_shapes, again, seed=3, targets='any') == any_shapes
    with pytest.raises(FileExistsError):
        make_synthetic(any_shapes, again, seed=3)
    with pytest.raises(ValueError, match="'many'"):
        make_synthetic(any_shapes, again, targets='many')


def test_it_is_read_as_grefcoco(any_shapes):
    folder = any_shapes / 'shapes'
    files = folder / 'instances.json', folder / 'grefs(synthetic).json'
    table = read_annotations(*files, targets='any')
    single = read_annotations(files[0], folder / 'refs(synthetic).p')
    refs = json.loads(files[1].read_text())
    counts = Counter(len(r['ann_id']) * (not r['no_target']) for r in refs)
    assert Counter(table.target_counts().tolist()) == counts
    assert counts[0] > 30 and counts[2] > 30 and counts[1] == len(single)
    ones = table.take(np.flatnonzero(table.target_counts() == 1))
    for one, other in zip(ones, single, strict=True):
        assert one.pop('bboxes') == [other.pop('bbox')]
        assert one == other
