"""Image files from anywhere: no pipes, no gigabytes, no strips."""

import os

import numpy as np
import pytest
from PIL import Image

from projects.clip_vg.apis.grounding_inferencer import load_picture
from projects.clip_vg.datasets.transforms import LoadGroundingImage
from projects.clip_vg.engine.labelling.predictions import list_pictures, picture_size
from projects.clip_vg.image_files import MOST_PIXELS, THINNEST, check_size, open_image


def test_sizes():
    check_size(10_000, MOST_PIXELS // 10_000)
    check_size(THINNEST * 3, 3)
    with pytest.raises(ValueError, match='10,000 x 10,001'):
        check_size(10_000, MOST_PIXELS // 10_000 + 1)
    with pytest.raises(ValueError, match='1 x 101'):
        check_size(1, THINNEST + 1)


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / 'pipe.jpg')
    return tmp_path / 'pipe.jpg'


def test_a_pipe_is_not_waited_for(pipe):
    for read in (open_image, load_picture, picture_size):
        with pytest.raises(ValueError, match=r'pipe\.jpg'):
            read(pipe)
    with pytest.raises(ValueError, match=r'pipe\.jpg'):
        LoadGroundingImage()(dict(img_path=str(pipe)))


def test_a_folder_has_its_files_only(pipe):
    Image.new('RGB', (4, 4)).save(pipe.with_name('a.png'))
    (pipe.parent / 'sub.jpg').mkdir()
    assert list_pictures(pipe.parent) == ['a.png']


def test_large_pictures_and_strips_are_read_when_asked_for(tmp_path, monkeypatch):
    for name, size in (('large.png', (120, 100)), ('strip.png', (1000, 1))):
        Image.new('RGB', size, 'red').save(tmp_path / name)
    monkeypatch.setattr('projects.clip_vg.image_files.MOST_PIXELS', 11_999)
    for name, shape in (('large.png', (100, 120, 3)), ('strip.png', (1, 1000, 3))):
        with pytest.raises(ValueError, match=name):
            load_picture(tmp_path / name)
        read = load_picture(tmp_path / name, any_size=True)
        assert read.shape == shape
        assert np.unique(read[..., 0]) == [255]
