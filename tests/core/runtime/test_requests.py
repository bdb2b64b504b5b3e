"""Requests of strangers: read within bounded memory, or refused with a status."""

import base64
import io
import json
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from projects.clip_vg_core.runtime.limits import Limits
from projects.clip_vg_core.runtime.requests import (
    RequestError,
    decode_image,
    parse_request,
)

LIMITS = Limits(pixels=100_000, expressions=3, characters=20)


def encoded(pixels, kind='PNG', **options):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def body(image=b'abc', expressions=('left',), **more):
    image = base64.b64encode(image).decode() if isinstance(image, bytes) else image
    return json.dumps(dict(image=image, expressions=expressions, **more)).encode()


PIXELS = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
EXIF = Image.Exif()
EXIF[0x0112] = 6


def test_a_request_is_read():
    texts = ['left man', '"' * 20, '\t😀é']
    for text in (
        body(b'\xff\x00', texts),
        body(b'\xff\x00', texts).replace(b'/', rb'\/'),
    ):
        assert parse_request(text, LIMITS) == (b'\xff\x00', texts)


@pytest.mark.parametrize(
    ('status', 'given'),
    [
        (400, b''),
        (400, b'\xff\xfe'),
        (400, b'{"image": '),
        (400, b'[]'),
        (400, b'7' * 5000),
        (400, b'[' * 190),
        (400, b'null'),
        (400, json.dumps(dict(image='')).encode()),
        (400, body(score=1)),
        (400, body(image=7)),
        (400, body(image=None)),
        (400, body(image='/etc/passwd.')),
        (400, body(image='file:///etc/passwd')),
        (400, body(image='http://127.0.0.1/')),
        (400, body(image='é')),
        (400, body(expressions='left')),
        (400, body(expressions=[])),
        (400, body(expressions={'a': 1})),
        (400, body(expressions=[7])),
        (400, body(expressions=['left', ' \n'])),
        (400, body(expressions=['a\x00b'])),
        (400, body(expressions=['a\x1bb'])),
        (400, body(expressions=['a\ud800'])),
        (413, body(expressions=['a'] * 4)),
        (413, body(expressions=['a'] * 10_000)),
        (413, body(expressions=['a' * 21])),
        (413, body(expressions=['a' * 10_000_000])),
        (413, b'[' * 10_000_000),
        (413, b'[' + b'[],' * 3_000_000 + b'[]]'),
        (413, b'[' + b'"a",' * 3_000_000 + b'1]'),
        (413, b'{' + b'"a":1.5,' * 1_000_000 + b'"b":1}'),
    ],
)
def test_other_requests_are_refused_in_little_memory(status, given):
    tracemalloc.start()
    with pytest.raises(RequestError) as error:
        parse_request(given, LIMITS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.value.status == status
    assert peak < 3 * len(given) + 100_000
    assert len(str(error.value)) < 300


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'GIF', 'BMP', 'TIFF'])
def test_images_are_decoded(kind):
    found = decode_image(encoded(PIXELS, kind), LIMITS)
    assert found.shape == (30, 40, 3) and found.dtype == np.uint8
    if kind in ('PNG', 'BMP', 'TIFF'):
        np.testing.assert_array_equal(found, PIXELS)


def test_images_are_turned_upright():
    found = decode_image(encoded(PIXELS, exif=EXIF), LIMITS)
    np.testing.assert_array_equal(found, np.rot90(PIXELS, -1))


def png(width, height, *chunks):
    """A PNG that says it has so many pixels, all zero, with further chunks."""

    def chunk(kind, data):
        checked = kind + data
        return len(data).to_bytes(4) + checked + zlib.crc32(checked).to_bytes(4)

    head = width.to_bytes(4) + height.to_bytes(4) + bytes([8, 0, 0, 0, 0])
    rows = zlib.compress(bytes((min(width, 30_000) + 1) * min(height, 100)))
    parts = [chunk(b'IHDR', head), *(chunk(*c) for c in chunks), chunk(b'IDAT', rows)]
    return b'\x89PNG\r\n\x1a\n' + b''.join(parts) + chunk(b'IEND', b'')


def many_scans(count):
    """A progressive JPEG whose last scan comes again and again."""
    data = encoded(PIXELS, 'JPEG', progressive=True)
    last, end = data.rindex(b'\xff\xda'), data.rindex(b'\xff\xd9')
    return data[:end] + data[last:end] * count + data[end:]


BOMB = zlib.compress(bytes(50_000_000))


@pytest.mark.parametrize(
    ('status', 'data'),
    [
        (400, b''),
        (400, b'no image'),
        (400, b'%!PS-Adobe-3.0 EPSF-3.0\n'),
        (400, b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
        (400, encoded(PIXELS)[:-700]),
        (400, encoded(PIXELS, 'JPEG')[:300]),
        (400, encoded(PIXELS[:1].repeat(1, 0)[:, :1].repeat(300, 1))),  # a strip
        (400, many_scans(200)),
        (413, encoded(np.zeros((400, 400, 3), np.uint8))),
        (413, png(20_000, 20_000)),
        (413, png(2**31 - 1, 2**31 - 1)),
        (400, png(0, 10)),
        (400, png(64, 64, (b'zTXt', b'a\x00\x00' + BOMB))),
    ],
)
def test_other_images_are_refused_in_little_memory(status, data):
    tracemalloc.start()
    with pytest.raises(RequestError) as error:
        decode_image(data, LIMITS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.value.status == status, error.value
    assert peak < 10_000_000
