"""The cache of encoded images, and the numbers of a server."""

import numpy as np
import pytest

from projects.clip_vg_core.runtime.image_cache import ImageCache
from projects.clip_vg_core.runtime.metrics import RequestMetrics

from ...helpers.threads import predict_in_threads


def test_what_was_used_longest_ago_goes():
    cache = ImageCache(10)
    for key in (b'a', b'b'):
        cache.put(key, key, 4)
    assert cache.get(b'a') == b'a'
    cache.put(b'c', b'c', 4)
    assert [cache.get(key) for key in (b'a', b'b', b'c')] == [b'a', None, b'c']
    assert (cache.hits, cache.misses, cache.held_bytes, len(cache)) == (3, 1, 8, 2)
    cache.put(b'large', b'large', 11)
    cache.put(b'a', b'other', 4)
    assert cache.get(b'large') is None and cache.get(b'a') == b'a'
    assert cache.held_bytes == 8


@pytest.mark.parametrize('most', [0, 1000, 10**6])
def test_threads_get_what_was_put_and_bytes_stay_bounded(most):
    cache = ImageCache(most)
    sizes = np.random.default_rng(0).integers(1, 300, 200)

    def use(number):
        key = b'%d' % number
        found = cache.get(key)
        if found is None:
            cache.put(key, number, int(sizes[number]))
        assert cache.held_bytes <= most + 4 * 300
        return number if found is None else found

    for found in predict_in_threads(use, range(200)):
        assert found == list(range(200))
    assert cache.held_bytes <= most
    assert cache.held_bytes == sum(size for _, size in cache._values.values())
    assert cache.hits + cache.misses == 800
    assert len(cache) == (200 if most == 10**6 else len(cache))


def numbers(text):
    return dict(line.rsplit(' ', 1) for line in text.splitlines())


def test_percentiles_are_of_what_was_answered():
    metrics = RequestMetrics()
    empty = numbers(metrics.text({}))
    assert empty['clip_vg_request_seconds{quantile="0.5"}'] == 'nan'
    for millisecond in range(1, 101):
        metrics.record(200, millisecond / 1000)
    metrics.record(413, 100.0)
    metrics.record(503, 100.0)
    found = numbers(metrics.text(dict(queue=3)))
    assert found['clip_vg_requests_total{status="200"}'] == '100'
    assert found['clip_vg_requests_total{status="413"}'] == '1'
    assert found['clip_vg_errors_total'] == '2' and found['clip_vg_queue'] == '3'
    seconds = {
        q: float(found[f'clip_vg_request_seconds{{quantile="{q}"}}'])
        for q in (0.5, 0.95)
    }
    assert seconds[0.5] == pytest.approx(0.0505) and seconds[0.95] == pytest.approx(
        0.09505
    )
