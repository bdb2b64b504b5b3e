"""Exports of labelling tools: what is wrong in them is named with its place."""

import json

import pytest
from PIL import Image

from projects.clip_vg_core.data.image_roots import ImageRoots
from projects.clip_vg_core.data.readers import read_annotations

from ...helpers.layout_files import WRITERS


def changed(tmp_path, name, change):
    """A file of a layout after a change of its value or text."""
    files, labels = WRITERS[name](tmp_path)
    path = files['ann_file']
    if path.suffix == '.xml':
        path.write_text(change(path.read_text()))
    else:
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))
    return path, labels


def results(tasks):
    return tasks[1]['annotations'][1]['result']


@pytest.mark.parametrize(
    'change, words',
    [
        (lambda tasks: results(tasks).pop(1), 'task 1, annotation 1.*region0'),
        (
            lambda tasks: results(tasks)[0]['value'].update(rotation=12.5),
            'task 1, annotation 1, result 0.*12.5 degrees',
        ),
        (
            lambda tasks: results(tasks).append(
                dict(results(tasks)[1], from_name='phrase')
            ),
            'task 1, annotation 1.*region0.*caption.*phrase',
        ),
        (
            lambda tasks: tasks[1].update(data=dict(image='/data/upload/2/' + FIRST)),
            f'task 1.*upload/2/{"COCO"}.*local-files',
        ),
        (lambda tasks: tasks[0].update(data=dict(number=3)), r"task 0.*\['number'\]"),
    ],
    ids=['no text', 'rotated', 'two texts', 'one name twice', 'no image'],
)
def test_a_task_that_cannot_be_a_label_is_named(tmp_path, change, words):
    path, _ = changed(tmp_path, 'label_studio', change)
    with pytest.raises(ValueError, match=rf'(?s){path.name}, {words}'):
        read_annotations(path)


FIRST = 'COCO_train2014_000000000011.jpg'


def test_of_several_texts_the_named_one_is_the_expression(tmp_path):
    def add_remarks(tasks):
        for task in tasks:
            of_task = task['annotations'][1]['result']
            of_task += [
                dict(r, from_name='remark', value=dict(r['value'], text=['unsure']))
                for r in of_task
                if r['type'] == 'textarea'
            ]

    path, labels = changed(tmp_path, 'label_studio', add_remarks)
    # `caption` is one of the usual names, `remark` is not.
    table = read_annotations(path, targets='any')
    assert list(table.texts) == [text for _, _, text in labels]
    named = read_annotations(path, targets='any', fields=dict(text='remark'))
    assert set(named.texts) == {'unsure'}


def test_the_image_of_an_uploaded_task_is_the_one_that_was_uploaded(tmp_path):
    path, _ = changed(
        tmp_path,
        'label_studio',
        lambda tasks: tasks[1]['data'].update(image='/data/upload/1/0a1b2c3d-cat.png'),
    )
    table = read_annotations(path, targets='any')
    assert sorted(table.images) == ['0a1b2c3d-cat.png', FIRST]
    Image.new('RGB', (8, 8)).save(tmp_path / 'cat.png')
    roots = ImageRoots([tmp_path])
    missing, renamed = roots.locate(table.images)
    assert (missing, renamed) == ([FIRST], ['0a1b2c3d-cat.png'])
    assert roots.path('0a1b2c3d-cat.png') == str(tmp_path / 'cat.png')


@pytest.mark.parametrize(
    'change, words',
    [
        (
            lambda text: text.replace('name="expression">left man', 'name="x">1'),
            "image .*000011.jpg', box 0.*blurred.*x",
        ),
        (
            lambda text: text.replace('z_order="0"', 'rotation="357.5"', 1),
            "image .*000011.jpg', box 0.*357.5",
        ),
        (
            lambda text: text.replace('xtl="10.00"', 'xtl="ten"'),
            "image .*000011.jpg', box 0, xtl.*'ten'",
        ),
    ],
    ids=['no text', 'rotated', 'no number'],
)
def test_a_box_of_cvat_that_cannot_be_a_label_is_named(tmp_path, change, words):
    path, _ = changed(tmp_path, 'cvat_images', change)
    with pytest.raises(ValueError, match=rf'{path.name}, {words}'):
        read_annotations(path)


def test_any_attribute_of_cvat_can_be_the_expression(tmp_path):
    path, labels = changed(
        tmp_path, 'cvat_images', lambda text: text.replace('"expression"', '"Satz"')
    )
    table = read_annotations(path, targets='any', fields=dict(text='Satz'))
    assert list(table.texts) == [text for _, _, text in labels]


def test_subsets_of_cvat_are_splits(tmp_path):
    path, _ = changed(
        tmp_path,
        'cvat_images',
        lambda text: text.replace('id="0"', 'id="0" subset="val"'),
    )
    table = read_annotations(path, targets='any')
    assert set(table.split_names) == {'val', 'all'}
    assert len(read_annotations(path, splits=['val'])) == 1


def test_annotations_of_no_image_are_named(tmp_path):
    path, _ = changed(
        tmp_path,
        'coco_texts',
        lambda coco: coco['annotations'][0].update(image_id=77),
    )
    with pytest.raises(ValueError, match=rf'{path.name}.*77.*2 images'):
        read_annotations(path)


@pytest.mark.parametrize(
    'name, text, words',
    [
        (
            'track.xml',
            '<annotations><track id="0" label="x"/></annotations>',
            'CVAT for images',
        ),
        (
            'min.json',
            json.dumps([dict(id=1, image='a.jpg', annotation_id=2, annotator=1)]),
            'JSON-MIN',
        ),
    ],
)
def test_exports_without_labels_of_images_say_what_to_export(
    tmp_path, name, text, words
):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=f'{name}.*{words}'):
        read_annotations(path)
