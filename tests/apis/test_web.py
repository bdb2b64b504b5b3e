"""The web page without a page: what is taken, what is refused, what is shown."""

import asyncio
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from projects.clip_vg.apis.shared_models import SharedModels, name_checkpoints
from projects.clip_vg.apis.web import (
    LOOPBACK,
    ByteLimits,
    Guard,
    Limits,
    WrongInput,
    fit_to_screen,
    ground,
    make_examples,
    prediction_rows,
    prediction_table,
    read_expressions,
    read_image,
    refusal,
    stored_bytes,
)
from projects.clip_vg_core.visualization.boxes import color_of

from ..helpers.models import save_tiny

LIMITS = Limits(pixels=10_000, expressions=3, characters=12)


def picture(kind, size=(60, 40)):
    """Bytes of a picture with some noise."""
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, kind)
    return buffer.getvalue()


def bomb():
    """A PNG of few bytes that says it has 60,000 x 60,000 pixels."""

    def chunk(name, data):
        check = struct.pack('>I', zlib.crc32(name + data))
        return struct.pack('>I', len(data)) + name + data + check

    head = struct.pack('>IIBBBBB', 60_000, 60_000, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(10_000))
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', data)


def test_expressions_are_the_lines_that_are_not_blank():
    assert read_expressions(' red car \n\n\tman\r\nman', LIMITS) == [
        *('red car', 'man', 'man')
    ]


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (None, 'Type what to look for'),
        (' \n\n', 'Type what to look for'),
        ('a\nb\nc\nd', 'There are 4 expressions; at most 3'),
        ('a\nthirteen char', r'Expression 2 \("thirteen char...'),
    ],
)
def test_expressions_that_are_not_read(text, message):
    with pytest.raises(WrongInput, match=message):
        read_expressions(text, LIMITS)


@pytest.mark.parametrize(
    ('name', 'data', 'message'),
    [
        ('notes.txt', b'hello ' * 50, 'notes.txt'),
        ('notes.jpg', b'hello ' * 50, 'notes.jpg'),
        ('notes.svg', b'<svg xmlns="http://www.w3.org/2000/svg"/>', 'notes.svg'),
        ('empty.png', b'', 'empty.png is empty'),
        ('half.jpg', picture('JPEG')[:1500], 'half.jpg is broken'),
        ('half.png', picture('PNG')[:3000], 'half.png is broken'),
        ('half.webp', picture('WEBP')[:700], 'half.webp is'),
        ('large.png', picture('PNG', (101, 100)), r'101 x 100 pixels; at most 10,000'),
        ('bomb.png', bomb(), 'bomb.png is too large'),
    ],
)
def test_files_that_are_refused(tmp_path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(WrongInput, match=message) as caught:
        read_image(path, LIMITS)
    assert str(tmp_path) not in str(caught.value)


def test_no_file_and_one_that_is_gone(tmp_path):
    with pytest.raises(WrongInput, match='image'):
        read_image(None, LIMITS)
    with pytest.raises(WrongInput, match='a.png was deleted'):
        read_image(tmp_path / 'a.png', LIMITS)


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'GIF', 'BMP', 'TIFF'])
def test_damaged_files_are_read_or_refused(tmp_path, kind):
    whole, rng = picture(kind), np.random.default_rng(1)
    for number in range(60):
        damaged = bytearray(whole)
        start = int(rng.integers(len(whole)))
        for place in range(start, min(start + 8, len(whole))):
            damaged[place] = int(rng.integers(256))
        path = tmp_path / f'{number}.{kind}'
        path.write_bytes(damaged[: int(rng.integers(1, len(whole) + 1))])
        try:
            image = read_image(path, LIMITS)
        except WrongInput as wrong:
            assert f'{number}.{kind}' in str(wrong)
        else:
            assert image.ndim == 3 and image.dtype == np.uint8


@pytest.mark.parametrize('mode', ['L', 'P', 'RGBA', 'CMYK', '1', 'I;16'])
def test_pictures_of_any_mode_are_rgb(tmp_path, mode):
    path = tmp_path / 'a.tif'
    Image.new(mode, (30, 20)).save(path)
    image = read_image(path, LIMITS)
    assert image.shape == (20, 30, 3) and image.dtype == np.uint8


def test_a_picture_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn
    path = tmp_path / 'a.jpg'
    Image.new('RGB', (30, 20)).save(path, exif=exif)
    assert read_image(path, LIMITS).shape == (30, 20, 3)


@pytest.mark.parametrize(
    ('size', 'expected'),
    [((160, 80), (640, 320)), ((4000, 1000), (1280, 320)), ((1, 3000), (1, 1280))],
)
def test_boxes_stay_where_they_are_in_the_picture(size, expected):
    image = np.zeros((*size[::-1], 3), np.uint8)
    box = [-3, size[1] / 4, size[0] + 9, size[1] / 2]
    shown, boxes = fit_to_screen(image, [box, box])
    assert shown.shape == (*expected[::-1], 3)
    np.testing.assert_allclose(
        boxes, [[0, expected[1] / 4, expected[0], expected[1] / 2]] * 2
    )


def test_a_picture_that_fits_is_not_changed():
    image = np.zeros((700, 900, 3), np.uint8)
    shown, boxes = fit_to_screen(image, [[1, 2, 3, 4]])
    assert shown is image
    np.testing.assert_array_equal(boxes, [[1, 2, 3, 4]])


def test_rows_have_scores_only_where_a_model_gives_some():
    boxes, texts = [[0, 1.25, 2, 3], [4, 5, 6, 7]], ['a', 'b']
    head, rows = prediction_rows(boxes, texts, [None, None])
    assert head == ['#', 'Expression', 'Left', 'Top', 'Right', 'Bottom']
    assert rows[0] == ['1', 'a', '0.0', '1.2', '2.0', '3.0']
    for scores, shown in (
        ([1.0, 0.25], ['1.000', '0.250']),
        ([1.0, 1.0], ['1.000', '1.000']),
    ):
        head, rows = prediction_rows(boxes, texts, scores)
        assert head[-1] == 'Score' and [row[-1] for row in rows] == shown


def test_an_expression_has_a_row_for_each_box_or_says_that_it_is_not_there():
    boxes = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    head, rows = prediction_rows(boxes, ['a', 'b', 'c'], [0.9, 0.7, 0.6], [0, 0, 2])
    assert [row[0] for row in rows] == ['1', '1', '2', '3']
    assert [row[-1] for row in rows] == ['0.900', '0.700', 'not in this image', '0.600']
    assert len(rows[1]) == len(head)
    table = prediction_table(head, rows, '')
    assert 'colspan="5">not in this image' in table and table.count('colspan') == 1
    # Rows of an expression have its colour.
    assert [table.count(f'rgb{color_of(number)}') for number in range(4)] == [
        2,
        1,
        1,
        0,
    ]
    assert prediction_rows([], ['a'], [], [])[1] == [['1', 'a', 'not in this image']]


def test_a_table_says_text_as_text_and_has_the_colours_of_the_boxes():
    rows = [['1', '<script>alert(1)</script>'], ['2', 'a & b']]
    table = prediction_table(['#', 'Expression'], rows, '<b>')
    assert '<script>' not in table and '<b>' not in table
    assert '&lt;script&gt;' in table and 'a &amp; b' in table
    assert all(f'rgb{color_of(number)}' in table for number in range(2))


def test_examples_are_pictures_with_three_expressions(tmp_path):
    examples = make_examples(tmp_path, count=3)
    assert len({path for path, _ in examples}) == 3
    for path, texts in examples:
        assert read_image(path, Limits()).shape[2] == 3
        assert len(set(texts)) == len(texts) == 3
    again = tmp_path / 'again'
    again.mkdir()
    assert [t for _, t in make_examples(again, 3)] == [t for _, t in examples]


def test_an_answer_is_a_picture_and_a_table(tmp_path):
    checkpoint = save_tiny(tmp_path / 'work' / 'a.pth', 0)
    models = SharedModels(name_checkpoints([checkpoint]), device='cpu')
    ((path, _),) = make_examples(tmp_path, count=1)
    text = 'red one\nstar'
    drawn, table = ground(models, Limits(), 'work/a.pth', path, text)
    found = models.predict('work/a.pth', read_image(path, Limits()), text.splitlines())
    for number, box in enumerate(found['bboxes']):
        assert (drawn == color_of(number)).all(-1).any()
        assert all(f'<td>{edge:.1f}</td>' in table for edge in box)
    assert table.index('red one') < table.index('star')
    with pytest.raises(WrongInput, match='Type what'):
        ground(models, Limits(), 'work/a.pth', path, '')


ROOM = ByteLimits(upload=50_000, body=1000, stored=100_000)
HOST = dict(host='127.0.0.1:7860')


@pytest.mark.parametrize(
    ('headers', 'status'),
    [
        (HOST, None),
        (dict(host='localhost:7860'), None),
        (dict(host='[::1]:7860'), None),
        (dict(HOST, origin='http://127.0.0.1:7860'), None),
        (dict(HOST, **{'content-length': '1000'}), None),
        (dict(HOST, **{'sec-fetch-site': 'same-origin'}), None),
        # A link on another page.
        (
            dict(
                HOST, **{'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate'}
            ),
            None,
        ),
        # Another name for this machine, and requests of other pages.
        ({}, 421),
        (dict(host='evil.example:7860'), 421),
        (dict(HOST, origin='http://evil.example'), 403),
        (dict(HOST, origin='http://127.0.0.1:8000'), 403),
        (dict(HOST, origin='null'), 403),
        (dict(HOST, **{'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'cors'}), 403),
        (dict(HOST, **{'content-length': '1001'}), 413),
        (dict(HOST, **{'content-length': '9' * 5000}), 413),
        (dict(HOST, **{'content-length': '-1'}), 413),
        (dict(HOST, **{'transfer-encoding': 'chunked'}), 411),
    ],
)
def test_heads_of_requests(headers, status):
    found = refusal('POST', False, headers, LOOPBACK, ROOM)
    assert (found and found[0]) == status


def test_any_name_where_all_machines_may_ask():
    headers = dict(host='shop.example', origin='https://shop.example')
    assert refusal('POST', False, headers, None, ROOM) is None
    headers['origin'] = 'https://evil.example'
    assert refusal('POST', False, headers, None, ROOM)[0] == 403


def test_an_upload_may_be_larger():
    headers = dict(HOST, **{'content-length': '50000'})
    assert refusal('POST', True, headers, LOOPBACK, ROOM) is None
    assert refusal('GET', True, headers, LOOPBACK, ROOM)[0] == 413


class Server:
    """Statuses of requests through a guard, whose app stores what is uploaded."""

    def __init__(self, folder):
        self.folder, self.waiting = folder, asyncio.Event()
        self.guard = Guard(self.app, LOOPBACK, ROOM, folder)
        self.asked = 0

    async def app(self, scope, receive, send):
        self.asked += 1
        await self.waiting.wait()
        await send(dict(type='http.response.start', status=200, headers=[]))

    async def ask(self, path, length, **more):
        sent = []

        async def send(message):
            sent.append(message)

        head = {**HOST, 'content-length': str(length), **more}
        scope = dict(type='http', method='POST', path=path)
        scope['headers'] = [(k.encode(), v.encode()) for k, v in head.items()]
        await self.guard(scope, None, send)
        return sent[0]['status']


def test_uploads_together_have_a_limit(tmp_path):
    async def run():
        server = Server(tmp_path)
        (tmp_path / 'sub').mkdir()
        (tmp_path / 'sub' / 'old').write_bytes(bytes(15_000))
        assert stored_bytes(tmp_path) == 15_000
        first = asyncio.create_task(server.ask('/gradio_api/upload', 50_000))
        await asyncio.sleep(0)
        # 15,000 are there and 50,000 on their way: 35,000 are left.
        assert await server.ask('/gradio_api/upload', 35_001) == 507
        second = asyncio.create_task(server.ask('/gradio_api/upload', 35_000))
        await asyncio.sleep(0)
        server.waiting.set()
        assert await first == await second == 200
        # They failed, so there is room again.
        assert await server.ask('/gradio_api/upload', 50_000) == 200
        assert server.asked == 3

    asyncio.run(run())


def test_what_is_refused_does_not_reach_the_app(tmp_path):
    async def run():
        server = Server(tmp_path)
        assert await server.ask('/run/ask', 400_000_000) == 413
        assert await server.ask('/run/ask', 10, origin='http://evil.example') == 403
        assert server.asked == 0

    asyncio.run(run())
