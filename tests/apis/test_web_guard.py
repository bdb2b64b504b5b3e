"""Requests that a page refuses by their heads."""

import asyncio

import pytest

from projects.clip_vg.apis.web_guard import (
    LOOPBACK,
    Guard,
    Room,
    refusal,
    stored_bytes,
)

ROOM = Room(upload=50_000, body=1000, stored=100_000)
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
