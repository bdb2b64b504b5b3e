"""The HTTP server: right boxes under load, and 4xx for all that is no request."""

import base64
import contextlib
import io
import json
import socket
import sys
import sysconfig
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import numpy as np
import pytest
from PIL import Image

from projects.clip_vg_core.runtime.exported_inferencer import ExportedInferencer
from projects.clip_vg_core.runtime.limits import Limits
from projects.clip_vg_core.runtime.server import (
    GroundingService,
    ServerOptions,
    make_app,
)

from ..helpers import ROOT
from ..helpers.commands import run

pytest.importorskip('onnxscript')
uvicorn = pytest.importorskip('uvicorn')
pytest.importorskip('starlette')
TEXTS = ['red circle', 'star on the left', 'schön &amp; 😀', 'left']
OPTIONS = ServerOptions(
    limits=Limits(pixels=200_000, expressions=8, characters=50),
    body=1_000_000,
    held=2_500_000,
    queue=2,
    seconds=0.5,
    cache=100_000,
)
JSON = {'Content-Type': 'application/json'}


def make_images(count=6):
    """Files of images, and the images."""
    rng = np.random.default_rng(0)
    for number in range(count):
        size = int(rng.integers(20, 60)), int(rng.integers(20, 60)), 3
        pixels = rng.integers(0, 256, size, np.uint8)
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, 'PNG')
        yield out.getvalue(), pixels[..., ::-1], TEXTS[: 1 + number % 4]


def body_of(image, expressions):
    image = base64.b64encode(image).decode()
    return json.dumps(dict(image=image, expressions=expressions)).encode()


@contextlib.contextmanager
def served(infer, options=OPTIONS):
    """A port at which it is served, and the service."""
    service = GroundingService(infer, options)
    config = uvicorn.Config(
        make_app(service), port=0, log_level='warning', ws='none', http='h11'
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1], service
    finally:
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive()


@pytest.fixture(scope='module')
def infer(variant_folder):
    pytest.importorskip('onnxruntime')
    return ExportedInferencer(variant_folder, backend='onnxruntime', threads=1)


@pytest.fixture(scope='module')
def server(infer):
    with served(infer) as started:
        yield started


def ask(port, body=None, method='POST', path='/ground', headers=JSON):
    """Status, headers and JSON or text of the response."""
    connection = HTTPConnection('127.0.0.1', port, timeout=60)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        text = response.read().decode()
        is_json = 'json' in response.headers['content-type']
        return response.status, response.headers, json.loads(text) if is_json else text
    finally:
        connection.close()


def metrics(port):
    text = ask(port, method='GET', path='/metrics')[2]
    return {k: float(v) for k, v in (line.rsplit(' ', 1) for line in text.splitlines())}


def check(response, image, expected):
    assert (response['height'], response['width']) == image.shape[:2]
    rows = [
        (label, box, score)
        for label, own in enumerate(response['predictions'])
        for box, score in zip(own['boxes'], own['scores'], strict=True)
    ]
    assert [row[0] for row in rows] == expected['labels']
    assert [row['expression'] for row in response['predictions']] == expected['texts']
    np.testing.assert_allclose([row[1] for row in rows], expected['bboxes'], atol=0.01)
    np.testing.assert_allclose([row[2] for row in rows], expected['scores'], atol=1e-4)


def test_boxes_are_those_of_the_inferencer_and_an_image_is_encoded_once(server, infer):
    port, service = server
    before = metrics(port)
    for image, pixels, texts in make_images(3):
        (expected,) = infer(pixels, texts)['predictions']
        for cached in (False, True):
            status, _, response = ask(port, body_of(image, texts))
            assert status == 200 and response['cached'] is cached
            check(response, pixels, expected)
    after = metrics(port)
    for name in ('hits', 'misses'):
        name = f'clip_vg_image_cache_{name}_total'
        assert after[name] - before[name] == 3
    assert 0 < after['clip_vg_image_cache_bytes'] <= OPTIONS.cache
    assert service.images.held_bytes == after['clip_vg_image_cache_bytes']
    assert after['clip_vg_request_seconds{quantile="0.95"}'] > 0
    assert ask(port, method='GET', path='/health')[2] == dict(status='ok')


def test_a_detector_without_scores_says_null(folder):
    image, _, texts = next(make_images())
    with served(ExportedInferencer(folder, backend='onnxruntime')) as (port, _):
        _, _, response = ask(port, body_of(image, texts))
    assert [own['scores'] for own in response['predictions']] == [[None]] * len(texts)
    assert all(len(own['boxes']) == 1 for own in response['predictions'])


def test_an_expression_may_have_no_box(infer):
    image, pixels, texts = next(make_images())
    infer = ExportedInferencer(infer.model.folder, backend='onnxruntime', score_thr=1.1)
    with served(infer) as (port, _):
        _, _, response = ask(port, body_of(image, texts))
    assert response['predictions'] == [dict(expression=texts[0], boxes=[], scores=[])]


def test_many_at_once_get_their_own_boxes_or_are_told_to_come_again(server, infer):
    port, _ = server
    given = list(make_images())
    expected = [infer(pixels, texts)['predictions'][0] for _, pixels, texts in given]
    refused = []

    def visit(number):
        image, pixels, texts = given[number % len(given)]
        while True:
            status, headers, response = ask(port, body_of(image, texts))
            if status == 200:
                return check(response, pixels, expected[number % len(given)])
            assert status == 503 and int(headers['retry-after']) >= 1
            refused.append(number)
            time.sleep(0.01)

    before = metrics(port)['clip_vg_requests_total{status="200"}']
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(visit, range(80)))
    after = metrics(port)
    assert after['clip_vg_requests_total{status="200"}'] - before == 80
    if refused:
        assert after['clip_vg_requests_total{status="503"}'] >= len(refused)
    assert after['clip_vg_queue'] == after['clip_vg_held_bytes'] == 0


def test_the_queue_is_bounded(infer, monkeypatch):
    """One runs, two wait, the fourth is refused; all that were taken are finished."""
    gate, inside = threading.Event(), threading.Event()
    ground = infer.ground

    def waiting(*args):
        inside.set()
        assert gate.wait(60)
        return ground(*args)

    monkeypatch.setattr(infer, 'ground', waiting)
    image, pixels, texts = next(make_images())
    body = body_of(image, texts)
    with served(infer) as (port, service), ThreadPoolExecutor(3) as pool:
        taken = [pool.submit(ask, port, body)]
        assert inside.wait(60)
        taken += [pool.submit(ask, port, body) for _ in range(2)]
        while service.waiting < 3:
            time.sleep(0.01)
        found = metrics(port)
        assert (found['clip_vg_queue'], found['clip_vg_running']) == (2, 1)
        status, headers, _ = ask(port, body)
        assert status == 503 and headers['retry-after'] == '1'
        gate.set()
        assert [one.result()[0] for one in taken] == [200] * 3


IMAGE, _, EXPRESSIONS = next(make_images())
GOOD = body_of(IMAGE, EXPRESSIONS)


def png_bomb():
    out = io.BytesIO()
    Image.new('L', (12_000, 12_000)).save(out, 'PNG')
    return out.getvalue()


@pytest.mark.parametrize(
    ('status', 'body', 'options'),
    [
        (415, GOOD, dict(headers={'Content-Type': 'text/plain'})),
        (415, GOOD, dict(headers={})),
        (421, GOOD, dict(headers=dict(JSON, Host='elsewhere.example'))),
        (403, GOOD, dict(headers=dict(JSON, Origin='http://elsewhere.example'))),
        (411, iter([GOOD]), dict(headers=JSON)),
        (413, b' ' * 1_000_001, {}),
        (413, b'', dict(headers=dict(JSON, **{'Content-Length': '9' * 18}))),
        (400, b'', {}),
        (400, b'{' + b'[' * 50, {}),
        (400, GOOD[:-5], {}),
        (400, b'\x00' * 1000, {}),
        (400, body_of(IMAGE[: len(IMAGE) // 2], ['left']), {}),
        (400, body_of(b'/etc/passwd', ['left']), {}),
        (400, GOOD.replace(b'"image": "', b'"image": "../../etc/passwd'), {}),
        (413, body_of(png_bomb(), ['left']), {}),
        (413, body_of(IMAGE, ['a'] * 10_000), {}),
        (413, body_of(IMAGE, ['a' * 900_000]), {}),
        (400, body_of(IMAGE, ['a\x00']), {}),
        (400, body_of(IMAGE, [dict(a=1)]), {}),
        (404, GOOD, dict(path='/ground/../../../etc/passwd')),
        (404, None, dict(path='/%2e%2e/%2e%2e/etc/passwd', method='GET')),
        (404, None, dict(path='//etc/passwd', method='GET')),
        (405, None, dict(method='GET')),
        (405, GOOD, dict(path='/health')),
        (405, GOOD, dict(method='PUT')),
    ],
)
def test_bad_requests_are_refused_and_the_next_is_served(server, status, body, options):
    port, _ = server
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        # The server may have closed the connection before all was sent.
        assert ask(port, body, **options)[0] == status
    assert ask(port, GOOD)[0] == 200


def send_slowly(port, length, pieces, seconds):
    """The first line of the response to a body that comes in pieces."""
    head = (
        'POST /ground HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n'
        f'Content-Length: {length}\r\n\r\n'
    )
    with socket.create_connection(('127.0.0.1', port), timeout=30) as connection:
        connection.sendall(head.encode())
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(seconds)
        return connection.recv(1000).decode().partition('\r\n')[0]


def test_slow_bodies_are_given_up_and_hold_nothing(server):
    port, service = server
    assert '408' in send_slowly(port, 1000, [b' '] * 9, 0.1)
    assert '408' in send_slowly(port, 1000, [], 0)
    # Two of a megabyte are held; a third passes the bytes of all.
    with ThreadPoolExecutor(2) as pool:
        held = [pool.submit(send_slowly, port, 1_000_000, [], 0) for _ in range(2)]
        while service.held < 2_000_000:
            time.sleep(0.005)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            assert ask(port, GOOD + b' ' * 900_000)[0] == 503
        assert all('408' in one.result() for one in held)
    with socket.create_connection(('127.0.0.1', port)) as connection:
        connection.sendall(b'POST /ground HTTP/1.1\r\nHost: localhost\r\n')  # and goes
    assert ask(port, GOOD)[0] == 200
    assert service.held == 0 and service.waiting == 0


def test_no_request_opens_a_file(server):
    """But for modules that are imported when they are first needed."""
    port, _ = server
    opened, watched = [], [False]

    def hook(event, args):
        if watched[0] and event == 'open':
            opened.append((str(args[0]), args[1]))

    sys.addaudithook(hook)
    watched[0] = True
    try:
        for image, _, texts in make_images():
            assert ask(port, body_of(image, texts))[0] in (200, 503)
        for path in ('/etc/passwd', 'file:///etc/passwd', '../setup.py'):
            body = json.dumps(dict(image=path, expressions=[path])).encode()
            assert ask(port, body)[0] == 400
            assert ask(port, body_of(path.encode(), ['left']))[0] == 400
            assert ask(port, None, 'GET', f'/{path}')[0] in (400, 404)
    finally:
        watched[0] = False
    own = [sysconfig.get_path(name) for name in ('stdlib', 'purelib', 'platlib')]
    for path, mode in opened:
        assert path.startswith(tuple(own)) and 'w' not in (mode or 'r'), path


@pytest.mark.slow
def test_the_load_test_loses_nothing_when_the_server_is_killed(variant_folder):
    """The benchmark ends by an error if a response is wrong or missing."""
    done = run(
        *(sys.executable, ROOT / 'benchmarks' / 'server.py', variant_folder),
        '--short',
    )
    assert 'killed and started again under load: 20 requests' in done.stderr
