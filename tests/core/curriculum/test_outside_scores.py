"""Scores of a file from elsewhere."""

import numpy as np
import pytest

from projects.clip_vg_core.curriculum.outside_scores import (
    mean_scores,
    read_outside_predictions,
    read_outside_scores,
    write_outside_scores,
)
from projects.clip_vg_core.curriculum.reliability_file import (
    read_boxes,
    read_reliability,
)
from projects.clip_vg_core.data.label_files import LabelFile


@pytest.mark.parametrize(
    'name, text',
    [
        ('a.csv', 'sample_id,note,probability\na_1,x,0.5\n7,y,1\n'),
        ('a.jsonl', '{"sample_id": "a_1", "probability": 0.5}\n'
         '{"sample_id": 7, "probability": 1}\n'),
    ],
)  # fmt: skip
def test_csv_and_json_lines_are_read(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_outside_scores(tmp_path / name) == {'a_1': 0.5, '7': 1.0}


@pytest.mark.parametrize(
    'text, named',
    [
        ('sample_id,probability\na,0.5\nb,1.5\n', 'row 3.*1.5'),
        ('sample_id,probability\na,nan\n', 'row 2.*nan'),
        ('sample_id,probability\na,\n', "row 2.*''"),
        ('sample_id,probability\na,0.5\na,0.6\n', "row 3.*'a'.*0.5"),
        ('sample_id,score\na,0.5\n', 'row 2.*score'),
        ('sample_id,probability\n', 'a.csv'),
    ],
)
def test_what_cannot_be_a_score_is_named(tmp_path, text, named):
    (tmp_path / 'a.csv').write_text(text)
    with pytest.raises(ValueError, match=named):
        read_outside_scores(tmp_path / 'a.csv')


def test_the_mean_is_unknown_where_one_is():
    first = np.array([0.2, np.nan, 1.0]), np.zeros((3, 4))
    second = np.array([0.4, 0.5, 0.0]), np.ones((3, 4))
    values, boxes = mean_scores([first, second])
    np.testing.assert_allclose(values, [0.3, np.nan, 0.5])
    assert not boxes.any()


@pytest.mark.parametrize(
    'name, text',
    [
        ('a.csv', 'sample_id,bbox,probability\na,1 2 3.5 4,\nb,"5, 6, 7, 8",0.5\n'
         'c,,0.25\n'),
        ('a.jsonl', '{"sample_id": "a", "bbox": [1, 2, 3.5, 4]}\n'
         '{"sample_id": "b", "bbox": [5, 6, 7, 8], "probability": 0.5}\n'
         '{"sample_id": "c", "bbox": null, "probability": 0.25}\n'),
    ],
)  # fmt: skip
def test_boxes_are_read_beside_or_in_the_place_of_scores(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    read = read_outside_predictions(tmp_path / name)
    assert read['b'] == (0.5, (5, 6, 7, 8))
    assert read['a'][1] == (1, 2, 3.5, 4) and np.isnan(read['a'][0])
    assert read['c'][0] == 0.25 and np.isnan(read['c'][1]).all()
    # A label that could not be read has no key here, but a row in the file.
    file = LabelFile('f', 's', None, 4, 'a' * 64, np.arange(4, dtype=np.uint64))
    keys, boxes = file.keys[[0, 2, 3]], np.array([[1, 2, 3.5, 5]] * 3, np.float32)
    labels = dict(s=(['a', 'b', 'c'], keys, boxes))
    write_outside_scores(tmp_path / name, labels, [file], tmp_path, 'm')
    values = read_reliability(tmp_path / 'm__s.npy', file)
    # Two of three rows of pixels are shared.
    assert values[[0, 2, 3]] == pytest.approx([2 / 3, 0.5, 0.25])
    assert np.isnan(values[1])
    predicted = read_boxes(tmp_path / 'm__s.npy', file)
    assert predicted[[0, 2]].tolist() == [[1, 2, 3.5, 4], [5, 6, 7, 8]]
    assert np.isnan(predicted[[1, 3]]).all()


@pytest.mark.parametrize('box', ['1 2 3', '3 2 1 4', '1 2 x 4', '1 2 inf 4'])
def test_what_is_no_box_is_named(tmp_path, box):
    (tmp_path / 'a.csv').write_text(f'sample_id,bbox\na,{box}\n')
    with pytest.raises(ValueError, match=f"row 2.*'{box}'"):
        read_outside_predictions(tmp_path / 'a.csv')
