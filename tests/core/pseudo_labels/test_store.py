"""The store of inputs: sorted by image, whatever order they come in."""

import random

import pytest

from projects.clip_vg_core.pseudo_labels.detection import Detection, Triplet
from projects.clip_vg_core.pseudo_labels.store import SceneStore, UnknownImageError

IMAGES = [(i, f'{i}.jpg', 640, 480) for i in (10, 9, 2, 100)]
CAR = Detection('car', (1.5, 2.0, 30.0, 40.25), 0.5, 'red', 0.75)
DOG = Detection('dog', (0.0, 0.0, 10.0, 10.0), 0.25)


def filled(path, images=IMAGES, entries=(), **more):
    store = SceneStore(path, write=True)
    store.add_images(images)
    store.add_detections(entries)
    for add, values in more.items():
        getattr(store, f'add_{add}')(values)
    store.finish()
    return store


def everything(store):
    return list(store.scenes(range(len(store))))


def test_images_come_by_id_in_any_order_of_the_file(tmp_path):
    first = everything(filled(tmp_path / 'a'))
    other = everything(filled(tmp_path / 'b', random.Random(1).sample(IMAGES, 4)))
    assert first == other
    assert [scene.image_id for scene, _ in first] == [2, 9, 10, 100]


def test_names_are_sorted_too_and_come_after_numbers(tmp_path):
    images = [('b.jpg', 'b.jpg', 1, 1), (7, '7.jpg', 1, 1), ('a.jpg', 'a.jpg', 1, 1)]
    ids = [scene.image_id for scene, _ in everything(filled(tmp_path / 's', images))]
    assert ids == [7, 'a.jpg', 'b.jpg']


def test_what_is_stored_comes_back_with_its_image_in_the_files_order(tmp_path):
    edge = Triplet(CAR, 'near', DOG, 0.125)
    plain = Triplet(Detection('car', CAR.box, 0.5), 'near', DOG, 0.125)
    store = filled(
        tmp_path / 's',
        entries=[(9, CAR), (100, DOG), (9, DOG)],
        captions=[(2, 'b'), (2, 'a')],
        triplets=[(100, edge)],
    )
    found = {scene.image_id: scene for scene, _ in everything(store)}
    assert found[9].detections == (CAR, DOG)
    assert found[100].detections == (DOG,)
    assert found[2].captions == ('b', 'a')
    # Attributes of a triplet's ends are part of their names.
    assert found[100].triplets == (plain,)
    assert found[10].detections == ()


def test_a_stretch_has_its_images_only(tmp_path):
    store = filled(tmp_path / 's', entries=[(9, CAR), (100, DOG)])
    assert [scene.image_id for scene, _ in store.scenes(range(1, 3))] == [9, 10]


def test_only_the_images_to_keep_are_filled(tmp_path):
    store = SceneStore(tmp_path / 's', write=True)
    store.add_images(IMAGES)
    store.keep(range(2))
    store.add_detections([(9, CAR), (100, DOG)])
    store.finish()
    sizes = [len(scene.detections) for scene, _ in everything(store)]
    assert sizes == [0, 1, 0, 0]


def test_detections_for_their_attributes_are_kept_apart(tmp_path):
    store = SceneStore(tmp_path / 's', write=True)
    store.add_images(IMAGES)
    store.add_detections([(9, CAR)], described=True)
    store.finish()
    (scene, described) = everything(store)[1]
    assert scene.detections == ()
    assert described == (CAR,)


def test_an_image_that_is_not_listed_is_an_error(tmp_path):
    with pytest.raises(UnknownImageError, match='11 is not among the 4 images'):
        filled(tmp_path / 's', entries=[(11, CAR)])
    # 9 and '9' are different ids.
    with pytest.raises(UnknownImageError, match="'9'"):
        filled(tmp_path / 's', entries=[('9', CAR)])


def test_an_id_that_comes_twice_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="id '10' is listed twice"):
        filled(tmp_path / 's', [*IMAGES, IMAGES[0]])
    with pytest.raises(ValueError, match="id '9' is listed twice"):
        filled(tmp_path / 's', [*IMAGES, ('9', 'nine.jpg', 1, 1)])
    with pytest.raises(ValueError, match="file name '9.jpg' is listed twice"):
        filled(tmp_path / 's', [*IMAGES, (11, '9.jpg', 1, 1)])
