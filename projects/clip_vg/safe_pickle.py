"""Unpickling that cannot run code: an allow-list instead of every import.

Annotation pickles and checkpoints come from strangers. A plain ``pickle.load``
imports and calls whatever a file names; the unpickler here knows a short list
of harmless names and refuses every other one, by name, before it is imported.
"""

import importlib
import io
import pickle
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import numpy as np

__all__ = ['UnsafePickleError', 'load_pickle', 'load_torch', 'make_pickle_module']

# What plain containers, NumPy arrays and Python 2 files are made of.
PLAIN_NAMES = frozenset(
    {
        ('collections', 'Counter'),
        ('collections', 'OrderedDict'),
        ('collections', 'defaultdict'),
        ('builtins', 'set'),
        ('builtins', 'frozenset'),
        ('builtins', 'list'),
        ('builtins', 'dict'),
        ('builtins', 'int'),
        ('builtins', 'float'),
        ('builtins', 'bool'),
        ('builtins', 'str'),
        ('builtins', 'bytes'),
        ('builtins', 'bytearray'),
        ('builtins', 'tuple'),
        ('builtins', 'complex'),
        ('builtins', 'slice'),
        ('_codecs', 'encode'),
        ('numpy', 'dtype'),
        ('numpy', 'ndarray'),
        ('numpy._core.multiarray', '_reconstruct'),
        ('numpy._core.multiarray', 'scalar'),
        ('numpy._core.numeric', '_frombuffer'),
        ('numpy.core.multiarray', '_reconstruct'),
        ('numpy.core.multiarray', 'scalar'),
        ('numpy.core.numeric', '_frombuffer'),
    }
)
# What ``torch.save`` adds for tensors; storages are matched by their suffix.
TORCH_NAMES = frozenset(
    {
        ('torch._utils', '_rebuild_tensor'),
        ('torch._utils', '_rebuild_tensor_v2'),
        ('torch._utils', '_rebuild_parameter'),
        ('torch.nn.parameter', 'Parameter'),
        ('torch', 'Size'),
        ('torch', 'Tensor'),
        ('torch', 'device'),
        ('torch.serialization', '_get_layout'),
        ('torch.storage', 'UntypedStorage'),
        ('torch.storage', 'TypedStorage'),
    }
)


class UnsafePickleError(pickle.UnpicklingError):
    """A pickle asked for a name that is not on the allow-list."""


def _python2_name(module: str, name: str) -> tuple[str, str]:
    """Today's name of what Python 2 and NumPy 1 wrote."""
    if module == '__builtin__':
        module = 'builtins'
        name = {'unicode': 'str', 'long': 'int'}.get(name, name)
    return module, name


def _numpy_dtype_name(module: str, name: str) -> bool:
    """Whether a name is one of NumPy's dtype classes (NumPy >= 1.25 pickles)."""
    return module == 'numpy.dtypes' and name.endswith('DType')


def _torch_value_name(module: str, name: str) -> bool:
    """Whether a name is a storage class or a dtype of torch."""
    if module == 'torch' and name.endswith('Storage'):
        return True
    if module != 'torch':
        return False
    import torch

    return isinstance(getattr(torch, name, None), torch.dtype)


class _RestrictedUnpickler(pickle.Unpickler):
    """Unpickler over an allow-list.

    Args:
        file (BinaryIO): The pickle.
        allowed (Iterable[tuple[str, str]]): Further ``(module, name)`` pairs.
        replaced (dict): ``(module, name)`` pairs and what stands in for them.
        allow_torch (bool): Whether tensors may appear.
        source (str): What to call the file in an error.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        allowed: Iterable[tuple[str, str]] = (),
        replaced: dict[tuple[str, str], Any] | None = None,
        allow_torch: bool = False,
        source: str = 'the pickle',
        **kwargs: Any,
    ) -> None:
        super().__init__(file, **kwargs)
        self._allowed = PLAIN_NAMES.union(allowed)
        if allow_torch:
            self._allowed |= TORCH_NAMES
        self._replaced = replaced or {}
        self._allow_torch = allow_torch
        self._source = source

    def find_class(self, module: str, name: str) -> Any:
        """Resolve an allowed name, or raise naming the refused one."""
        module, name = _python2_name(module, name)
        if (module, name) in self._replaced:
            return self._replaced[module, name]
        if (
            (module, name) in self._allowed
            or _numpy_dtype_name(module, name)
            or (self._allow_torch and _torch_value_name(module, name))
        ):
            if module.startswith('numpy.core.') and np.__version__ >= '2':
                module = module.replace('numpy.core.', 'numpy._core.')
            # Not super().find_class: protocol 4 would follow dotted names there.
            return getattr(importlib.import_module(module), name)
        raise UnsafePickleError(
            f'{self._source} asks for "{module}.{name}", which is not among the '
            'plain types such a file may hold. It was refused and nothing of it '
            'was run. Use a file from a source you trust, or write the data '
            'anew as JSON.'
        )


def make_pickle_module(
    allowed: Iterable[tuple[str, str]] = (),
    replaced: dict[tuple[str, str], Any] | None = None,
    source: str = 'the file',
) -> SimpleNamespace:
    """A stand-in for the ``pickle`` module that ``torch.load`` can be given.

    Args:
        allowed (Iterable[tuple[str, str]]): Names allowed beside tensors and
            plain containers.
        replaced (dict, optional): Names and what stands in for them.
        source (str): What to call the file in an error.

    Returns:
        SimpleNamespace: With ``Unpickler``, ``load``, ``loads``.
    """

    class Unpickler(_RestrictedUnpickler):
        def __init__(self, file: BinaryIO, **kwargs: Any) -> None:
            super().__init__(
                file,
                allowed=allowed,
                replaced=replaced,
                allow_torch=True,
                source=source,
                **kwargs,
            )

    def load(file: BinaryIO, **kwargs: Any) -> Any:
        return Unpickler(file, **kwargs).load()

    return SimpleNamespace(
        Unpickler=Unpickler,
        load=load,
        loads=lambda data, **kwargs: load(io.BytesIO(data), **kwargs),
        UnpicklingError=pickle.UnpicklingError,
        __name__='projects.clip_vg.safe_pickle',
    )


def _unreadable(path: Path, error: Exception, what: str) -> ValueError:
    """The one error for a file that is not what it should be."""
    if not path.is_file():
        return ValueError(f'{path}: no such file. Expected {what}.')
    return ValueError(
        f'{path} ({path.stat().st_size:,} bytes) cannot be read as {what}: '
        f'{type(error).__name__}: {error}. It may be truncated by an interrupted '
        'download or a killed write: fetch or write it again, or use an earlier one.'
    )


def _storage_from_bytes(data: bytes) -> Any:
    """What a plain pickle asks of torch for each tensor, by the same allow-list."""
    import torch

    # weights_only is torch's own list; PyTorch's _load_from_bytes switches it off.
    return torch.load(io.BytesIO(data), map_location='cpu', weights_only=True)


def load_pickle(
    path: str | Path, encoding: str = 'latin1', allow_torch: bool = False
) -> Any:
    """Read a pickle of plain containers without running what it contains.

    Args:
        path (str or Path): The pickle.
        encoding (str): How to read Python 2 strings. Defaults to 'latin1', as
            the REFER files need.
        allow_torch (bool): Whether tensors may be in it, as in what
            ``DumpDetResults`` writes. Defaults to False.

    Returns:
        Any: Lists, tuples, dicts, sets, str, bytes, numbers, NumPy arrays, tensors.

    Raises:
        UnsafePickleError: The file asks for anything else; it names what.
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged or no pickle at all.
    """
    path = Path(path)
    try:
        with path.open('rb') as file:
            return _RestrictedUnpickler(
                file,
                source=str(path),
                encoding=encoding,
                allow_torch=allow_torch,
                replaced={('torch.storage', '_load_from_bytes'): _storage_from_bytes}
                if allow_torch
                else None,
            ).load()
    except (UnsafePickleError, FileNotFoundError):
        raise
    except Exception as error:  # a hostile stream can raise almost anything
        raise _unreadable(path, error, 'a pickle') from error


def load_torch(
    path: str | Path,
    *,
    map_location: Any = 'cpu',
    allowed: Iterable[tuple[str, str]] = (),
    replaced: dict[tuple[str, str], Any] | None = None,
) -> Any:
    """``torch.load`` for files from strangers.

    Args:
        path (str or Path): What ``torch.save`` wrote.
        map_location (Any): As in ``torch.load``. Defaults to 'cpu'.
        allowed (Iterable[tuple[str, str]]): Names allowed beside tensors and
            plain containers, as ``(module, name)``.
        replaced (dict, optional): Names and what stands in for them.

    Returns:
        Any: What the file holds.

    Raises:
        UnsafePickleError: The file asks for a name that is not allowed.
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged or was not written by ``torch.save``.
    """
    import torch

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file.')
    module = make_pickle_module(allowed, replaced, source=str(path))
    try:
        return torch.load(
            path, map_location=map_location, pickle_module=module, weights_only=False
        )
    except UnsafePickleError:
        raise
    except Exception as error:  # torch raises many kinds for a damaged file
        raise _unreadable(path, error, 'a file of torch.save') from error
