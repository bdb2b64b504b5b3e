"""Scores of a file from elsewhere."""

import numpy as np
import pytest

from projects.clip_vg_core.curriculum.outside_scores import (
    mean_scores,
    read_outside_scores,
)


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
