"""Corrected labels on disk: an annotation file again, and a table of outcomes."""

import json
from dataclasses import replace

import numpy as np
import pytest

from projects.clip_vg_core.curriculum.corrected_files import (
    count_outcomes,
    write_corrected,
    write_outcomes,
)
from projects.clip_vg_core.curriculum.correction import (
    DROPPED,
    KEPT,
    MOVED,
    Correction,
)
from projects.clip_vg_core.curriculum.reliability_file import (
    ReliabilityFile,
    read_boxes,
    read_outcomes,
    read_reliability,
)
from projects.clip_vg_core.data.label_files import describe_files
from projects.clip_vg_core.data.readers import read_annotations, write_odvg

OUTCOME = np.array([KEPT, MOVED, DROPPED, MOVED], np.int8)


@pytest.fixture
def labels(tmp_path):
    """Four labels of two images with boxes of fractions, as they are read."""
    path = tmp_path / 'mine.jsonl'
    with path.open('w') as file:
        for number in range(4):
            box = [number + 0.1, 2.3, number + 20.7, 30.9]
            text = f'der {number}. Kreis "links"'
            line = dict(
                filename=f'{number // 2}.jpg',
                height=90,
                width=120,
                grounding=dict(caption=text, regions=[dict(bbox=box, phrase=text)]),
                sample_id=f'id {number}',
                split='train',
                source='caption',
            )
            file.write(json.dumps(line) + '\n')
    return read_annotations(path)


@pytest.fixture
def correction(labels):
    boxes = labels.boxes.copy()
    boxes[1] = (40.25, 41.5, 60.1, 61.7)
    boxes[3] = (1, 2.5, 22, 31)  # overlaps the old one
    return Correction(boxes, OUTCOME)


def test_corrected_labels_are_read_back(tmp_path, labels, correction):
    path = tmp_path / 'corrected.jsonl'
    write_corrected(path, labels, correction)
    read = read_annotations(path)
    left = [0, 1, 3]
    np.testing.assert_array_equal(read.boxes, correction.boxes[left])
    for name in ('texts', 'sample_ids'):
        expected = [getattr(labels, name)[i] for i in left]
        assert list(getattr(read, name)) == expected
    assert read.source_names == ('caption',) and read.split_names == ('train',)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row['outcome'] for row in rows] == ['kept', 'moved', 'moved']
    before = np.array([row['original_bbox'] for row in rows], np.float32)
    np.testing.assert_array_equal(before, labels.boxes[left])
    # Nothing corrected: the same labels.
    kept = Correction(labels.boxes, np.zeros(4, np.int8))
    write_corrected(path, labels, kept)
    np.testing.assert_array_equal(read_annotations(path).boxes, labels.boxes)


def test_extras_are_one_for_each_label(tmp_path, labels):
    write_odvg(labels, tmp_path / 'a.jsonl', extras=[dict(n=i) for i in range(4)])
    lines = (tmp_path / 'a.jsonl').read_text().splitlines()
    assert [json.loads(line)['n'] for line in lines] == [0, 1, 2, 3]


def test_outcomes_belong_to_labels_by_their_keys(tmp_path, labels, correction):
    (file,) = describe_files([labels], ['mine'], None)
    # The last label was not corrected, as of a held-out image.
    some = np.arange(3)
    part = Correction(correction.boxes[some], correction.outcome[some])
    path = write_outcomes(
        *(tmp_path, dict(name='correction_1'), file, file.keys[some]),
        *(labels.boxes[some], part),
    )
    assert path == tmp_path / 'correction_1__caption.npy'
    assert read_outcomes(path, file).tolist() == [KEPT, MOVED, DROPPED, -1]
    boxes = read_boxes(path, file)
    np.testing.assert_array_equal(boxes[:2], correction.boxes[:2])
    assert np.isnan(boxes[2:]).all()
    values = read_reliability(path, file)
    assert values[:3].tolist() == [1.0, 0.0, 0.0] and np.isnan(values[3])
    # In another order, and not of labels whose box is another one.
    turned = replace(labels.take(np.arange(4)[::-1]), rows=None)
    (other,) = describe_files([turned], ['mine'], None)
    assert read_outcomes(path, other).tolist() == [-1, DROPPED, MOVED, KEPT]
    (changed,) = describe_files(
        [replace(labels, boxes=correction.boxes)], ['mine'], None
    )
    with pytest.raises(ValueError, match=r'correction_1__caption.*2 of the 4'):
        read_outcomes(path, changed)
    # Scores of other labels under the old name have no outcomes of these.
    ReliabilityFile(tmp_path, dict(name='correction_1'), changed)
    with pytest.raises(FileNotFoundError, match='outcome'):
        read_outcomes(path, changed)


def test_damaged_outcomes_are_named(tmp_path, labels, correction):
    (file,) = describe_files([labels], ['mine'], None)
    path = write_outcomes(
        *(tmp_path, dict(name='c'), file, file.keys, labels.boxes, correction)
    )
    values = read_reliability(path, file)
    assert values[0] == 1 and values[1] == 0 and 0.5 < values[3] < 1
    np.save(path.with_suffix('.outcome.npy'), np.zeros(4, np.float32))
    with pytest.raises(ValueError, match='float32.*int8'):
        read_outcomes(path, file)


def test_counts_have_every_outcome():
    assert count_outcomes(OUTCOME) == dict(kept=1, moved=2, dropped=1)
    assert count_outcomes(np.zeros(3, np.int8)) == dict(kept=3, moved=0, dropped=0)
