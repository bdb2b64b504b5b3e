"""Models shared by visitors: named apart, loaded once, asked one at a time."""

import threading

import numpy as np
import pytest
from PIL import Image

from projects.clip_vg.apis import GroundingInferencer, shared_models, web
from projects.clip_vg.apis.shared_models import SharedModels, name_checkpoints

from ..helpers.models import save_tiny
from ..helpers.threads import predict_in_threads

ASKED = ['red circle', 'star']


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp('shared')
    return [save_tiny(folder / name / 'epoch_1.pth', 7) for name in ('one', 'two')]


@pytest.fixture
def image(shapes):
    path = sorted((shapes / 'images').glob('*.jpg'))[0]
    with Image.open(path) as file:
        return np.asarray(file.convert('RGB'))


def test_names_are_as_short_as_they_can_be(tmp_path):
    paths = [tmp_path / name for name in ('a/x/1.pth', 'b/x/1.pth', 'b/x/2.pth')]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert name_checkpoints(paths[1:]) == {'x/1.pth': paths[1], 'x/2.pth': paths[2]}
    named = name_checkpoints(paths)
    assert list(named) == ['a/x/1.pth', 'b/x/1.pth', 'b/x/2.pth']
    assert list(named.values()) == paths


def test_a_work_dir_and_an_exported_folder_are_named(tmp_path):
    best, exported = tmp_path / 'run/best_acc_epoch_1.pth', tmp_path / 'exported'
    for path in (best, exported / 'deployment.json'):
        path.parent.mkdir()
        path.touch()
    named = name_checkpoints([best.parent, exported])
    assert list(named.values()) == [best, exported]


def test_a_published_folder_in_a_cache_keeps_the_name_of_its_file(tmp_path):
    """There it is a link to a file without a suffix, which tells the kind."""
    snapshot, blob = tmp_path / 'commit', tmp_path / 'blobs' / '0123'
    for folder in (snapshot, blob.parent):
        folder.mkdir()
    blob.touch()
    for name in ('model.safetensors', 'config.json'):
        (snapshot / name).symlink_to(blob)
    weights = snapshot / 'model.safetensors'
    assert name_checkpoints([snapshot]) == {'commit/model.safetensors': weights}


def test_checkpoints_that_cannot_be_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='none.pth: no such checkpoint'):
        name_checkpoints([tmp_path / 'none.pth'])
    (tmp_path / 'a.pth').touch()
    for paths in ([], [tmp_path / 'a.pth'] * 2):
        with pytest.raises(ValueError, match='each once'):
            name_checkpoints(paths)


def test_answers_are_those_of_the_inferencer(checkpoints, image):
    models = SharedModels(name_checkpoints(checkpoints), device='cpu')
    alone = GroundingInferencer(checkpoints[0], device='cpu')
    expected = alone(Image.fromarray(image), ASKED)['predictions'][0]
    found = models.predict('one/epoch_1.pth', image, ASKED)
    for key in ('bboxes', 'texts', 'scores'):
        assert found[key] == expected[key]
    with pytest.raises(KeyError, match='three'):
        models.predict('three', image, ASKED)


def test_many_at_once_load_each_once_and_are_answered_one_by_one(
    checkpoints, image, monkeypatch
):
    loaded, asking, most = [], [], []

    class Counted(GroundingInferencer):
        def __init__(self, checkpoint, **others):
            loaded.append(checkpoint)
            super().__init__(checkpoint, **others)

        def __call__(self, *args):
            asking.append(1)
            most.append(len(asking))
            answers = super().__call__(*args)
            asking.pop()
            return answers

    monkeypatch.setattr(shared_models, 'GroundingInferencer', Counted)
    models = SharedModels(name_checkpoints(checkpoints), device='cpu')
    names, found = list(models.checkpoints), {}

    def visit(number):
        found[number] = models.predict(names[number % 2], image, ASKED)['bboxes']

    visitors = [threading.Thread(target=visit, args=(i,)) for i in range(8)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert sorted(loaded) == sorted(models.checkpoints.values())
    assert most == [1] * 8
    assert all(found[i] == found[i % 2] for i in range(8))


def test_the_page_predicts_for_threads_as_one_visitor(tmp_path, shapes):
    """Other images, checkpoints and expressions in each thread, drawing included."""
    paths = [save_tiny(tmp_path / n / 'epoch_1.pth', s, 8) for s, n in enumerate('ab')]
    models, limits = SharedModels(name_checkpoints(paths), device='cpu'), web.Limits()
    files = sorted((shapes / 'images').glob('*.jpg'))
    inputs = [
        (name, files[i % len(files)], f'{color} circle\nstar')
        for i in range(10)
        for name in models.checkpoints
        for color in ('red', 'blue')
    ]

    def predict(one):
        drawn, table = web.ground(models, limits, *one)
        return drawn.tobytes(), table.split('</caption>')[1]  # before: the time

    expected = [predict(one) for one in inputs]
    assert len(expected) == len(set(expected)) == 40
    assert predict_in_threads(predict, inputs) == [expected] * 4
