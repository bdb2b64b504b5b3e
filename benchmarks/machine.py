"""What all benchmarks print and measure: machine, medians, floating point speed."""

import argparse
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping

import open_clip
import torch

__all__ = [
    'add_device_option',
    'alternate',
    'describe',
    'device_peak_mib',
    'matmul_gflops',
    'peak_mib',
    'private_mib',
    'synchronize',
]


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """On which device the models run."""
    parser.add_argument(
        '--device',
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='device of the models, e.g. cpu or cuda:1 (default: a GPU, if there is '
        'one)',
    )


def synchronize() -> None:
    """Wait until the GPU has done what it was given, if one is used."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def describe(device: str = 'cpu') -> str:
    """Processor, threads, versions, and the GPU if ``device`` is one, in a line."""
    names = []
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            names = [
                line.split(':')[1].strip() for line in file if 'model name' in line
            ]
    except OSError:  # not Linux
        names = [platform.processor()]
    line = (
        f'{names[0] if names else platform.machine()}, {torch.get_num_threads()} '
        f'threads, torch {torch.__version__}, open_clip {open_clip.__version__}'
    )
    if device.startswith('cuda'):
        line = f'{torch.cuda.get_device_name(device)}, {line}'
    return line


def alternate(
    paths: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1
) -> dict[str, float]:
    """Median seconds of several ways, run in turn, so that all meet the same weather.

    A GPU has nothing to do when the clock starts, and is waited for before it stops.

    Args:
        paths (Mapping[str, Callable]): What to run, by name.
        rounds (int): Timed runs of each.
        warmup (int): Runs of each before. Defaults to 1.

    Returns:
        dict[str, float]: Median seconds, by name.
    """
    taken: dict[str, list[float]] = {name: [] for name in paths}
    for number in range(warmup + rounds):
        for name, path in paths.items():
            synchronize()
            started = time.perf_counter()
            path()
            synchronize()
            if number >= warmup:
                taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in taken.items()}


def matmul_gflops(
    dtype: torch.dtype = torch.float32, size: int = 2048, device: str = 'cpu'
) -> float:
    """Speed of a square matrix product, in 10^9 floating point operations a second."""
    if device.startswith('cuda'):
        size *= 4  # 2048 would measure how fast products are started
    one, other = (torch.randn(size, size).to(device, dtype) for _ in range(2))
    seconds = alternate({'product': lambda: one @ other}, rounds=5, warmup=2)
    return 2 * size**3 / seconds['product'] / 1e9


def peak_mib() -> float:
    """Most memory this process has had so far, in MiB."""
    try:
        # Not getrusage: a process begins with what its parent had at that moment.
        with open('/proc/self/status', encoding='utf-8') as file:
            lines = [line.split() for line in file if line.startswith('VmHWM')]
        return int(lines[0][1]) / 1024
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def device_peak_mib() -> float:
    """Most memory of a GPU that this process had for tensors, in MiB; 0 without one."""
    if not torch.cuda.is_initialized():
        return 0.0
    return torch.cuda.max_memory_allocated() / 2**20


def private_mib() -> float:
    """What this process holds and shares with no other, in MiB; NaN if not on Linux."""
    try:
        with open('/proc/self/smaps_rollup', encoding='utf-8') as file:
            lines = [line.split() for line in file if line.startswith('Private_')]
    except OSError:
        return float('nan')
    return sum(int(line[1]) for line in lines) / 1024
