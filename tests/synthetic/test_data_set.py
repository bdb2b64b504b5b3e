"""Synthetic images: every expression is true of one object only."""

import json

import numpy as np
import pytest
from PIL import Image

from projects.clip_vg.synthetic.data_set import make_synthetic
from projects.clip_vg.synthetic.expressions import Shape, describe
from projects.clip_vg.synthetic.scenes import sample_scene
from projects.clip_vg_core.data.readers import read_annotations


def shape(kind, color, left, top, side=20, size='small'):
    return Shape(kind, color, size, (left, top, left + side, top + side))


def texts_of(objects):
    rng = np.random.default_rng(0)
    return {(t, i) for _, t, i in describe((160, 120), objects, rng)}


def test_a_name_that_fits_two_is_not_used():
    objects = [shape('star', 'red', 10, 10), shape('star', 'blue', 100, 10)]
    texts = texts_of(objects)
    assert ('red star', 0) in texts and ('blue one', 1) in texts
    assert 'star' not in {t for t, _ in texts}


def test_places_need_a_margin():
    close = [shape('star', 'red', 50, 10), shape('star', 'blue', 54, 50)]
    assert not any('left' in t or 'right' in t for t, _ in texts_of(close))
    far = [shape('star', 'red', 10, 10), shape('star', 'blue', 100, 10)]
    sided = {i for t, i in texts_of(far) if 'left' in t and 'star' in t}
    assert sided == {0}


def test_relations_tell_apart_things_of_one_shape():
    objects = [
        shape('star', 'red', 10, 50),
        shape('star', 'red', 130, 50),
        shape('square', 'blue', 70, 50),
    ]
    texts = texts_of(objects)
    assert ('star left of the square', 0) in texts
    assert ('star right of the square', 1) in texts


def satisfied(text, objects, size):
    """Slow reference: the objects that an attribute or extreme phrase fits."""
    words = text.replace(' one', '').split()
    extremes = {'leftmost': (0, -1), 'rightmost': (0, 1), 'uppermost': (1, -1)}
    extremes['lowest'] = (1, 1)
    pool = [
        i
        for i, o in enumerate(objects)
        if all(
            w in (o.shape, o.color, o.size, 'object') or w in extremes for w in words
        )
    ]
    for word in words:
        if word in extremes:
            axis, sign = extremes[word]
            pool = [max(pool, key=lambda i: sign * objects[i].center[axis])]
    return pool


@pytest.mark.parametrize('seed', range(30))
def test_expressions_hold_in_drawn_scenes(seed):
    rng = np.random.default_rng(seed)
    size, objects = sample_scene(rng)
    vocabulary = {'leftmost', 'rightmost', 'uppermost', 'lowest', 'object', 'one'}
    for _, text, index in describe(size, objects, rng):
        words = set(text.split())
        known = vocabulary | {w for o in objects for w in (o.shape, o.color, o.size)}
        if words <= known:
            assert satisfied(text, objects, size) == [index], text


def test_the_same_seed_gives_the_same_bytes(tmp_path, shapes):
    again = make_synthetic(tmp_path / 'again', dict(train=24, val=6, test=6), seed=3)
    for path in sorted(shapes.rglob('*.*')):
        assert (again / path.relative_to(shapes)).read_bytes() == path.read_bytes()


def test_images_of_a_split_do_not_depend_on_the_others(tmp_path, shapes):
    alone = make_synthetic(tmp_path / 'alone', dict(test=6), seed=3)
    files = [r / 'shapes/instances.json' for r in (shapes, alone)]
    full, part = (json.loads(f.read_text())['annotations'] for f in files)
    assert [a['bbox'] for a in full[-len(part) :]] == [a['bbox'] for a in part]


def test_it_is_read_as_refer(shapes):
    table = read_annotations(
        shapes / 'shapes/instances.json', shapes / 'shapes/refs(synthetic).p'
    )
    assert set(table.split_names) == {'train', 'val', 'test'}
    assert len(table) > 100


def test_nothing_is_overwritten(tmp_path, shapes):
    assert make_synthetic(shapes, dict(train=24, val=6, test=6), seed=3) == shapes
    with pytest.raises(FileExistsError, match=r"shapes .*'seed': 4"):
        make_synthetic(shapes, dict(train=24, val=6, test=6), seed=4)


def test_an_interrupted_making_leaves_nothing(tmp_path, monkeypatch):
    from projects.clip_vg.synthetic import data_set as synthetic

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, 'draw', killed)
    with pytest.raises(KeyboardInterrupt):
        make_synthetic(tmp_path / 'data', dict(train=2))
    assert list(tmp_path.iterdir()) == []


def test_a_larger_drawing_is_of_the_same_scene(tmp_path):
    small, large = (
        make_synthetic(tmp_path / str(scale), dict(test=3), seed=4, scale=scale)
        for scale in (1, 3)
    )
    both = [
        json.loads((root / 'shapes' / 'instances.json').read_text())
        for root in (small, large)
    ]
    assert len(both[0]['annotations']) == len(both[1]['annotations'])
    for one, other in zip(*(d['annotations'] for d in both), strict=True):
        assert (one['color'], one['category_id']) == (
            other['color'],
            other['category_id'],
        )
        # Boxes are rounded to 0.01 pixels in both.
        np.testing.assert_allclose(
            np.multiply(one['bbox'], 3), other['bbox'], atol=0.06
        )
    for one, other in zip(*(d['images'] for d in both), strict=True):
        assert (one['width'] * 3, one['height'] * 3) == (
            other['width'],
            other['height'],
        )
        with Image.open(large / 'images' / other['file_name']) as image:
            assert image.size == (other['width'], other['height'])


def test_a_data_set_of_an_earlier_version_is_the_same_one(tmp_path):
    manifest = dict(  # as version 0.1 wrote it
        generator='projects.clip_vg.datasets.synthetic',
        version=1,
        seed=5,
        images=dict(test=1),
        max_expressions=6,
    )
    (tmp_path / 'shapes').mkdir()
    (tmp_path / 'shapes' / 'manifest.json').write_text(json.dumps(manifest))
    assert make_synthetic(tmp_path, dict(test=1), seed=5) == tmp_path
    assert not (tmp_path / 'images').exists()  # nothing is made anew
