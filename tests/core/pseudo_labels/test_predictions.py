"""Reading MMDetection's predictions, safely, and lists of images."""

import pickle

import pytest
import torch
from mmdet.evaluation import DumpDetResults
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from PIL import Image

from projects.clip_vg_core.pseudo_labels import predictions
from projects.clip_vg_core.pseudo_labels.predictions import (
    list_images,
    read_dumped_predictions,
    read_image_size,
    read_inferencer_predictions,
)
from projects.clip_vg_core.utils.safe_pickle import UnsafePickleError

from ...helpers.labels import NAMES, write

FOUND = dict(labels=[1, 0], scores=[0.5, 0.25], bboxes=[[1, 2, 3, 4], [5, 6, 7, 9]])


def dump(path, **changes):
    """What MMDetection itself writes."""
    tensors = {k: torch.tensor(v) for k, v in {**FOUND, **changes}.items()}
    sample = DetDataSample(
        pred_instances=InstanceData(**tensors),
        metainfo=dict(img_id=4, img_path='in/a.jpg', ori_shape=(48, 64)),
    )
    metric = DumpDetResults(out_file_path=str(path))
    metric.process({}, [sample.to_dict()])
    metric.compute_metrics(metric.results)
    return path


def test_what_dumpdetresults_wrote(tmp_path):
    ((image, items),) = read_dumped_predictions(dump(tmp_path / 'p.pkl'), NAMES)
    assert image == dict(id=4, file_name='in/a.jpg', width=64, height=48)
    assert [(i.name, i.score, i.box) for i in items] == [
        ('car', 0.5, (1, 2, 3, 4)),
        ('person', 0.25, (5, 6, 7, 9)),
    ]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(labels=[1, 3]), 'image 1, detection 2: label 3, but there are 3 classes'),
        (dict(scores=[0.5, 2.0]), 'detection 2: score is 2.0'),
        (dict(bboxes=[[1, 2, 3, 4], [5, 6, float('nan'), 9]]), 'detection 2: bbox'),
    ],
)
def test_damaged_predictions_are_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        list(read_dumped_predictions(dump(tmp_path / 'p.pkl', **changes), NAMES))


def test_nothing_in_a_pickle_is_run(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (print, ('run',))

    path = tmp_path / 'p.pkl'
    path.write_bytes(pickle.dumps([dict(img_id=Hostile())]))
    with pytest.raises(UnsafePickleError, match='builtins.print'):
        list(read_dumped_predictions(path, NAMES))


def test_nothing_inside_a_tensor_of_a_pickle_is_run(tmp_path):
    """A storage is a pickle in the pickle; torch's own loader would run it."""

    class Hostile:
        def __reduce__(self):
            return (print, ('run',))

    class Storage:
        def __reduce__(self):
            inner = tmp_path / 'inner'
            torch.save(Hostile(), inner)
            return (torch.storage._load_from_bytes, (inner.read_bytes(),))

    path = tmp_path / 'p.pkl'
    path.write_bytes(pickle.dumps([dict(pred_instances=Storage())]))
    with pytest.raises(ValueError, match='print'):
        list(read_dumped_predictions(path, NAMES))


def test_what_the_inferencer_wrote(tmp_path):
    (tmp_path / 'preds').mkdir()
    write(tmp_path / 'preds' / 'a.json', FOUND)
    ((name, items),) = read_inferencer_predictions(
        tmp_path, NAMES, ['x/a.jpg', 'b.jpg']
    )
    assert name == 'x/a.jpg'
    assert [item.name for item in items] == ['car', 'person']


@pytest.mark.parametrize(
    ('images', 'count'), [(['b.jpg'], 0), (['a.jpg', 'x/a.png'], 2)]
)
def test_predictions_of_no_or_of_several_pictures(tmp_path, images, count):
    write(tmp_path / 'a.json', FOUND)
    with pytest.raises(ValueError, match=f"{count} images are called 'a'"):
        list(read_inferencer_predictions(tmp_path, NAMES, images))


def test_predictions_of_uneven_length(tmp_path):
    write(tmp_path / 'a.json', dict(FOUND, scores=[0.5]))
    with pytest.raises(ValueError, match='2 labels, 1 scores and 2 boxes'):
        list(read_inferencer_predictions(tmp_path, NAMES, ['a.jpg']))


def test_pictures_of_a_folder_are_sorted_and_only_pictures(tmp_path):
    (tmp_path / 'sub').mkdir()
    for name in ('b.PNG', 'sub/c.jpg', 'a.jpeg', 'notes.txt', '.hidden.jpg'):
        (tmp_path / name).write_bytes(b'')
    assert list_images(tmp_path) == ['a.jpeg', 'b.PNG', 'sub/c.jpg']
    with pytest.raises(FileNotFoundError, match='no such folder'):
        list_images(tmp_path / 'none')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='has no images'):
        list_images(tmp_path / 'empty')


def test_a_folder_has_what_pillow_reads_and_says_what_is_left_out(
    tmp_path, monkeypatch
):
    logged = []
    monkeypatch.setattr(
        predictions._log, 'warning', lambda text, *args: logged.append(text % args)
    )
    for suffix, kind in (('jfif', 'JPEG'), ('jpg', 'JPEG'), ('gif', 'GIF')):
        Image.new('RGB', (4, 4)).save(tmp_path / f'a.{suffix}', kind)
    expected = ['a.gif', 'a.jfif', 'a.jpg']
    if '.avif' in Image.registered_extensions():
        (tmp_path / 'a.avif').write_bytes(b'')
        expected = ['a.avif', *expected]
    assert list_images(tmp_path) == expected
    assert not logged
    for name in ('b.CR2', 'c.cr2', 'notes.txt', 'none', '.hidden.cr2'):
        (tmp_path / name).write_bytes(b'')
    assert list_images(tmp_path) == expected
    (text,) = logged
    assert '4 files' in text
    assert all(part in text for part in ('2 .cr2', '1 .txt', '1 (no suffix)'))


def test_a_suffix_that_a_plugin_reads_is_an_image(tmp_path, monkeypatch):
    (tmp_path / 'a.heic').write_bytes(b'')
    with pytest.raises(ValueError, match=r'has no images .*1 \.heic'):
        list_images(tmp_path)
    known = dict(Image.registered_extensions(), **{'.heic': 'JPEG'})
    monkeypatch.setattr(Image, 'registered_extensions', lambda: known)
    assert list_images(tmp_path) == ['a.heic']


def test_size_of_a_picture(tmp_path):
    Image.new('RGB', (30, 20)).save(tmp_path / 'a.png')
    assert read_image_size(tmp_path / 'a.png') == (30, 20)
    (tmp_path / 'b.png').write_text('no image')
    with pytest.raises(ValueError, match='b.png cannot be read as an image'):
        read_image_size(tmp_path / 'b.png')
    with pytest.raises(FileNotFoundError, match='no such image'):
        read_image_size(tmp_path / 'c.png')
