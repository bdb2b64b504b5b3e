"""The HTTP server of an exported folder under load, on this machine.

    python benchmarks/server.py served --concurrency 1 2 4 8 16

Starts `python -m projects.clip_vg_core.runtime FOLDER --serve` and sends it requests
from as many threads: images that are new to it, then images that it has encoded before.
Each response is compared with the boxes of `ExportedInferencer`. Then the server is
killed and started again in the middle of requests, which are sent again until they
have a response.
Prints requests and expressions a second, p50 and p95, and the CPU time of the server,
which is what tells on a machine that others use. --short is over in seconds.
"""

import argparse
import base64
import io
import json
import logging
import os
import platform
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from projects.clip_vg_core.runtime.exported_inferencer import ExportedInferencer
from projects.clip_vg_core.runtime.graphs import BACKENDS, PRECISIONS
from projects.clip_vg_core.utils.command_line import run_command

ROOT = Path(__file__).parents[1]
WORDS = ['red', 'left', 'small', 'circle', 'star', 'the big blue', 'upper', 'cross']
# Of a request that found no server, or a full queue, before it comes again.
PAUSE = 0.05
PATIENCE = 120.0


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', type=Path, help='exported folder')
    parser.add_argument(
        '--concurrency',
        type=int,
        nargs='+',
        default=[1, 2, 4, 8, 16],
        help='threads that ask (default: 1 2 4 8 16)',
    )
    parser.add_argument(
        '--requests',
        type=int,
        default=200,
        help='requests of each row (default: %(default)s)',
    )
    parser.add_argument(
        '--images',
        type=int,
        default=50,
        help='different images of 640 x 480 (default: %(default)s)',
    )
    parser.add_argument(
        '--expressions',
        type=int,
        default=7,
        help='expressions of a request (default: %(default)s)',
    )
    parser.add_argument(
        '--backend',
        choices=BACKENDS,
        help='what runs the graphs (default: the first that is installed)',
    )
    parser.add_argument(
        '--precision',
        choices=PRECISIONS,
        default='f32',
        help='precision of the graphs (default: %(default)s)',
    )
    parser.add_argument(
        '--short',
        action='store_true',
        help='20 requests of 5 images by 1 and 4 threads (default: as above)',
    )
    args = parser.parse_args()
    if args.short:
        args.concurrency, args.requests, args.images = [1, 4], 20, 5
    return args


@dataclass
class Request:
    """A request, and the boxes that its response must have."""

    body: bytes
    expected: list[list[list[float]]]

    def check(self, response: dict[str, Any]) -> bool:
        """Whether the boxes are those of the inferencer, to a hundredth of a pixel."""
        found = [own['boxes'] for own in response['predictions']]
        if [len(own) for own in found] != [len(own) for own in self.expected]:
            return False
        pairs = zip(found, self.expected, strict=True)
        return all(np.allclose(one, other, atol=0.01) for one, other in pairs if one)


@dataclass
class Load:
    """What came of the requests of a row."""

    seconds: list[float] = field(default_factory=list)
    completed: list[float] = field(default_factory=list)
    wrong: int = 0
    again: int = 0
    lost: int = 0


def make_requests(args: argparse.Namespace) -> list[Request]:
    """Photograph-like JPEG files with random expressions, and their boxes."""
    rng = np.random.default_rng(0)
    infer = ExportedInferencer(
        args.folder, backend=args.backend, precision=args.precision
    )
    requests = []
    for _ in range(args.images):
        small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
        file = io.BytesIO()
        small.resize((640, 480)).save(file, 'JPEG', quality=90)
        texts = [' '.join(rng.choice(WORDS, 3)) for _ in range(args.expressions)]
        file.seek(0)
        with Image.open(file) as image:
            (found,) = infer(image, texts)['predictions']
        boxes: list[list[list[float]]] = [[] for _ in texts]
        for label, box in zip(found['labels'], found['bboxes'], strict=True):
            boxes[label].append(box)
        image_text = base64.b64encode(file.getvalue()).decode()
        body = json.dumps(dict(image=image_text, expressions=texts)).encode()
        requests.append(Request(body, boxes))
    return requests


class Server:
    """The server in a process of its own, which can be killed and started again.

    Args:
        args (Namespace): Of this benchmark.
        cache (int): Bytes of encoded images that it keeps.
    """

    def __init__(self, args: argparse.Namespace, cache: int) -> None:
        self.command = [
            *(sys.executable, '-m', 'projects.clip_vg_core.runtime', args.folder),
            *('--serve', '--cache', cache, '--precision', args.precision),
            *(('--backend', args.backend) if args.backend else ()),
        ]
        self.port = 0
        self.start()

    def start(self) -> float:
        """Start it, and wait until it listens; the seconds that took."""
        begun = time.perf_counter()
        self.process = subprocess.Popen(
            [*map(str, self.command), '--port', str(self.port)],
            stderr=subprocess.PIPE,
            text=True,
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
        )
        said = []
        assert self.process.stderr is not None
        for line in self.process.stderr:
            said.append(line)
            if match := re.search(r'running on http://127\.0\.0\.1:(\d+)', line):
                self.port = int(match[1])
                break
        else:
            raise RuntimeError(f'The server did not start: {"".join(said)[-1000:]}')
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        return time.perf_counter() - begun

    def kill(self) -> None:
        """End it at once, as a machine that loses its power."""
        self.process.kill()
        self.process.wait()

    def cpu_seconds(self) -> float:
        """Of all its threads since it started; NaN where Linux does not tell."""
        try:
            stat = Path(f'/proc/{self.process.pid}/stat').read_text()
        except OSError:
            return float('nan')
        user, system = stat.rpartition(')')[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf('SC_CLK_TCK')

    def peak_mib(self) -> float:
        """Most memory that was resident; NaN where Linux does not tell."""
        try:
            status = Path(f'/proc/{self.process.pid}/status').read_text()
        except OSError:
            return float('nan')
        return int(re.search(r'VmHWM:\s+(\d+)', status)[1]) / 1024


@contextmanager
def started(args: argparse.Namespace, cache: int) -> Iterator[Server]:
    """A server that is killed in the end."""
    server = Server(args, cache)
    try:
        yield server
    finally:
        server.kill()


def send_until_response(
    server: Server, request: Request, load: Load, lock: threading.Lock
) -> None:
    """Send a request, again where the server is full or gone; check the response."""
    begun = time.perf_counter()
    while time.perf_counter() - begun < PATIENCE:
        connection = HTTPConnection('127.0.0.1', server.port, timeout=PATIENCE)
        tried = time.perf_counter()
        try:
            headers = {'Content-Type': 'application/json'}
            connection.request('POST', '/ground', request.body, headers)
            response = connection.getresponse()
            text = response.read()
        except (OSError, HTTPException):
            response = None
        finally:
            connection.close()
        now = time.perf_counter()
        with lock:
            if response is not None and response.status != 503:
                right = response.status == 200 and request.check(json.loads(text))
                load.wrong += not right
                load.seconds.append(now - tried)
                load.completed.append(now)
                return
            load.again += 1
        time.sleep(PAUSE)
    with lock:
        load.lost += 1


def run_load(server: Server, requests: list[Request], threads: int, count: int) -> Load:
    """Send so many requests, in turn, from so many threads."""
    load, lock = Load(), threading.Lock()
    with ThreadPoolExecutor(threads) as pool:
        for number in range(count):
            request = requests[number % len(requests)]
            pool.submit(send_until_response, server, request, load, lock)
    return load


def report(name: str, load: Load, count: int) -> None:
    """Log what was lost or wrong; it ends the benchmark.

    Raises:
        RuntimeError: There is any.
    """
    if load.lost or load.wrong or len(load.seconds) != count:
        raise RuntimeError(
            f'{name}: {load.lost} requests lost, {load.wrong} responses wrong, '
            f'{len(load.seconds)} of {count} requests completed.'
        )


def measure(args: argparse.Namespace, requests: list[Request], known: bool) -> None:
    """Log a table: throughput and latency by the number of threads that send."""
    name = 'known images' if known else 'new images'
    # Without a cache every image is new; with one it is sent once beforehand.
    with started(args, 512_000_000 if known else 0) as server:
        report('warm-up', run_load(server, requests, 2, args.images), args.images)
        for threads in args.concurrency:
            before, begun = server.cpu_seconds(), time.perf_counter()
            load = run_load(server, requests, threads, args.requests)
            seconds = time.perf_counter() - begun
            used = server.cpu_seconds() - before
            report(name, load, args.requests)
            p50, p95 = 1000 * np.quantile(load.seconds, [0.5, 0.95])
            rate = args.requests / seconds
            logging.info(
                '| %s | %d | %.1f | %.0f | %.0f | %.0f | %.1f | %d |',
                *(name, threads, rate, rate * args.expressions, p50, p95),
                *(1000 * used / args.requests, load.again),
            )
        logging.info('%s: %.0f MiB resident at most', name, server.peak_mib())


def kill_under_load(args: argparse.Namespace, requests: list[Request]) -> None:
    """Kill the server in the midst of requests, start it again, and count."""
    with started(args, 64_000_000) as server:
        restarted: list[float] = []

        def restart() -> None:
            before = server.port
            server.kill()
            restarted.append(server.start())
            assert server.port == before

        first = run_load(server, requests, 4, args.requests // 2)
        timer = threading.Timer(0.3 * sum(first.seconds) / 4, restart)
        timer.start()
        load = run_load(server, requests, 4, args.requests)
        timer.join()
    report('killed', load, args.requests)
    gap = max(np.diff(sorted(load.completed)))
    logging.info(
        'killed and started again under load: %d requests, all completed, all right; '
        '%d tries came again; %.1f s without a response, %.1f s of them the start',
        *(args.requests, load.again, gap, restarted[0]),
    )


def processor() -> str:
    """The name of the processor."""
    try:
        text = Path('/proc/cpuinfo').read_text()
    except OSError:  # not Linux
        return platform.processor()
    names = re.findall(r'model name\s*: (.*)', text)
    return f'{names[0] if names else platform.machine()}, {os.cpu_count()} cores'


def timed(action: Callable[[], object]) -> float:
    """Seconds that an action takes."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def main() -> None:
    """Measure, and log a table."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    load = f', load {os.getloadavg()[0]:.1f}' if hasattr(os, 'getloadavg') else ''
    logging.info('%s, Python %s%s', processor(), platform.python_version(), load)
    requests = make_requests(args)
    with started(args, 0) as server:
        one = timed(lambda: run_load(server, requests, 1, 1))
        logging.info(
            'start: %.2f s of CPU until the first response, which took %.2f s; '
            '%.0f MiB resident at most',
            *(server.cpu_seconds(), one, server.peak_mib()),
        )
    logging.info(
        '| images | threads | requests/s | expressions/s | p50 ms | p95 ms | CPU ms of '
        'a request | 503 |\n|---|---|---|---|---|---|---|---|'
    )
    for known in (False, True):
        measure(args, requests, known)
    kill_under_load(args, requests)


if __name__ == '__main__':
    run_command(main)
