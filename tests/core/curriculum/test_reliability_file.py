"""Reliability files: what is written is read, and nothing foreign or damaged is."""

import json
from dataclasses import replace

import numpy as np
import pytest

from projects.clip_vg_core.curriculum.reliability_file import (
    ReliabilityFile,
    read_boxes,
    read_reliability,
)
from projects.clip_vg_core.data.label_files import LabelFile
from projects.clip_vg_core.utils.atomic import file_sha256

KEYS = np.arange(6, dtype=np.uint64) ** np.uint64(9)
LABELS = LabelFile('labels', 'template', 'train', 6, 'a' * 64, KEYS)
MEASURER = dict(name='m', sha256='1' * 64, config='clip_vg.py')
TRANSFORMS = [dict(type='PILResize', size=(32, 32))]  # a tuple: JSON makes it a list


def make(folder, labels=LABELS, transforms=TRANSFORMS, **measurer):
    return ReliabilityFile(folder, dict(MEASURER, **measurer), labels, transforms)


def written(folder):
    """A file with values at places 4 and 1, as another process left it."""
    store = make(folder)
    store.write(KEYS[[4, 1]], np.array([0.25, 1.0]), np.arange(8).reshape(2, 4))
    store.flush()
    return store.path


EXPECTED = np.array([np.nan, 1, np.nan, np.nan, 0.25, np.nan], np.float32)


def test_round_trip_with_nan_where_nothing_is_written(tmp_path):
    path = written(tmp_path)
    values = read_reliability(path, LABELS)
    assert path == tmp_path / 'm__template.npy'
    assert np.array_equal(values, EXPECTED, equal_nan=True)
    assert values.dtype == np.float32
    assert isinstance(values, np.memmap) and not values.flags.writeable
    boxes = np.load(tmp_path / 'm__template.boxes.npy')
    assert boxes[[4, 1]].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert np.isnan(boxes[[0, 2, 3, 5]]).all()


def test_names_of_the_data_stay_in_the_folder(tmp_path):
    """A label's source that is a path once overwrote a file of the user."""
    (tmp_path / 'victim').mkdir()
    labels = replace(LABELS, source='/../../victim/x')
    path = make(tmp_path / 'a' / 'rel', labels, name='../../../victim/y').path
    assert path.parent == tmp_path / 'a' / 'rel'
    assert not list((tmp_path / 'victim').iterdir())


def test_what_is_written_is_seen_at_once(tmp_path):
    store = make(tmp_path)
    assert np.isnan(read_reliability(store.path)).all()
    store.write(KEYS[[3]], np.array([0.5]), np.ones((1, 4)))
    assert read_reliability(store.path)[3] == 0.5


def test_the_manifest_says_what_it_belongs_to(tmp_path):
    manifest = json.loads(written(tmp_path).with_suffix('.json').read_text())
    assert manifest['measurer'] == MEASURER
    assert LabelFile(**manifest['labels'], content=KEYS) == LABELS
    assert manifest['keys'] == 'labels'
    assert manifest['transforms'] == [dict(type='PILResize', size=[32, 32])]


def test_going_on_keeps_what_is_there(tmp_path):
    written(tmp_path)
    store = make(tmp_path)
    assert np.array_equal(store.values, EXPECTED, equal_nan=True)
    store.write(KEYS[[0]], np.array([0.0]), np.zeros((1, 4)))
    values = read_reliability(store.path)
    assert values[[0, 1, 4]].tolist() == [0, 1, 0.25]


def test_a_label_counts_as_scored_only_after_its_box(tmp_path):
    store = make(tmp_path)
    with pytest.raises(ValueError, match='broadcast'):
        store.write(KEYS[[0, 1]], np.array([0.5, 0.5]), np.ones((3, 4)))
    assert np.isnan(store.values).all()


def test_nothing_half_made_is_left_or_taken_up(tmp_path):
    path = written(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        'm__template.boxes.npy',
        'm__template.json',
        'm__template.keys.npy',
        'm__template.npy',
    ]
    # Interrupted after the manifest: it begins anew.
    path.unlink()
    path.with_suffix('.boxes.npy').unlink()
    assert np.isnan(make(tmp_path).values).all()


def make_old(path):
    """Turn files into those of version 0.1, which had no keys."""
    path.with_suffix('.keys.npy').unlink()
    manifest = json.loads(path.with_suffix('.json').read_text())
    del manifest['keys']
    path.with_suffix('.json').write_text(json.dumps(manifest))
    return path


SEVEN = replace(LABELS, count=7, content=np.arange(7, dtype=np.uint64))
OTHER = [
    (SEVEN, '7 labels of labels'),
    (replace(LABELS, sample_ids_sha256='b' * 64, file='new'), 'labels of new.*b{12}'),
]


@pytest.mark.parametrize(('labels', 'named'), OTHER)
def test_other_labels_are_refused_by_the_writer_and_the_reader(tmp_path, labels, named):
    path = make_old(written(tmp_path))
    for refused in (
        lambda: make(tmp_path, labels),
        lambda: read_reliability(path, labels),
    ):
        with pytest.raises(ValueError, match=rf'6 labels of labels.*a{{12}}.*{named}'):
            refused()
    assert np.array_equal(read_reliability(path, LABELS), EXPECTED, equal_nan=True)


def test_a_file_without_keys_is_resumed_and_gets_keys(tmp_path):
    path = make_old(written(tmp_path))
    assert np.array_equal(read_reliability(path, LABELS), EXPECTED, equal_nan=True)
    store = make(tmp_path)
    assert np.array_equal(store.values, EXPECTED, equal_nan=True)
    assert store.boxes[[4, 1]].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert np.array_equal(np.load(path.with_suffix('.keys.npy')), KEYS)


def test_labels_are_joined_by_their_keys(tmp_path):
    """The slow reference: a dict from key to score."""
    path = written(tmp_path)
    known = dict(zip(KEYS.tolist(), EXPECTED.tolist(), strict=True))
    order = np.array([4, 0, 1])
    labels = replace(LABELS, count=3, content=KEYS[order])
    expected = [known[key] for key in labels.keys.tolist()]
    assert read_reliability(path, labels) == pytest.approx(expected, nan_ok=True)
    assert read_boxes(path, labels)[[0, 2]].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    unknown = replace(LABELS, count=2, content=np.array([1, 7], np.uint64))
    with pytest.raises(ValueError, match=r'1 of the 2 labels of labels.*\[1\]'):
        read_reliability(path, unknown)


def test_a_scoring_takes_over_the_labels_that_are_the_same(tmp_path):
    written(tmp_path)
    keys = np.array([KEYS[4], 7, KEYS[1], KEYS[0]], np.uint64)
    labels = replace(LABELS, count=4, content=keys, sample_ids_sha256='c' * 64)
    store = make(tmp_path, labels)
    expected = [0.25, np.nan, 1, np.nan]
    assert store.values == pytest.approx(expected, nan_ok=True)
    assert store.is_scored(keys[::-1]).tolist() == [False, True, False, True]
    with pytest.raises(ValueError, match='1 of 2 keys'):
        store.write(np.array([7, 8], np.uint64), np.zeros(2))
    with pytest.raises(TypeError, match='int64'):  # indices are no keys
        store.write(np.array([1, 2]), np.zeros(2))


@pytest.mark.parametrize(
    ('other', 'named'),
    [
        (dict(sha256='2' * 64), r'm__template\.npy.*sha256.*1{64}.*2{64}'),
        (dict(config='b.py'), r'm__template\.npy.*config.*clip_vg\.py.*b\.py'),
        (dict(transforms=[dict(type='X')]), 'transforms.*PILResize.*X'),
    ],
)
def test_another_measurer_or_other_transforms_are_refused(tmp_path, other, named):
    path = written(tmp_path)
    with pytest.raises(ValueError, match=named):
        make(tmp_path, **other)
    assert np.array_equal(read_reliability(path), EXPECTED, equal_nan=True)


def test_scores_of_version_0_1_go_on_with_the_loader_that_it_ran(tmp_path):
    mmcv = dict(type='LoadImageFromFile', imdecode_backend='pillow')
    ours = dict(type='LoadGroundingImage')
    store = make(tmp_path, transforms=[mmcv, *TRANSFORMS])
    store.write(KEYS[[3]], np.array([0.5]), np.ones((1, 4)))
    store.flush()
    again = make(tmp_path, transforms=[mmcv, ours, *TRANSFORMS])
    assert read_reliability(again.path)[3] == 0.5
    with pytest.raises(ValueError, match='transforms'):
        make(tmp_path, transforms=[mmcv, ours])


def test_a_missing_file_or_manifest_is_named_with_the_tool(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'gone__a\.npy.*score_reliability'):
        read_reliability(tmp_path / 'gone__a.npy')
    path = written(tmp_path)
    path.with_suffix('.json').unlink()
    for refused in (lambda: read_reliability(path), lambda: make(tmp_path)):
        with pytest.raises(FileNotFoundError, match=r'm__template\.json.*missing'):
            refused()


@pytest.mark.parametrize(
    'text', ['', '{"labels"', '[]', '{}', '{"labels": {"count": 6}}', '{"labels": 6}']
)
def test_a_damaged_manifest_is_named(tmp_path, text):
    path = written(tmp_path)
    path.with_suffix('.json').write_text(text)
    for refused in (lambda: read_reliability(path), lambda: make(tmp_path)):
        with pytest.raises(ValueError, match=r'm__template\.json is no manifest'):
            refused()


@pytest.mark.parametrize('keep', [0, 5, 60, 130, -1])  # the header has 128 bytes
def test_a_truncated_file_is_named_with_its_size(tmp_path, keep):
    path = written(tmp_path)
    data = path.read_bytes()[:keep]
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf'm__template\.npy \({len(data)} bytes'):
        read_reliability(path)


@pytest.mark.parametrize('name', ['m__template.npy', 'm__template.boxes.npy'])
@pytest.mark.parametrize('keep', [0, 5, 60, 130, -1])
def test_no_scoring_goes_on_in_a_truncated_file(tmp_path, name, keep):
    data = written(tmp_path).with_name(name).read_bytes()[:keep]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=rf'{name} \({len(data)} bytes'):
        make(tmp_path)


class Bomb:
    """Unpickled, it would leave a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def test_a_pickle_in_an_array_is_refused_and_not_run(tmp_path):
    path, left = written(tmp_path), tmp_path / 'left'
    np.save(path, np.array([Bomb(left)] * 6, object), allow_pickle=True)
    with pytest.raises(ValueError, match=r'm__template\.npy.*cannot be read'):
        read_reliability(path)
    assert not left.exists()


@pytest.mark.parametrize('values', [np.zeros(5, 'f4'), np.zeros(6), np.zeros(6, 'i4')])
def test_an_array_of_another_kind_or_length_is_refused(tmp_path, values):
    path = written(tmp_path)
    np.save(path, values)
    with pytest.raises(ValueError, match=rf'{values.dtype}.*{len(values)}.*6 labels'):
        read_reliability(path)


@pytest.mark.parametrize('wrong', [-0.5, 1.25, np.inf, -np.inf])
def test_a_value_that_is_no_reliability_is_named_with_its_place(tmp_path, wrong):
    store = make(tmp_path)
    store.write(KEYS[[2, 5]], np.array([wrong, wrong]), np.zeros((2, 4)))
    with pytest.raises(ValueError, match=rf'label 2: reliability {wrong}.*\[0, 1\]'):
        read_reliability(store.path)


def test_the_sha256_of_a_file(tmp_path):
    path = tmp_path / 'file'
    path.write_bytes(b'abc')
    # FIPS 180-4, the example of one block.
    assert file_sha256(path).startswith('ba7816bf8f01cfea414140de5dae2223')
    path.write_bytes(b'a' * 1_000_000)  # and the one of a million "a"
    assert file_sha256(path).startswith('cdc76e5c9914fb9281a1c7e284d73e67')
    path.write_bytes(bytes(3 << 20))  # more than a block read at once
    whole = file_sha256(path)
    path.write_bytes(bytes(2 << 20))
    assert file_sha256(path) != whole


def test_without_its_boxes_the_scores_stay_and_are_checked(tmp_path):
    path = written(tmp_path)
    path.with_suffix('.boxes.npy').unlink()
    with pytest.raises(ValueError, match='sha256'):
        make(tmp_path, sha256='another')
    store = make(tmp_path)
    assert np.array_equal(store.values, EXPECTED, equal_nan=True)
    assert np.isnan(store.boxes).all()


@pytest.mark.parametrize('array', [np.float32(0.5), np.zeros((6, 4), np.float32)])
def test_an_array_of_another_shape_is_named(tmp_path, array):
    path = written(tmp_path)
    np.save(path, array)
    with pytest.raises(ValueError, match='of shape'):
        read_reliability(path)
