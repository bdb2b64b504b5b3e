"""Counters and latencies of a server, in the text format of Prometheus."""

import threading
from collections import Counter, deque
from collections.abc import Mapping

import numpy as np

__all__ = ['RequestMetrics']

# The latencies that percentiles are of.
_WINDOW = 2000


class RequestMetrics:
    """Requests by their status, and how long the successful ones took."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._seconds: deque[float] = deque(maxlen=_WINDOW)
        self._lock = threading.Lock()

    def record(self, status: int, seconds: float) -> None:
        """Count a request; of status 200 its latency is kept.

        Args:
            status (int): Of HTTP.
            seconds (float): From its head to its response.
        """
        with self._lock:
            self._counts[status] += 1
            if status == 200:
                self._seconds.append(seconds)

    def text(self, gauges: Mapping[str, float]) -> str:
        """All of it, a number a line.

        Args:
            gauges (Mapping[str, float]): Other numbers by their names.
        """
        with self._lock:
            counts, seconds = dict(self._counts), list(self._seconds)
        lines = [
            f'clip_vg_requests_total{{status="{status}"}} {count}'
            for status, count in sorted(counts.items())
        ]
        errors = sum(count for status, count in counts.items() if status >= 400)
        lines.append(f'clip_vg_errors_total {errors}')
        for quantile in (0.5, 0.95):
            value = np.quantile(seconds, quantile) if seconds else float('nan')
            lines.append(
                f'clip_vg_request_seconds{{quantile="{quantile}"}} {value:.6f}'
            )
        lines += [f'clip_vg_{name} {value:g}' for name, value in gauges.items()]
        return '\n'.join(lines) + '\n'
