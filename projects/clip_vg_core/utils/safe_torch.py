"""Reading files of ``torch.save`` from strangers: checkpoints and lists of labels.

A file is interpreted by :class:`.safe_pickle.Machine` first, which knows the few names
that such files need and checks each tensor against the bytes that are there. Where
there are tensors, PyTorch's own ``weights_only`` loader then builds them, with the same
stand-ins for the names that are not PyTorch's. PyTorch is imported there alone: lists
of labels have no tensor, and who reads them needs none of it.
"""

import argparse
import io
import math
import mmap
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any

from .pickle_machine import Machine
from .safe_pickle import load_pickle, unreadable
from .stand_ins import (
    PLAIN_NAMES,
    Attributes,
    Limits,
    StandIn,
    UnsafePickleError,
    check_value,
    thaw,
)

if TYPE_CHECKING:
    import torch

__all__ = ['STORAGES', 'TENSOR_NAMES', 'load_dump', 'load_torch', 'storage_of']

# One load at a time: torch keeps the names that may be loaded in one set.
_LOCK = threading.Lock()


class StorageType:
    """Stands for a class of storages, such as ``torch.FloatStorage``.

    Args:
        dtype (str): PyTorch's name of the type of its numbers.
        itemsize (int): Bytes of a number.
    """

    def __init__(self, dtype: str, itemsize: int) -> None:
        self.dtype, self.itemsize = dtype, itemsize


STORAGES = MappingProxyType(
    {
        f'torch.{name}Storage': StorageType(dtype, itemsize)
        for name, dtype, itemsize in (
            ('BFloat16', 'bfloat16', 2),
            ('Bool', 'bool', 1),
            ('Byte', 'uint8', 1),
            ('Char', 'int8', 1),
            ('Double', 'float64', 8),
            ('Float', 'float32', 4),
            ('Half', 'float16', 2),
            ('Int', 'int32', 4),
            ('Long', 'int64', 8),
            ('Short', 'int16', 2),
        )
    }
)


class Storage(StandIn):
    """Stands for the numbers of tensors.

    Args:
        dtype (str): PyTorch's name of the type of the numbers.
        count (int): How many there are.
        read (Callable, optional): Gives their bytes. Defaults to None: none is read.
    """

    __slots__ = ('count', 'dtype', 'read')

    def __init__(self, dtype: str, count: int, read: Callable | None) -> None:
        self.dtype, self.count, self.read = dtype, count, read

    def thaw(self, held: tuple) -> 'torch.Tensor':  # noqa: ARG002
        """All numbers, of shape (N, )."""
        import torch

        dtype = getattr(torch, self.dtype)
        if not self.count or self.read is None:
            return torch.empty(0, dtype=dtype)
        return torch.frombuffer(bytearray(self.read()), dtype=dtype)


class _Saved(StandIn):
    """Stands for a storage that a plain pickle holds as a file of ``torch.save``."""

    __slots__ = ('data',)

    def __init__(self, data: Any) -> None:
        if type(data) is not bytes:
            raise UnsafePickleError('it has a tensor whose numbers are no bytes')
        self.data = data

    def thaw(self, held: tuple) -> 'torch.Tensor':  # noqa: ARG002
        """All numbers, of shape (N, )."""
        import torch

        storage = _load_stream(io.BytesIO(self.data), self.data, _OTHER_NAMES, 'cpu')
        if not isinstance(storage, torch.storage.TypedStorage):
            raise UnsafePickleError('it has a tensor without numbers')
        return torch._utils._rebuild_tensor(storage, 0, (storage.size(),), (1,))


class _Tensor(StandIn):
    """Stands for a tensor, a view of a storage."""

    __slots__ = ('offset', 'size', 'storage', 'stride')

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any) -> None:
        numbers = type(size) is tuple and type(stride) is tuple and len(size) <= 64
        numbers = numbers and len(size) == len(stride)
        numbers = numbers and all(
            type(n) is int and 0 <= n < 1 << 48 for n in (offset, *size, *stride)
        )
        if not numbers or type(storage) not in (Storage, _Saved):
            raise UnsafePickleError(f'it has a tensor of shape {size!r:.60}')
        self.storage, self.offset = storage, offset
        self.size, self.stride = size, stride
        if isinstance(storage, Storage):
            self.check(storage.count)

    def check(self, count: int) -> None:
        """Raise unless a storage of ``count`` numbers has all of the tensor's."""
        steps = zip(self.size, self.stride, strict=True)
        last = self.offset + sum((side - 1) * step for side, step in steps)
        if math.prod(self.size) and last >= count:
            raise UnsafePickleError(
                f'it has a tensor of shape {self.size} that reaches beyond its {count} '
                'numbers'
            )
        # Of a stride of 0, a number is any number of numbers.
        if math.prod(self.size) > max(count, 1):
            raise UnsafePickleError(
                f'it has a tensor of shape {self.size} in {count} numbers'
            )

    def held(self) -> tuple:
        return (self.storage,)

    def thaw(self, held: tuple) -> 'torch.Tensor':
        (flat,) = held
        self.check(len(flat))
        return flat.as_strided(self.size, self.stride, self.offset)


def _rebuild_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, *rest: Any
) -> _Tensor:
    if hooks or any(rest) or type(grad) is not bool:
        raise UnsafePickleError('it has a tensor with hooks or attributes')
    return _Tensor(storage, offset, size, stride)


def _rebuild_parameter(data: Any, grad: Any, hooks: Any) -> _Tensor:
    if type(data) is not _Tensor or hooks or type(grad) is not bool:
        raise UnsafePickleError('it has a damaged parameter')
    return data


class _Plain(StandIn):
    """Stands for a dtype, a shape or a device, which only PyTorch makes real."""

    __slots__ = ()


def _size(items: Any) -> _Plain:
    if type(items) is not tuple or any(type(n) is not int for n in items):
        raise UnsafePickleError('it has a damaged torch.Size')
    return _Plain()


def _device(kind: Any, index: Any = 0) -> _Plain:
    if kind not in ('cpu', 'cuda', 'mps', 'npu', 'xpu') or type(index) is not int:
        raise UnsafePickleError('it has a damaged torch.device')
    return _Plain()


# What a tensor names, and what else of PyTorch is in checkpoints.
TENSOR_NAMES: Mapping[str, Any] = MappingProxyType(
    {
        **PLAIN_NAMES,
        **STORAGES,
        'torch._utils._rebuild_parameter': _rebuild_parameter,
        'torch._utils._rebuild_tensor_v2': _rebuild_tensor,
        'torch.Size': _size,
        'torch.device': _device,
        **{f'torch.{kind.dtype}': _Plain() for kind in STORAGES.values()},
    }
)


class _Namespace(Attributes):
    """Stands for ``argparse.Namespace``, the options in official checkpoints."""

    __slots__ = ()

    def thaw(self, held: tuple) -> argparse.Namespace:
        return argparse.Namespace(**held[0])


def _counter(items: Any = ()) -> Counter:
    if type(items) is not dict or any(type(n) is not int for n in items.values()):
        raise UnsafePickleError('it has a damaged Counter')
    return Counter(items)


_OTHER_NAMES: Mapping[str, Any] = MappingProxyType(
    {
        **TENSOR_NAMES,
        'argparse.Namespace': _Namespace,
        'collections.Counter': _counter,
    }
)


def storage_of(
    saved: Any, sizes: Mapping[str, int], read: Callable[[str], bytes] | None = None
) -> Storage:
    """What stands in for the persistent id of a storage.

    Args:
        saved (Any): The id.
        sizes (Mapping[str, int]): Bytes of each record of the file.
        read (Callable, optional): Gives the bytes of a record, by its name. Defaults
            to None: the storage is checked, and never read.

    Raises:
        UnsafePickleError: It is no storage, or has not as many bytes as it names.
    """
    if type(saved) is not tuple or len(saved) not in (5, 6) or saved[0] != 'storage':
        raise UnsafePickleError('it refers to something that is no tensor')
    _, kind, key, _, count = saved[:5]
    fits = isinstance(kind, StorageType) and type(key) is str and type(count) is int
    if not fits or saved[5:] not in ((), (None,)) or count < 0:
        raise UnsafePickleError('it has a damaged storage')
    size = count * kind.itemsize
    if sizes.get(key) != size:
        raise UnsafePickleError(
            f'it has a tensor of {size:,} bytes in a record of {sizes.get(key)} bytes'
        )
    return Storage(kind.dtype, count, partial(read, key) if read else None)


def _check_zip(file: IO[bytes], names: Mapping[str, Any]) -> tuple[Any, Machine]:
    """Interpret the index of torch's archives."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        roots = {entry.filename.split('/')[0] for entry in entries}
        # As PyTorch's reader has it: one folder, found without regard to case.
        if len(roots) != 1 or len({e.filename.lower() for e in entries}) < len(entries):
            raise UnsafePickleError('it is an archive with ambiguous names')
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise UnsafePickleError('it is a compressed archive')
        root = roots.pop()
        begin = f'{root}/data/'
        sizes = {
            entry.filename.removeprefix(begin): entry.file_size
            for entry in entries
            if entry.filename.startswith(begin)
        }
        index = archive.read(f'{root}/data.pkl')
    machine = Machine(
        index,
        names,
        'utf-8',
        storage=lambda saved: storage_of(saved, sizes),
    )
    return machine.load(), machine


def _check_legacy(data: Any, names: Mapping[str, Any]) -> tuple[Any, Machine]:
    """Interpret the pickles that files of PyTorch before 1.6 begin with."""

    def storage(saved: Any) -> Storage:
        fits = type(saved) is tuple and len(saved) == 6 and type(saved[4]) is int
        kind = saved[1] if fits else None
        if not isinstance(kind, StorageType) or not 0 <= saved[4] <= len(data):
            raise UnsafePickleError('it has a damaged storage')
        # How many bytes there are of it, the loader finds out.
        sizes = {saved[2]: saved[4] * kind.itemsize}
        return storage_of(saved, sizes)

    machine = Machine(data, names, 'utf-8', storage=storage)
    head = [machine.load() for _ in range(3)]
    if head[0] != 0x1950A86A20F9469CFC6C or type(head[2]) is not dict:
        raise ValueError('it does not begin as torch.save has it')
    value = machine.load()
    keys = machine.load()
    if type(keys) is not list or any(type(key) is not str for key in keys):
        raise UnsafePickleError('it has damaged names of storages')
    return value, machine


def _load_stream(
    file: IO[bytes], data: Any, names: Mapping[str, Any], map_location: Any
) -> Any:
    """The value of an open file, whose bytes are ``data``."""
    is_zip = bytes(data[:4]) == b'PK\x03\x04'
    value, machine = _check_zip(file, names) if is_zip else _check_legacy(data, names)
    limits = Limits()
    is_storage = type(value) is Storage
    has_stand_ins = is_storage or check_value(value, machine.instructions, limits)
    if any(name.startswith('torch.') for name in machine.used):
        import torch

        others: list[Any] = [
            (stand_in, name)
            for alias in names
            if not alias.startswith('torch.')
            for stand_in, name in _aliases(names[alias], alias)
        ]
        file.seek(0)
        with _LOCK, torch.serialization.safe_globals(others):
            value = torch.load(file, map_location=map_location, weights_only=True)
        if is_storage:
            return value
    return thaw(value) if has_stand_ins else value


def _aliases(stand_in: Any, name: str) -> list[tuple[Any, str]]:
    """A stand-in under the names of NumPy 2 and NumPy 1."""
    old = name.replace('numpy._core.', 'numpy.core.')
    return [(stand_in, each) for each in {name, old}]


def load_torch(
    path: str | Path,
    *,
    map_location: Any = 'cpu',
    names: Mapping[str, Any] | None = None,
) -> Any:
    """``torch.load`` for files from strangers; no name in it becomes an object.

    Args:
        path (str or Path): What ``torch.save`` wrote.
        map_location (Any): As in ``torch.load``. Defaults to 'cpu'.
        names (Mapping[str, Any], optional): Stand-ins for names beside those of
            tensors, plain containers, NumPy's numbers and ``argparse.Namespace``.

    Returns:
        Any: What the file holds.

    Raises:
        UnsafePickleError: The file asks for any other name, and it says which; or it
            is over a limit of :class:`Limits`.
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged or was not written by ``torch.save``.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file.')
    try:
        with (
            path.open('rb') as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            known = {**_OTHER_NAMES, **(names or {})}
            return _load_stream(file, data, known, map_location)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise unreadable(path, error, 'a file of torch.save') from error


def load_dump(path: str | Path) -> Any:
    """Read a plain pickle with tensors, as MMDetection's ``DumpDetResults`` writes it.

    Args:
        path (str or Path): The pickle.

    Returns:
        Any: As :func:`load_pickle`, and tensors.

    Raises:
        UnsafePickleError: As :func:`load_pickle`.
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged or no pickle at all.
    """
    names = {**TENSOR_NAMES, 'torch.storage._load_from_bytes': _Saved}
    return load_pickle(path, names=names)
