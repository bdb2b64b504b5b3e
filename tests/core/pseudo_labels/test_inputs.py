"""Inputs read into scenes: sorted by image, whatever order they come in."""

import random

import pytest

from projects.clip_vg_core.pseudo_labels.detection import Detection, Triplet
from projects.clip_vg_core.pseudo_labels.entries import OTHER, CocoFile
from projects.clip_vg_core.pseudo_labels.inputs import InputFiles, read_scenes

from ...helpers.labels import detection, write

IMAGES = [
    dict(id=i, file_name=f'{i}.jpg', width=640, height=480) for i in (10, 9, 2, 100)
]
PERSON = Detection('person', (10.0, 20.0, 210.0, 320.0), 0.9)
CATEGORIES = [dict(id=1, name='person'), dict(id=2, name='dog')]


def inputs(folder, images=IMAGES, **entries):
    listed = write(folder / 'i.json', dict(images=images, categories=CATEGORIES))
    files = {what: write(folder / f'{what}.json', v) for what, v in entries.items()}
    return InputFiles(instances=listed, **files)


def scenes(folder, *args, shard=(1, 1), **entries):
    return read_scenes(inputs(folder, *args, **entries), shard)[0]


def test_images_come_by_id_in_any_order_of_the_file(tmp_path):
    first = scenes(tmp_path)
    assert first == scenes(tmp_path, random.Random(1).sample(IMAGES, 4))
    assert [scene.image_id for scene in first] == [2, 9, 10, 100]


def test_names_are_sorted_too_and_come_after_numbers(tmp_path):
    images = [
        dict(id=i, file_name=f'{i}.jpg', width=1, height=1) for i in ('b', 7, 'a')
    ]
    assert [scene.image_id for scene in scenes(tmp_path, images)] == [7, 'a', 'b']


def test_entries_come_with_their_image_in_the_files_order(tmp_path):
    end = dict(name='Red_Car', bbox=[10, 20, 200, 300], score=0.5)
    edge = dict(image_id=100, subject=end, predicate='near', object=end, score=0.125)
    found = scenes(
        tmp_path,
        detections=[
            detection(9, score=0.5),
            detection(100),
            detection(9, category_id=2),
        ],
        captions=[dict(image_id=2, caption=text) for text in 'ba'],
        triplets=[edge],
    )
    by_id = {scene.image_id: scene for scene in found}
    assert [(d.name, d.score) for d in by_id[9].detections] == [
        ('person', 0.5),
        ('dog', 0.9),
    ]
    assert by_id[100].detections == (PERSON,)
    assert by_id[2].captions == ('b', 'a')
    # Attributes of a triplet's ends are part of their names.
    car = Detection('red car', PERSON.box, 0.5)
    assert by_id[100].triplets == (Triplet(car, 'near', car, 0.125),)
    assert by_id[10].detections == ()


def test_a_shard_has_its_images_and_their_entries_only(tmp_path):
    entries = [detection(i) for i in (100, 9, 2, 10)]
    parts = [scenes(tmp_path, shard=(i, 3), detections=entries) for i in (1, 2, 3)]
    assert [[scene.image_id for scene in part] for part in parts] == [
        [2],
        [9],
        [10, 100],
    ]
    assert all(scene.detections == (PERSON,) for part in parts for scene in part)


def test_shards_read_what_one_reading_has_and_keep_no_more(tmp_path):
    end = dict(name='car', bbox=[10, 20, 200, 300], score=0.5)
    edge = dict(subject=end, predicate='near', object=end)
    order = (100, 9, 2, 10, 9)
    given = dict(
        detections=[detection(i) for i in order],
        attributes=[detection(i, attribute='red') for i in order],
        captions=[dict(image_id=i, caption=f'a dog of {i}') for i in order],
        triplets=[dict(edge, image_id=i) for i in order],
    )
    whole = scenes(tmp_path, **given)
    parts = [scenes(tmp_path, shard=(i, 3), **given) for i in (1, 2, 3)]
    assert [scene for part in parts for scene in part] == whole
    assert all(len(scene.captions) == len(scene.triplets) > 0 for scene in whole)
    file = CocoFile(tmp_path / 'detections.json', lambda image: image != 9)
    kept = [entry for entry in file.content if entry is not OTHER]
    assert [entry['image_id'] for entry in kept] == [9, 9]


@pytest.mark.parametrize('number', [1, 2, 3])
def test_every_shard_names_a_damaged_entry_by_its_place(tmp_path, number):
    """Of an image that is not listed; damage of a listed one is named by its shard."""
    entries = [detection(i) for i in (100, 9, 2, 10, 5)]
    with pytest.raises(ValueError, match='entry 5: image 5 is not among the 4'):
        scenes(tmp_path, shard=(number, 3), detections=entries)


def test_detections_for_their_attributes_are_kept_apart(tmp_path):
    (_, scene, *_) = scenes(tmp_path, attributes=[detection(9)])
    assert scene.detections == ()
    assert scene.described == (PERSON,)


@pytest.mark.parametrize(('image', 'said'), [(11, '11'), ('9', "'9'")])
def test_an_image_that_is_not_listed_is_an_error(tmp_path, image, said):
    """9 and '9' are different ids."""
    with pytest.raises(
        ValueError, match=f'entry 2: image {said} is not among the 4 images'
    ) as caught:
        scenes(tmp_path, detections=[detection(9), detection(image)])
    assert 'detections.json' in str(caught.value)


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (IMAGES[0], "id '10' is listed twice"),
        (dict(IMAGES[0], id='9', file_name='nine.jpg'), "id '9' is listed twice"),
        (dict(IMAGES[1], id=11), "file name '9.jpg' is listed twice"),
    ],
)
def test_an_image_that_comes_twice_is_an_error(tmp_path, image, message):
    with pytest.raises(ValueError, match=rf'i\.json.*{message}'):
        scenes(tmp_path, [*IMAGES, image])
