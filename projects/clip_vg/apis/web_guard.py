"""Which requests a page takes at all, told by their heads before anything is read."""

import os
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

__all__ = ['LOOPBACK', 'Guard', 'Room', 'refusal', 'stored_bytes']

LOOPBACK = frozenset({'localhost', '127.0.0.1', '::1'})
# A multipart form's own bytes, beside the file in it.
_FORM = 10_000


@dataclass(frozen=True)
class Room:
    """How many bytes may come in.

    Args:
        upload (int): Of a file.
        body (int): Of any other request, which brings texts.
        stored (int): Of all files together, drawn images included. Defaults to 1 GB.
    """

    upload: int
    body: int
    stored: int = 1_000_000_000


def stored_bytes(folder: Path) -> int:
    """Bytes of all files in a folder and below it."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except FileNotFoundError:  # deleted meanwhile
                continue
    return total


def refusal(
    method: str,
    is_upload: bool,
    headers: Mapping[str, str],
    hosts: Collection[str] | None,
    room: Room,
) -> tuple[int, str] | None:
    """Why a request is refused.

    Args:
        method (str): Of HTTP.
        is_upload (bool): Whether it brings a file.
        headers (Mapping[str, str]): Names in lower case.
        hosts (Collection[str], optional): Names that the server may be called by; None:
            any. Of a server on this machine alone, another name is a page elsewhere
            that has had its own name resolved to this machine.
        room (Room): How much may come in.

    Returns:
        tuple[int, str], optional: Status and reason; None: it is taken.
    """
    host = headers.get('host', '')
    if hosts is not None and urlsplit(f'//{host}').hostname not in hosts:
        return 421, 'This server is not called by that name.'
    origin = headers.get('origin')
    if origin is not None and urlsplit(origin).netloc != host:
        return 403, 'Requests of other pages are refused.'
    site = headers.get('sec-fetch-site', 'same-origin')
    if site == 'cross-site' and headers.get('sec-fetch-mode') != 'navigate':
        return 403, 'Requests of other pages are refused.'
    if 'transfer-encoding' in headers:
        return 411, 'Say how long the body is (Content-Length).'
    length = headers.get('content-length', '0')
    most = room.upload + _FORM if is_upload and method == 'POST' else room.body
    if not length.isdecimal() or len(length) > 15 or int(length) > most:
        return 413, f'At most {most:,} bytes are read.'
    return None


class Guard:
    """Middleware of a server (ASGI) that refuses by :func:`refusal`.

    Args:
        app (Callable): What is guarded.
        hosts (Collection[str], optional): See :func:`refusal`.
        room (Room): How much may come in.
        folder (Path): Where files are stored.
    """

    def __init__(
        self,
        app: Callable[..., Awaitable[None]],
        hosts: Collection[str] | None,
        room: Room,
        folder: Path,
    ) -> None:
        self.app, self.hosts, self.room, self.folder = app, hosts, room, folder
        self._coming = 0

    async def __call__(
        self, scope: dict[str, Any], receive: Callable, send: Callable
    ) -> None:
        """Pass a request on, or say why not."""
        if scope['type'] == 'lifespan':
            await self.app(scope, receive, send)
            return
        if scope['type'] != 'http':  # nothing here speaks WebSocket
            await send(dict(type='websocket.close', code=1008))
            return
        headers = {
            name.decode('latin1').lower(): value.decode('latin1')
            for name, value in scope['headers']
        }
        is_upload = scope['path'].rstrip('/').endswith('/upload')
        why = refusal(scope['method'], is_upload, headers, self.hosts, self.room)
        length = int(headers.get('content-length') or 0) if why is None else 0
        if why is None and is_upload:
            held = stored_bytes(self.folder) + self._coming
            if held + length > self.room.stored:
                why = 507, 'There is no room for more files. Try again in an hour.'
        if why is not None:
            await _answer(send, *why)
            return
        self._coming += length if is_upload else 0
        try:
            await self.app(scope, receive, send)
        finally:
            self._coming -= length if is_upload else 0


async def _answer(send: Callable, status: int, text: str) -> None:
    head = [(b'content-type', b'text/plain; charset=utf-8'), (b'connection', b'close')]
    await send(dict(type='http.response.start', status=status, headers=head))
    await send(dict(type='http.response.body', body=text.encode()))
