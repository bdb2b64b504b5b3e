"""A graph in a file, run by OpenVINO or by ONNX Runtime."""

import mmap
from collections import deque
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    'BACKENDS',
    'PRECISIONS',
    'Graph',
    'default_backend',
    'import_extra',
    'open_graph',
]

BACKENDS = ('openvino', 'onnxruntime')
PRECISIONS = ('f32', 'bf16', 'int8')
# Named arrays in, the outputs in their order; several threads may call it at once.
Graph = Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]


def import_extra(name: str) -> Any:
    """A package of the extra ``serving``.

    Raises:
        ImportError: It is not installed; the error tells how to install it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f'{name} is needed for exported detectors: pip install {name}, or all of '
            f"-e '.[serving]' ({error})."
        ) from error


def default_backend() -> str:
    """The first backend that is installed, else the first."""
    return next((name for name in BACKENDS if find_spec(name)), BACKENDS[0])


def open_graph(
    path: Path, backend: str, precision: str, threads: int | None = None
) -> Graph:
    """Make a graph ready to run on the CPU.

    Args:
        path (Path): The graph.
        backend (str): 'openvino' or 'onnxruntime'.
        precision (str): 'f32', 'bf16' (where the CPU has it, and OpenVINO only), or
            'int8': what the graph has in integers, the rest as fast as the CPU can.
        threads (int, optional): Defaults to None: all cores.

    Returns:
        Graph: Callable.

    Raises:
        ImportError: The backend is not installed.
        ValueError: The precision cannot be had.
    """
    _check_self_contained(path)
    if backend == 'openvino':
        return _open_openvino(path, precision, threads)
    return _open_onnxruntime(path, precision, threads)


def _check_self_contained(path: Path) -> None:
    """Refuse a graph whose numbers are in other files, which it may name anywhere.

    Raises:
        ValueError: It names one.
    """
    with (
        path.open('rb') as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        # The key that ONNX gives the name of a file; without it there is none, and
        # the package `onnx` need not be imported.
        if data.find(b'location') < 0:
            return
    model = import_extra('onnx').load(str(path), load_external_data=False)
    data_of = import_extra('onnx.external_data_helper')._get_all_tensors
    for tensor in data_of(model):
        if tensor.external_data or tensor.data_location == tensor.EXTERNAL:
            named = {entry.key: entry.value for entry in tensor.external_data}
            raise ValueError(
                f'{path}: {tensor.name[:80]!r} is in another file '
                f'({named.get("location", "?")[:80]!r}); what this project exports '
                'names none. Export again.'
            )


@cache
def openvino_core() -> Any:
    """The one of the process, which must never go.

    A core sets the stack that signal handlers run on, and takes it away when it goes:
    of several cores, one can leave a stack behind that is no longer there, and the next
    signal (a worker of a data loader that ends) kills the process. OpenVINO's pull
    request 11894 has the code.
    """
    return import_extra('openvino').Core()


def _open_openvino(path: Path, precision: str, threads: int | None) -> Graph:
    core = openvino_core()
    has_bf16 = 'BF16' in core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
    if precision == 'bf16' and not has_bf16:
        raise ValueError(
            "precision='bf16', but this CPU has no bfloat16: take 'f32' or 'int8'."
        )
    # Without a hint, OpenVINO rounds float32 to bfloat16 where that is faster.
    exact = precision == 'f32' or not has_bf16
    options = dict(
        PERFORMANCE_HINT='LATENCY',
        INFERENCE_PRECISION_HINT='f32' if exact else 'bf16',
        INFERENCE_NUM_THREADS=threads or 0,
    )
    compiled = core.compile_model(str(path), 'CPU', options)
    # A request holds the inputs and outputs of one call, and a compiled model called
    # as a function has one for all threads. As many are made as run at once.
    idle: deque[Any] = deque()

    def run(feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        try:
            request = idle.pop()
        except IndexError:
            request = compiled.create_infer_request()
        outputs = list(request.infer(dict(feed), share_inputs=True).values())
        idle.append(request)
        return outputs

    return run


def _open_onnxruntime(path: Path, precision: str, threads: int | None) -> Graph:
    runtime = import_extra('onnxruntime')
    if precision == 'bf16':
        raise ValueError(
            "precision='bf16' is for backend='openvino' alone: ONNX Runtime has no "
            'bfloat16 on CPUs.'
        )
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    session = runtime.InferenceSession(
        str(path), options, providers=['CPUExecutionProvider']
    )
    return lambda feed: session.run(None, dict(feed))
