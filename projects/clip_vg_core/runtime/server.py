"""HTTP server of an exported folder: one image and many expressions a request."""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from .exported_inferencer import ExportedInferencer, GroundableImage
from .graphs import import_extra
from .image_cache import ImageCache
from .limits import LOOPBACK, ByteLimits, Limits, refusal
from .metrics import RequestMetrics
from .requests import RequestError, decode_image, parse_request

__all__ = ['GroundingService', 'ServerOptions', 'make_app', 'serve']

_LOGGER = logging.getLogger(__name__)
# Connections at a time; uvicorn refuses further ones by 503.
_CONNECTIONS = 256


@dataclass(frozen=True)
class ServerOptions:
    """How much a server takes at a time.

    Args:
        limits (Limits): Of a request. Defaults to 40,000,000 pixels and 100
            expressions of 200 characters.
        body (int): Most bytes of a request. Defaults to 14,000,000, in base64 an image
            of 10 MB.
        held (int): Most bytes of all requests that are being read, wait or run.
            Defaults to 128,000,000.
        queue (int): Most requests that wait; the next gets 503. Defaults to 16.
        workers (int): Requests that run at a time. Defaults to 1, as each runs on all
            threads of the inferencer.
        seconds (float): Most seconds in which a body has to come. Defaults to 10.
        cache (int): Most bytes of encoded images that are kept. Defaults to
            64,000,000.
    """

    limits: Limits = field(default_factory=lambda: Limits(expressions=100))
    body: int = 14_000_000
    held: int = 128_000_000
    queue: int = 16
    workers: int = 1
    seconds: float = 10.0
    cache: int = 64_000_000


class GroundingService:
    """Grounds the expressions of requests; an image that comes again is not encoded.

    Args:
        inferencer (ExportedInferencer): What predicts.
        options (ServerOptions): How much is taken.
    """

    def __init__(self, inferencer: ExportedInferencer, options: ServerOptions) -> None:
        self.inferencer, self.options = inferencer, options
        self.images: ImageCache[GroundableImage] = ImageCache(options.cache)
        self.metrics = RequestMetrics()
        self.held = self.waiting = 0
        self.pool = ThreadPoolExecutor(options.workers, 'ground')

    def ground(self, body: bytes) -> dict[str, Any]:
        """The content of the response to a request.

        Args:
            body (bytes): See :func:`parse_request`.

        Returns:
            dict: ``width`` and ``height`` of the upright image; ``predictions``, for
            each expression its ``boxes`` (xyxy in pixels) and ``scores`` (each None of
            a detector without scores), the best first, none if it is not in the image;
            and whether the image was ``cached``.

        Raises:
            RequestError: It is refused.
        """
        request = parse_request(body, self.options.limits)
        key = hashlib.sha256(request.image).digest()
        image = self.images.get(key)
        cached = image is not None
        if image is None:
            pixels = decode_image(request.image, self.options.limits)
            (image,) = self.inferencer.encode([pixels])
            self.images.put(key, image, image.encoded.num_bytes)
        (found,) = self.inferencer.ground([image], [request.expressions])
        predictions = [
            dict(expression=text, boxes=[], scores=[]) for text in request.expressions
        ]
        for label, box, score in zip(
            *(found[name] for name in ('labels', 'bboxes', 'scores')), strict=True
        ):
            predictions[label]['boxes'].append(box)
            predictions[label]['scores'].append(score)
        height, width = image.shape
        return dict(width=width, height=height, cached=cached, predictions=predictions)

    async def respond(self, request: Any) -> dict[str, Any]:
        """Read a request of Starlette, wait for its turn, and ground it.

        Raises:
            RequestError: It is refused, or there is no room for it now.
        """
        kind = request.headers.get('content-type', '').partition(';')[0]
        if kind.strip().lower() != 'application/json':
            raise RequestError(415, 'Expected Content-Type: application/json.')
        length = int(request.headers.get('content-length', '0'))
        if self.waiting >= self.options.queue + self.options.workers:
            raise RequestError(503, 'The queue is full.')
        if self.held + length > self.options.held:
            raise RequestError(503, 'Too many bytes are being read.')
        self.held += length
        try:
            body = await self._read(request, length)
            if self.waiting >= self.options.queue + self.options.workers:
                raise RequestError(503, 'The queue is full.')
            self.waiting += 1
            try:
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self.pool, self.ground, body)
            finally:
                self.waiting -= 1
        finally:
            self.held -= length

    async def _read(self, request: Any, length: int) -> bytes:
        """The body, in time."""

        async def read() -> bytes:
            body = bytearray()
            async for chunk in request.stream():
                body += chunk
                if len(body) > length:
                    raise RequestError(413, 'The body is longer than its length.')
            return bytes(body)

        try:
            return await asyncio.wait_for(read(), self.options.seconds)
        except asyncio.TimeoutError:
            raise RequestError(
                408, f'The body did not come in {self.options.seconds:g} seconds.'
            ) from None

    def gauges(self) -> dict[str, float]:
        """What is held now, by the names of the metrics."""
        images = self.images
        return dict(
            queue=max(0, self.waiting - self.options.workers),
            running=min(self.waiting, self.options.workers),
            held_bytes=self.held,
            image_cache_hits_total=images.hits,
            image_cache_misses_total=images.misses,
            image_cache_bytes=images.held_bytes,
            image_cache_images=len(images),
        )


class _Endpoints:
    """What is served: each is checked, and a failure is a response.

    Args:
        service (GroundingService): What predicts.
        hosts (Collection[str], optional): See :func:`refusal`.
    """

    def __init__(
        self, service: GroundingService, hosts: Collection[str] | None
    ) -> None:
        self.service, self.hosts = service, hosts
        self.byte_limits = ByteLimits(upload=0, body=service.options.body)
        self.responses = import_extra('starlette.responses')
        self.disconnect = import_extra('starlette.requests').ClientDisconnect

    def refuse(self, status: int, text: str) -> Any:
        """The response to a request that is refused."""
        headers = {'connection': 'close'}
        if status == 503:
            headers['retry-after'] = '1'
        return self.responses.JSONResponse(dict(error=text), status, headers)

    def check(self, request: Any) -> Any | None:
        """The response, if its head is enough to refuse a request."""
        why = refusal(
            request.method, False, request.headers, self.hosts, self.byte_limits
        )
        return self.refuse(*why) if why else None

    async def ground(self, request: Any) -> Any:
        """POST /ground."""
        begun = time.perf_counter()
        response = self.check(request)
        if response is None:
            response = await self._grounded(request)
        seconds = time.perf_counter() - begun
        self.service.metrics.record(response.status_code, seconds)
        return response

    async def _grounded(self, request: Any) -> Any:
        try:
            content = await self.service.respond(request)
            return self.responses.JSONResponse(content)
        except RequestError as error:
            return self.refuse(error.status, str(error))
        except self.disconnect:
            return self.refuse(400, 'The connection was closed.')
        except Exception:
            _LOGGER.exception('A request failed.')
            return self.refuse(500, 'The server failed; its log has more.')

    async def health(self, request: Any) -> Any:
        """GET /health."""
        return self.check(request) or self.responses.JSONResponse(dict(status='ok'))

    async def metrics(self, request: Any) -> Any:
        """GET /metrics."""
        text = self.service.metrics.text(self.service.gauges())
        return self.check(request) or self.responses.PlainTextResponse(text)


def make_app(service: GroundingService, host: str = '127.0.0.1') -> Any:
    """The application (ASGI): ``POST /ground``, ``GET /health``, ``GET /metrics``.

    Args:
        service (GroundingService): What predicts.
        host (str): Where it will be served: on this machine alone, names of other
            machines are refused. Defaults to '127.0.0.1'.
    """
    route = import_extra('starlette.routing').Route
    endpoints = _Endpoints(service, LOOPBACK if host in LOOPBACK else None)

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        del app
        yield
        service.pool.shutdown()

    return import_extra('starlette.applications').Starlette(
        routes=[
            route('/ground', endpoints.ground, methods=['POST']),
            route('/health', endpoints.health, methods=['GET']),
            route('/metrics', endpoints.metrics, methods=['GET']),
        ],
        lifespan=lifespan,
    )


def serve(
    inferencer: ExportedInferencer, host: str, port: int, options: ServerOptions
) -> None:
    """Serve until the process is stopped; requests that run then are finished.

    Args:
        inferencer (ExportedInferencer): What predicts.
        host (str): Address; 127.0.0.1 is for this machine alone.
        port (int): 0 takes a free one, which the log names.
        options (ServerOptions): How much is taken.
    """
    uvicorn = import_extra('uvicorn')
    app = make_app(GroundingService(inferencer, options), host)
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level='info',
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws='none',
        http='h11',
        loop='asyncio',
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=30,
    )
