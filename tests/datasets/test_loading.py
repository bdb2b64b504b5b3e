"""What loads images: the same pixels by every way, for any kind of file."""

import numpy as np
import pytest
from mmcv.transforms import Compose, LoadImageFromFile
from PIL import Image

from projects.clip_vg.datasets.transforms import LoadGroundingImage

NOISE = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
MODES = {  # of PIL, and a kind of file that holds it
    '1': 'png',
    'L': 'jpg',
    'P': 'gif',
    'RGB': 'png',
    'RGBA': 'png',
    'CMYK': 'jpg',
    'LA': 'png',
    'I;16': 'png',
}
# MMCV lays transparent grey on a colour, and cuts 16 bits at 255.
NOT_MMCVS = ('LA', 'I;16')


def image_of(mode):
    """Noise in a mode of PIL."""
    if mode == 'I;16':
        return Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257)
    if mode in ('LA', 'RGBA'):
        return Image.fromarray(NOISE[..., :2].repeat(len(mode) // 2, -1), mode)
    return Image.fromarray(NOISE).convert(mode)


def load(steps, path, upright):
    results = dict(img_path=str(path), instances=[], upright=upright)
    return Compose(steps)(results)['img']


def same_by_every_way(path, upright, alone=True):
    """Ours alone, ours after MMCV's, and MMCV's by two arguments."""
    expected = load([LoadGroundingImage()], path, upright)
    turned = 'color' if upright else 'color_ignore_orientation'
    mmcvs = LoadImageFromFile(imdecode_backend='pillow')
    by_arguments = LoadImageFromFile(imdecode_backend='pillow', color_type=turned)
    behind = load([mmcvs, LoadGroundingImage()], path, upright)
    np.testing.assert_array_equal(behind, expected)
    mmcv_pixels = load([by_arguments], path, upright)
    assert np.array_equal(mmcv_pixels, expected) is alone
    return expected


@pytest.mark.parametrize('mode', MODES)
def test_all_kinds_of_files(tmp_path, mode):
    path = tmp_path / f'a.{MODES[mode]}'
    image_of(mode).save(path)
    pixels = same_by_every_way(path, False, alone=mode not in NOT_MMCVS)
    if mode == 'I;16':
        np.testing.assert_array_equal(pixels[..., 0], NOISE[..., 0])


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('upright', [False, True])
def test_exif_rotations(tmp_path, orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(NOISE).save(tmp_path / 'a.png', exif=exif)
    pixels = same_by_every_way(tmp_path / 'a.png', upright)
    stored = NOISE[..., ::-1]
    # EXIF's definition: what is to be done to the stored pixels to show them.
    shown = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.swapaxes(0, 1),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(stored),
    }
    np.testing.assert_array_equal(pixels, shown[orientation] if upright else stored)


def test_an_image_without_labels_stays_as_it_was_loaded(tmp_path):
    """MMDetection's DetInferencer shows photographs upright, and has no labels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(NOISE).save(tmp_path / 'a.png', exif=exif)
    steps = [LoadImageFromFile(imdecode_backend='pillow'), LoadGroundingImage()]
    image = Compose(steps)(dict(img_path=str(tmp_path / 'a.png')))['img']
    assert image.shape == (60, 40, 3)
    image = Compose(steps[1:])(dict(img=image, instances=[]))['img']
    assert image.shape == (60, 40, 3)
