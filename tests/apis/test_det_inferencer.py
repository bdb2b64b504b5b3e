"""MMDetection's own inferencer on our configs answers as ours does."""

import json
import shutil

import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, save_checkpoint
from PIL import Image

from projects.clip_vg.apis import GroundingInferencer

from ..helpers import ROOT

CONFIG = str(ROOT / 'configs/clip_vg_synthetic.py')
ASKED = ['red circle', 'the star on the left']


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """A checkpoint of the config as it is, in a folder without data."""
    init_default_scope('mmdet')
    cfg = Config.fromfile(CONFIG)
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('weights') / 'model.pth'
    meta = dict(cfg=cfg.pretty_text, dataset_meta=dict(classes=('referent',)))
    save_checkpoint(
        dict(state_dict=MODELS.build(cfg.model).state_dict(), meta=meta), str(path)
    )
    return str(path)


@pytest.fixture(scope='module')
def ask(weights):
    return DetInferencer(CONFIG, weights, device='cpu', show_progress=False)


@pytest.fixture(scope='module')
def ours(weights):
    ask = GroundingInferencer(CONFIG, checkpoint=weights, device='cpu')
    return lambda picture, texts: ask(picture, texts)['predictions'][0]['bboxes']


@pytest.fixture
def picture(shapes, tmp_path):
    path = sorted((shapes / 'images').glob('*.jpg'))[0]
    return shutil.copy(path, tmp_path / 'picture.jpg')


def test_one_expression(ask, ours, picture):
    (found,) = ask(str(picture), texts=ASKED[0])['predictions']
    np.testing.assert_allclose(found['bboxes'], ours(picture, ASKED[:1]), atol=1e-4)


@pytest.mark.parametrize(
    'question',
    [
        dict(texts=[ASKED]),
        dict(texts='red circle. the star on the left.', custom_entities=True),
    ],
)
def test_several_expressions_of_one_picture(ask, ours, picture, question):
    (found,) = ask(str(picture), **question)['predictions']
    assert found['labels'] == [0, 1]
    np.testing.assert_allclose(found['bboxes'], ours(picture, ASKED), atol=1e-4)


def test_a_batch_of_pictures_and_an_array(ask, ours, shapes):
    files = [str(path) for path in sorted((shapes / 'images').glob('*.jpg'))[:2]]
    expected = [ours(f, t)[0] for f, t in zip(files, ASKED, strict=True)]
    arrays = [np.asarray(Image.open(f))[..., ::-1] for f in files]
    for pictures in (files, arrays):
        found = ask(pictures, texts=ASKED, batch_size=2)['predictions']
        boxes = [answer['bboxes'][0] for answer in found]
        np.testing.assert_allclose(boxes, expected, atol=1e-4)


def test_a_photograph_is_upright_as_its_painted_answer_is(ask, ours, picture, tmp_path):
    with Image.open(picture) as file:
        stored = file.convert('RGB')
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    stored.save(tmp_path / 'turned.png', exif=exif)
    answer = ask(str(tmp_path / 'turned.png'), texts=ASKED[0], return_vis=True)
    upright = np.asarray(stored.transpose(Image.Transpose.ROTATE_270))
    assert answer['visualization'][0].shape == upright.shape
    np.testing.assert_allclose(
        answer['predictions'][0]['bboxes'],
        ours(upright[..., ::-1], ASKED[:1]),
        atol=1e-4,
    )


def test_answers_are_written_and_painted(ask, picture, tmp_path):
    out = tmp_path / 'out'
    asked = dict(texts=[ASKED], out_dir=str(out), no_save_pred=False)
    (found,) = ask(str(picture), **asked)['predictions']
    assert json.loads((out / 'preds/picture.json').read_text()) == found
    with Image.open(out / 'vis/picture.jpg') as painted, Image.open(picture) as plain:
        assert painted.size == plain.size
        difference = np.abs(np.asarray(painted, int) - np.asarray(plain, int))
    assert (difference.max(-1) > 60).mean() > 0.01  # boxes and their words


def test_without_a_text_it_says_so(ask, picture):
    with pytest.raises(ValueError, match='no expression'):
        ask(str(picture))


def test_the_weights_alone_suffice(weights, ours, picture):
    ask = DetInferencer(weights=weights, device='cpu', show_progress=False)
    (found,) = ask(str(picture), texts=ASKED[0])['predictions']
    np.testing.assert_allclose(found['bboxes'], ours(picture, ASKED[:1]), atol=1e-4)


@pytest.fixture(scope='module')
def trained(shapes, tmp_path_factory):
    """The checkpoint that two steps of training on the config leave behind."""
    cfg = Config.fromfile(CONFIG)
    cfg.work_dir = str(tmp_path_factory.mktemp('trained'))
    cfg.experiment_name, cfg.log_level = cfg.work_dir, 'ERROR'
    for name in ('train', 'val', 'test'):
        loader = cfg[f'{name}_dataloader']
        loader.update(batch_size=12, num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(shapes)
    cfg.train_cfg.update(max_epochs=1, val_interval=10)
    cfg.param_scheduler = None
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1)
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 2
    return f'{cfg.work_dir}/epoch_1.pth'


def test_after_training_both_answer_alike(trained, shapes):
    files = [str(path) for path in sorted((shapes / 'images').glob('*.jpg'))[:2]]
    arrays = [np.asarray(Image.open(file).convert('RGB'))[..., ::-1] for file in files]
    theirs = DetInferencer(weights=trained, device='cpu', show_progress=False)
    ours = GroundingInferencer(trained, device='cpu')
    for images in (files, arrays):
        for image, array in zip(images, arrays, strict=True):
            (found,) = theirs(image, texts=[ASKED])['predictions']
            (expected,) = ours(image, ASKED)['predictions']
            # MMDetection needs numbers; the detector has no confidence head.
            assert found['scores'] == [1, 1] and expected['scores'] == [None, None]
            # Ours end at the edges of the image, not of the padded square.
            height, width = array.shape[:2]
            boxes = np.clip(found['bboxes'], 0, [width, height] * 2)
            np.testing.assert_allclose(boxes, expected['bboxes'], atol=1e-4, rtol=0)
