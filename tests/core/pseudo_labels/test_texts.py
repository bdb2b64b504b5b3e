"""Files of texts: whatever their layout, the same texts of the same images."""

import json

import pytest

from projects.clip_vg_core.pseudo_labels.assign import AssignOptions
from projects.clip_vg_core.pseudo_labels.detection import GivenText
from projects.clip_vg_core.pseudo_labels.generation import (
    Generation,
    MakerSettings,
    generate,
)
from projects.clip_vg_core.pseudo_labels.inputs import InputFiles, read_scenes
from projects.clip_vg_core.pseudo_labels.texts import read_texts

from ...helpers.labels import detection, instances, write

PAIRS = [('1.jpg', 'red car'), ('1.jpg', 'a dog, asleep'), ('2.jpg', 'man')]
OBJECTS = [dict(image=image, text=text) for image, text in PAIRS]
REGIONS = [dict(filename=i, grounding=dict(caption=t, regions=[])) for i, t in PAIRS]
GROUPED = [
    dict(image='1.jpg', texts=['red car', 'a dog, asleep']),
    dict(image='2.jpg', texts=['man']),
]
CAPTIONS = [dict(image_id=int(image[0]), caption=text) for image, text in PAIRS]


def lines(rows):
    return ''.join(json.dumps(row) + '\n' for row in rows)


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('t.jsonl', lines(OBJECTS)),
        ('t.json', json.dumps(OBJECTS)),
        ('t.jsonl', lines(GROUPED)),
        ('t.jsonl', lines(REGIONS)),  # ODVG without regions
        ('t.csv', 'image,caption\n1.jpg,red car\n1.jpg,"a dog, asleep"\n2.jpg,man\n'),
        ('t.json', json.dumps(CAPTIONS)),
        ('t.json', json.dumps(dict(images=[], annotations=CAPTIONS))),
    ],
)
def test_the_same_texts_in_many_layouts(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    write(tmp_path / 'd.json', instances([1, 2], annotations=[]))
    inputs = InputFiles(detections=tmp_path / 'd.json', texts=tmp_path / name)
    scenes, _ = read_scenes(inputs)
    assert [(s.file_name, x.text) for s in scenes for x in s.texts] == PAIRS
    assert not any(x.box or x.negative for s in scenes for x in s.texts)


def one(tmp_path, **row):
    path = tmp_path / 't.jsonl'
    path.write_text(lines([dict(image='1.jpg', text='x', **row)]))
    return path


@pytest.mark.parametrize(
    ('row', 'expected'),
    [
        (dict(bbox_xyxy=[1, 2, 30, 40]), GivenText('x', (1, 2, 30, 40))),
        (dict(bbox_xywh=[1, 2, 30, 40]), GivenText('x', (1, 2, 31, 42))),
        (dict(region=3), GivenText('x', region=3)),
        (dict(negative=True), GivenText('x', negative=True)),
        (dict(negative=False, region=None), GivenText('x')),
    ],
)
def test_what_a_row_says_beside_its_text(tmp_path, row, expected):
    ((where, image, text),) = read_texts(one(tmp_path, **row))
    assert (image, text) == ('1.jpg', expected)
    assert 't.jsonl, line 1' in where
    ((_, _, text),) = read_texts(one(tmp_path, **row), ignore_boxes=True)
    assert text == GivenText('x', negative=expected.negative)


@pytest.mark.parametrize(
    ('row', 'value'),
    [
        (dict(region=-1), '-1'),
        (dict(region='third'), 'third'),
        (dict(negative='maybe'), 'maybe'),
        (dict(negative=True, region=1), 'negative'),
        (dict(bbox_xyxy=[[1, 2, 30, 40], [5, 6, 7, 8]]), '2 boxes'),
    ],
)
def test_rows_that_make_no_sense_name_file_line_and_value(tmp_path, row, value):
    with pytest.raises(ValueError, match=rf't\.jsonl, line 1.*{value}'):
        list(read_texts(one(tmp_path, **row)))


def test_texts_of_unknown_images_and_regions_are_refused(tmp_path):
    boxes = [detection(1), detection(1, score=0.1)]
    write(tmp_path / 'd.json', instances([1], annotations=boxes))
    path = tmp_path / 't.jsonl'
    inputs = InputFiles(detections=tmp_path / 'd.json', texts=path, min_score=0.5)
    path.write_text(lines([dict(image='9.jpg', text='x')]))
    with pytest.raises(ValueError, match=r"t\.jsonl, line 1: image '9\.jpg'"):
        read_scenes(inputs)
    one(tmp_path, region=2)
    with pytest.raises(ValueError, match=r't\.jsonl, line 1: region 2 .* 2 detections'):
        read_scenes(inputs)
    one(tmp_path, region=1)  # is there, but not sure enough
    (scene,), _ = read_scenes(inputs)
    assert [d.region for d in scene.detections] == [0]


def test_images_may_be_named_without_their_folder(tmp_path):
    listed = instances([1, 2], annotations=[])
    for entry, name in zip(listed['images'], ('a/1.jpg', 'b/1.jpg'), strict=True):
        entry['file_name'] = name
    listed['images'][1]['file_name'] = 'b/2.jpg'
    write(tmp_path / 'd.json', listed)
    (tmp_path / 't.jsonl').write_text(lines(OBJECTS))
    inputs = InputFiles(detections=tmp_path / 'd.json', texts=tmp_path / 't.jsonl')
    scenes, _ = read_scenes(inputs)
    assert [len(scene.texts) for scene in scenes] == [2, 1]
    listed['images'][1]['file_name'] = 'b/1.jpg'  # now it is not clear which
    write(tmp_path / 'd.json', listed)
    with pytest.raises(ValueError, match=r"line 1: image '1\.jpg'"):
        read_scenes(inputs)


def test_a_file_of_labels_with_a_negative(tmp_path):
    boxes = [detection(1), detection(1, category_id=3, bbox=[300, 20, 200, 300])]
    write(tmp_path / 'd.json', instances([1], annotations=boxes))
    rows = [
        dict(image='1.jpg', text='the dog'),
        dict(image='1.jpg', text='a zebra', negative=True),
    ]
    (tmp_path / 't.jsonl').write_text(lines(rows))
    inputs = InputFiles(detections=tmp_path / 'd.json', texts=tmp_path / 't.jsonl')
    maker = MakerSettings('assign', AssignOptions(), 'assign')
    job = Generation(tmp_path / 'out.jsonl', inputs, maker)
    manifest = generate(job)
    dog, zebra = map(json.loads, job.out.read_text().splitlines())
    assert (dog['source'], dog['rule']) == ('assign', 'assigned')
    assert dog['grounding']['regions'][0]['bbox'] == [300, 20, 500, 320]
    assert 0.9 < dog['score'] < 1
    assert (zebra['grounding']['regions'], zebra['rule']) == ([], 'negative')
    assert manifest['settings']['inputs']['texts']['name'] == 't.jsonl'
    assert manifest['counts']['texts'] == 2
