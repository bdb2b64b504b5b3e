"""Files of predicted boxes of any model: what is read of them, and what is refused."""

import json
import math

import numpy as np
import pytest

from projects.clip_vg_core.metrics.predictions_file import parse_box, read_predictions

ROW = dict(image='a.jpg', text='left cup', bbox=[1, 2, 3, 4])


def write(path, text):
    path.write_text(text, encoding='utf-8')
    return path


@pytest.mark.parametrize(
    'text, box',
    [
        ('[10, 20.5, 30, 40]', [10, 20.5, 30, 40]),
        ('The cup is at [0.1,0.2,0.3,0.4].', [0.1, 0.2, 0.3, 0.4]),
        ('<ref>cup</ref><box>(10,20),(30,40)</box>', [10, 20, 30, 40]),
        (
            '```json\n[{"bbox_2d": [10, 20, 30, 40], "label": "cup"}]\n```',
            [10, 20, 30, 40],
        ),
        ('cup<loc_10><loc_20><loc_30><loc_40>', [10, 20, 30, 40]),
        ('{<10><20><30><40>}', [10, 20, 30, 40]),
        ('10 20 30 40', [10, 20, 30, 40]),
        ('<think>two of 3 cups [1, 2]</think> [10, 20, 30, 40]', [10, 20, 30, 40]),
        ('[-1e1, 20, 30, 40]', [-10, 20, 30, 40]),
    ],
)
def test_a_box_is_found_in_the_text_of_a_model(text, box):
    assert parse_box(text, 'here') == box


@pytest.mark.parametrize('value', ['There is none.', '', None, [], '[1, 2, 3]'])
def test_no_box_is_not_an_error(value):
    assert all(map(math.isnan, parse_box(value, 'here')))


@pytest.mark.parametrize('value', [[1, 2, 3], [1, 2, 3, 'x'], 7, [True, 1, 2, 3]])
def test_numbers_that_are_no_box_are_refused(value):
    with pytest.raises(ValueError, match='row 7'):
        parse_box(value, 'row 7')


LAYOUTS = {
    'a.jsonl': json.dumps(ROW) + '\n\n' + json.dumps(dict(ROW, bbox=[5, 6, 7, 8])),
    'a.json': json.dumps([ROW, dict(ROW, bbox=[5, 6, 7, 8])], indent=1),
    'b.json': json.dumps(dict(results=[ROW, dict(ROW, bbox=[5, 6, 7, 8])])),
    'c.json': json.dumps(ROW) + '\n' + json.dumps(dict(ROW, bbox=[5, 6, 7, 8])),
    'a.csv': 'image,text,x1,y1,x2,y2\na.jpg,left cup,1,2,3,4\na.jpg,left cup,5,6,7,8\n',
    'b.csv': 'image,text,bbox\na.jpg,left cup,"[1, 2, 3, 4]"\na.jpg,left cup,5 6 7 8\n',
    'a.tsv': 'image\ttext\tbbox\na.jpg\tleft cup\t1 2 3 4\na.jpg\tleft cup\t5,6,7,8\n',
}


@pytest.mark.parametrize('name', LAYOUTS)
def test_every_kind_of_file_gives_the_same_rows(name, tmp_path):
    found = read_predictions(write(tmp_path / name, '\ufeff' + LAYOUTS[name]))
    assert found.boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert found.images == ['a.jpg'] * 2
    assert found.texts == ['left cup'] * 2
    assert np.isnan(found.scores).all()


def test_of_several_boxes_the_most_certain_counts(tmp_path):
    row = dict(sample_id=7, boxes=[[1, 2, 3, 4], [5, 6, 7, 8]], scores=[0.2, 0.7])
    found = read_predictions(write(tmp_path / 'a.jsonl', json.dumps(row)))
    assert found.sample_ids == ['7']
    assert found.boxes.tolist() == [[5, 6, 7, 8]]
    assert found.scores.tolist() == [0.7]


@pytest.mark.parametrize(
    'text, named',
    [
        ('', 'empty'),
        ('[]', 'empty'),
        (json.dumps(dict(ROW, image=None)), 'row 1'),
        (json.dumps(ROW) + '\n{"image": ', 'line 2'),
        (json.dumps(ROW) + '\n7', 'line 2'),
        (json.dumps(dict(ROW, bbox=[1, 2])), 'row 1'),
        (json.dumps(dict(ROW, bbox=[[1, 2, 3, 4]] * 2)), '2 boxes'),
        (
            json.dumps(dict(ROW, bbox=[[1, 2, 3, 4]] * 2, scores=[None] * 2)),
            'row 1: 2 boxes and no score',
        ),
        (json.dumps(dict(ROW, answer='[1, 2, 3, 4]')), "'answer'"),
        (json.dumps(dict(image='a.jpg', text='cup')), 'row 1'),
    ],
)
def test_a_damaged_file_is_refused_with_its_row(text, named, tmp_path):
    with pytest.raises(ValueError, match=named):
        read_predictions(write(tmp_path / 'a.jsonl', text))


def test_fields_may_be_named(tmp_path):
    row = dict(file='a.jpg', q='left cup', bbox=[9, 9, 9, 9], said='[1,2,3,4]')
    path = write(tmp_path / 'a.jsonl', json.dumps(row))
    found = read_predictions(path, dict(image='file', text='q', box='said'))
    assert (found.images, found.texts) == (['a.jpg'], ['left cup'])
    assert found.boxes.tolist() == [[1, 2, 3, 4]]
    with pytest.raises(ValueError, match="'absent'"):
        read_predictions(path, dict(box='absent'))
