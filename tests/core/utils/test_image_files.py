"""Image files from anywhere: no pipes, no gigabytes, no strips."""

import os

import numpy as np
import pytest
from PIL import Image

from projects.clip_vg.apis.web import Limits, WrongInput, read_image
from projects.clip_vg.datasets.transforms import LoadGroundingImage
from projects.clip_vg_core.pseudo_labels.predictions import list_images, read_image_size
from projects.clip_vg_core.utils.image_files import (
    MOST_PIXELS,
    THINNEST,
    as_rgb,
    check_size,
    load_image,
    open_image,
)


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
    for read in (open_image, load_image, read_image_size):
        with pytest.raises(ValueError, match=r'pipe\.jpg'):
            read(pipe)
    with pytest.raises(ValueError, match=r'pipe\.jpg'):
        LoadGroundingImage()(dict(img_path=str(pipe)))


def test_a_folder_has_its_files_only(pipe):
    Image.new('RGB', (4, 4)).save(pipe.with_name('a.png'))
    (pipe.parent / 'sub.jpg').mkdir()
    assert list_images(pipe.parent) == ['a.png']


def test_large_images_and_strips_are_read_when_asked_for(tmp_path, monkeypatch):
    for name, size in (('large.png', (120, 100)), ('strip.png', (1000, 1))):
        Image.new('RGB', size, 'red').save(tmp_path / name)
    monkeypatch.setattr('projects.clip_vg_core.utils.image_files.MOST_PIXELS', 11_999)
    for name, shape in (('large.png', (100, 120, 3)), ('strip.png', (1, 1000, 3))):
        with pytest.raises(ValueError, match=name):
            load_image(tmp_path / name)
        read = load_image(tmp_path / name, any_size=True)
        assert read.shape == shape
        assert np.unique(read[..., 0]) == [255]


GREY = np.linspace(30, 200, 48 * 64).round().astype(np.uint8).reshape(48, 64)


def deep_images(folder):
    """Grey images of more than 8 bits a channel that look like ``GREY``."""
    import cv2

    Image.fromarray(GREY).save(folder / 'grey8.png')
    Image.fromarray(GREY.astype(np.uint16) * 257).save(folder / 'grey16.png')
    Image.fromarray(GREY.astype(np.uint16) * 257).save(folder / 'grey16.tif')
    colour = np.repeat(GREY[..., None], 3, 2).astype(np.uint16) * 257
    cv2.imwrite(str(folder / 'colour16.png'), colour)
    Image.fromarray(GREY.astype(np.int32)).save(folder / 'int32.tif')
    Image.fromarray(GREY.astype(np.float32)).save(folder / 'float.tif')


def load_grounding_image(path):
    return LoadGroundingImage()(dict(img_path=str(path), sample_id='s7'))['img']


@pytest.mark.parametrize('read', [load_image, load_grounding_image])
@pytest.mark.parametrize('name', ['grey8.png', 'grey16.png', 'grey16.tif'])
def test_16_bits_a_channel_become_8(tmp_path, read, name):
    deep_images(tmp_path)
    expected = np.repeat(GREY[..., None], 3, 2)
    np.testing.assert_array_equal(read(tmp_path / name), expected)
    colour = read(tmp_path / 'colour16.png')  # PIL itself takes the upper byte
    np.testing.assert_allclose(colour.astype(int), expected, atol=1)


@pytest.mark.parametrize('read', [load_image, load_grounding_image])
@pytest.mark.parametrize(
    ('name', 'mode'), [('int32.tif', 'integers'), ('float.tif', 'float')]
)
def test_32_bits_a_channel_are_refused_by_name(tmp_path, read, name, mode):
    deep_images(tmp_path)
    with pytest.raises(ValueError, match=rf'{name}.*32 bits \({mode}'):
        read(tmp_path / name)


def test_deep_images_of_pil_and_arrays(tmp_path):
    deep_images(tmp_path)
    with Image.open(tmp_path / 'grey16.png') as image:
        np.testing.assert_array_equal(load_image(image)[..., 0], GREY)
    with pytest.raises(ValueError, match='float'):
        load_image(Image.fromarray(GREY.astype(np.float32)))
    with pytest.raises(ValueError, match='uint16'):
        load_image(np.zeros((4, 4, 3), np.uint16))


def test_the_page_names_a_deep_image(tmp_path):
    deep_images(tmp_path)
    assert read_image(tmp_path / 'grey16.png', Limits()).max() == 200
    with pytest.raises(WrongInput, match=r'float\.tif.*32 bits'):
        read_image(tmp_path / 'float.tif', Limits())


def test_an_older_pillow_has_the_16_bits_of_a_png_in_32(tmp_path):
    image = Image.fromarray(GREY.astype(np.int32) * 257)
    image.format = 'PNG'
    np.testing.assert_array_equal(np.asarray(as_rgb(image))[..., 0], GREY)
