"""Readers of detections, captions and scene graphs: what they take and refuse."""

import json
import math

import pytest

from projects.clip_vg_core.pseudo_labels.entries import CocoFile, read_names

from ...helpers.labels import detection, instances, write

CATEGORIES = {1: 'person', 2: 'car'}


def read(tmp_path, *entries):
    path = write(tmp_path / 'results.json', list(entries))
    return list(CocoFile(path).detections(CATEGORIES))


def test_boxes_become_corners(tmp_path):
    ((image, item),) = read(tmp_path, detection(7, bbox=[10, 20, 30, 40]))
    assert image == 7
    assert item.box == (10, 20, 40, 60)
    assert (item.name, item.score, item.attribute) == ('person', 0.9, None)


@pytest.mark.parametrize(
    ('more', 'attribute', 'score'),
    [
        (dict(attributes=dict(red=0.2, blue=0.7)), 'blue', 0.7),
        (dict(attribute='Dark_Red'), 'dark red', 1.0),
        (dict(attribute='red', attribute_score=0.4), 'red', 0.4),
        (dict(attributes={}), None, 0.0),
    ],
)
def test_attributes_of_the_entry(tmp_path, more, attribute, score):
    ((_, item),) = read(tmp_path, detection(7, **more))
    assert (item.attribute, item.attribute_score) == (attribute, score)


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (dict(score=1.5), 'entry 2: score is 1.5; expected a number in'),
        (dict(score=-0.1), 'score is -0.1'),
        (dict(score=math.nan), 'entry 2: score is nan; expected a number in'),
        (dict(score='0.9'), "score is '0.9'"),
        (dict(score=True), 'score is True'),
        (dict(bbox=[1, 2, 3]), 'entry 2: bbox is'),
        (dict(bbox=[1, 2, math.nan, 4]), r'entry 2: bbox is \[1, 2, nan, 4\]'),
        (dict(bbox=[1, 2, math.inf, 4]), r'entry 2: bbox is \[1, 2, inf, 4\]'),
        (dict(bbox=None), 'bbox is None'),
        (dict(bbox=['1', 2, 3, 4]), 'bbox is'),
        (dict(category_id=9), 'entry 2: category_id 9 is not among the categories'),
        (dict(category_id=[1]), r'entry 2: category_id is \[1\]; expected a whole'),
        (dict(category_id=True), 'category_id is True'),
        (dict(image_id={}), 'entry 2: image_id is'),
        (dict(image_id=1.0), 'image_id is 1.0'),
        (dict(attributes=dict(red=2)), "attribute 'red' is 2"),
        (dict(attributes=['red']), 'attributes as {name: score}'),
        (dict(attribute='赤'), 'not English'),
    ],
)
def test_a_damaged_entry_is_named(tmp_path, more, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, detection(1), detection(1, **more))
    assert 'results.json' in str(caught.value)


@pytest.mark.parametrize('key', ['score', 'bbox', 'category_id', 'image_id'])
def test_a_missing_key_is_named(tmp_path, key):
    entry = detection(1)
    del entry[key]
    with pytest.raises(ValueError, match=f"entry 1: no '{key}'"):
        read(tmp_path, entry)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('[{"image_id": 1, ', '17 bytes.* truncated'),
        ('[{"image_id": 1 2}]', 'not valid JSON'),
        ('{"error": "rate limit"}', "an object without a list 'annotations'"),
        ('{}', "an object without a list 'annotations'"),
        ('{"annotations": null}', "an object without a list 'annotations'"),
        ('', '0 bytes.* not valid JSON'),
        ('"x"', 'expected a JSON list'),
        ('[1, 2]', 'entry 1: expected a JSON object, found int'),
        ('\x00\x01', 'expected JSON in UTF-8'),
    ],
)
def test_a_file_that_is_no_list_of_entries(tmp_path, text, message):
    path = tmp_path / 'results.json'
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        list(CocoFile(path).detections(CATEGORIES))
    assert 'results.json' in str(caught.value)


@pytest.mark.parametrize('start', ['\ufeff', ' ' * 1000, '\ufeff\n\n'])
def test_what_stands_before_the_list_does_not_matter(tmp_path, start):
    path = tmp_path / 'r.json'
    path.write_text(start + json.dumps([detection(1)]), encoding='utf-8')
    assert len(list(CocoFile(path).detections(CATEGORIES))) == 1


def test_a_file_in_another_encoding(tmp_path):
    path = tmp_path / 'r.json'
    path.write_text(json.dumps([detection(1)]), encoding='utf-16')
    with pytest.raises(ValueError, match='r.json.*UTF-8'):
        list(CocoFile(path).detections(CATEGORIES))


def test_ids_and_names_that_come_twice(tmp_path):
    path = write(
        tmp_path / 'i.json',
        dict(categories=[dict(id=1, name='car'), dict(id=1, name='banana')]),
    )
    with pytest.raises(ValueError, match="the id 1 was that of 'car' already"):
        CocoFile(path).categories()


@pytest.mark.parametrize('text', ['["person", "", "car"]', 'person\n\ncar', '{"a": 1}'])
def test_a_list_of_names_with_a_hole(tmp_path, text):
    path = tmp_path / 'names'
    path.write_text(text)
    with pytest.raises(ValueError, match='names'):
        read_names(path)


def test_an_explanation_in_a_name_is_not_said(tmp_path):
    path = write(
        tmp_path / 'i.json', dict(categories=[dict(id=1, name='sandal_(type_of_shoe)')])
    )
    assert CocoFile(path).categories() == {1: 'sandal'}


def test_annotations_of_an_instances_file_are_sure_and_crowds_are_left_out(tmp_path):
    annotation = detection(1)
    del annotation['score']
    crowd = dict(annotation, iscrowd=1)
    path = write(tmp_path / 'i.json', instances([1], annotations=[annotation, crowd]))
    (_, item), (_, none) = CocoFile(path).detections(CATEGORIES)
    assert item.score == 1.0
    assert none is None


def test_images_and_categories_of_an_instances_file(tmp_path):
    path = write(tmp_path / 'i.json', instances([3, 1]))
    assert list(CocoFile(path).images()) == [
        (3, '3.jpg', 640, 480),
        (1, '1.jpg', 640, 480),
    ]
    assert CocoFile(path).categories() == {1: 'person', 2: 'car', 3: 'dog'}


def test_sizes_may_be_missing_but_not_wrong(tmp_path):
    data = dict(images=[dict(id=1, file_name='a.jpg')])
    path = write(tmp_path / 'i.json', data)
    assert list(CocoFile(path).images()) == [(1, 'a.jpg', None, None)]
    for name in ('../a.jpg', '/a.jpg'):
        data = dict(images=[dict(id=1, file_name=name)])
        with pytest.raises(ValueError, match='leads out'):
            list(CocoFile(write(path, data)).images())
    data['images'][0].update(width=0, height=3)
    with pytest.raises(ValueError, match='images 1: the size'):
        list(CocoFile(write(path, data)).images())


def test_names_of_classes_are_said_in_english_without_underscores(tmp_path):
    path = write(
        tmp_path / 'i.json', dict(categories=[dict(id=1, name='Traffic_Light')])
    )
    assert CocoFile(path).categories() == {1: 'traffic light'}
    path = write(tmp_path / 'i.json', dict(categories=[dict(id=1, name='狗')]))
    with pytest.raises(ValueError, match="'狗' has no letters, or is not English"):
        CocoFile(path).categories()
    with pytest.raises(ValueError, match="without a list 'categories'"):
        CocoFile(write(path, dict(images=[]))).categories()


def test_captions(tmp_path):
    path = write(tmp_path / 'c.json', [dict(image_id=1, id=5, caption='a dog')])
    assert list(CocoFile(path).captions()) == [(1, 'a dog')]
    for bad in (dict(image_id=1), dict(image_id=1, caption=3)):
        with pytest.raises(ValueError, match='entry 1'):
            list(CocoFile(write(path, [bad])).captions())


def edge(**more):
    end = dict(name='dog', bbox=[1, 2, 3, 4], score=0.5)
    return dict(
        image_id=1, subject=end, predicate='near', object=dict(end, name='car'), **more
    )


def test_triplets(tmp_path):
    path = write(tmp_path / 't.json', [edge(score=0.25)])
    ((image, triplet),) = CocoFile(path).triplets()
    assert image == 1
    assert triplet.subject.box == (1, 2, 4, 6)
    named = (triplet.subject.name, triplet.predicate, triplet.object.name)
    assert named == ('dog', 'near', 'car')
    assert (triplet.score, triplet.subject.score) == (0.25, 0.5)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(subject=dict(bbox=[1, 2, 3, 4])), 'subject: it has no "name"'),
        (dict(subject=dict(category_id=9, bbox=[1, 2, 3, 4])), 'category_id 9 is unk'),
        (dict(object=None), 'object: expected a JSON object'),
        (dict(object=dict(name='a', bbox=[1])), 'object: bbox'),
        (dict(predicate=3), 'expected a name'),
        (dict(score=3), 'score is 3'),
    ],
)
def test_damaged_triplets(tmp_path, change, message):
    path = write(tmp_path / 't.json', [edge(), dict(edge(), **change)])
    with pytest.raises(ValueError, match=f'entry 2.*{message}'):
        list(CocoFile(path).triplets({1: 'dog'}))


@pytest.mark.parametrize('text', ['Dog\ntraffic_light\n', '["dog", "traffic light"]'])
def test_names_one_a_line_or_a_list(tmp_path, text):
    path = tmp_path / 'names'
    path.write_text(text)
    assert read_names(path) == ['dog', 'traffic light']


def test_outlines_do_not_take_memory(tmp_path):
    """COCO's polygons are nine tenths of its files, and no label is made of them."""
    outlined = detection(1, segmentation=[[1, 2, 3, 4]], keypoints=[1, 2, 2])
    path = write(tmp_path / 'i.json', instances([1], annotations=[outlined]))
    file = CocoFile(path)
    assert file.content['annotations'] == [detection(1)]
    assert len(list(file.detections(CATEGORIES))) == 1


def test_json_lines_are_called_that(tmp_path):
    path = tmp_path / 'd.json'
    path.write_text('{"images": []}\n{"images": []}\n')
    with pytest.raises(ValueError, match=r'd\.json .*JSON Lines'):
        list(CocoFile(path).images())
