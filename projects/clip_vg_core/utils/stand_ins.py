"""What stands for the objects that a pickle names, until they are made of data.

A stand-in checks and records its arguments. :func:`check_value` looks through what a
pickle has made of them, and :func:`thaw` puts real values in their places: containers,
numbers, and NumPy arrays of numbers.
"""

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

__all__ = [
    'PLAIN_NAMES',
    'Attributes',
    'Limits',
    'StandIn',
    'UnsafePickleError',
    'check_key',
    'check_value',
    'make_set',
    'require',
    'thaw',
]

_LEAVES = frozenset((str, bytes, bytearray, int, float, bool, type(None)))
_KEYS = frozenset((str, bytes, float, bool, type(None)))
# Larger ints can be made to have one hash, and a dict of them slow.
_HASH_PRIME = (1 << 61) - 1


class UnsafePickleError(pickle.UnpicklingError, ValueError):
    """A pickle holds more than data, or more than any data set needs."""


@dataclass(frozen=True)
class Limits:
    """The most that a pickle may hold.

    Args:
        size (int): Bytes. Defaults to 2 GiB; the largest list of the field, GRefCOCO's,
            has 60 MB.
        instructions (int): Of the whole file. Defaults to 200 million.
        seconds (float): That reading may take. Defaults to 600.
        depth (int): Containers in each other. Defaults to 64.
        written_out (int): Values, if each that is shared were written out wherever it
            is used, unless the file has a quarter as many instructions. Defaults to
            10 million.
    """

    size: int = 2 << 30
    instructions: int = 200_000_000
    seconds: float = 600.0
    depth: int = 64
    written_out: int = 10_000_000


class StandIn:
    """What stands for an object that a file wants built, until :func:`thaw`."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        """Refuse what ``BUILD`` gives, where a subclass does not take it."""
        raise UnsafePickleError(f'a {type(self).__name__.strip("_")} takes no state')

    def held(self) -> tuple:
        """The values inside, which may be stand-ins themselves."""
        return ()

    def thaw(self, held: tuple) -> Any:
        """The real value, given the real ones of :meth:`held`."""
        raise NotImplementedError


class Attributes(StandIn):
    """Stands for an object that a file gives its attributes, named by texts."""

    __slots__ = ('state',)
    state: dict[str, Any]

    def __new__(cls) -> 'Attributes':
        """An object without attributes yet."""
        self = super().__new__(cls)
        self.state = {}
        return self

    def __setstate__(self, state: Any) -> None:
        if type(state) is not dict or any(type(key) is not str for key in state):
            name = type(self).__name__.strip('_')
            raise UnsafePickleError(f'it has a {name} whose attributes are no dict')
        self.state = state

    def held(self) -> tuple:
        """The attributes, as a dict."""
        return (self.state,)


def require(condition: bool, what: str) -> None:
    """Refuse a file that is ``what`` unless a condition holds."""
    if not condition:
        raise UnsafePickleError(f'it is {what}')


def check_key(key: Any) -> None:
    """Refuse keys that can be made costly to hash; no file of the field has them."""
    kind = type(key)
    if kind in _KEYS or (kind is int and -_HASH_PRIME < key < _HASH_PRIME):
        return
    raise UnsafePickleError(
        f'it has a {kind.__name__} as the key of a dict or in a set'
    )


class _DType(StandIn):
    """Stands for ``numpy.dtype``: one number of a few bytes, never an object."""

    __slots__ = ('order', 'typestr')
    order: str
    typestr: str

    def __new__(cls, typestr: Any, align: Any = False, copy: Any = True) -> '_DType':  # noqa: ARG004  # NumPy's
        self = super().__new__(cls)
        kinds = ('b1', *(f'{k}{n}' for k in 'iu' for n in (1, 2, 4, 8)), 'f2', 'f4')
        known = type(typestr) is str and typestr.lstrip('<>|=') in (*kinds, 'f8')
        require(known, f'a NumPy array of {typestr!r:.40}, which are no plain numbers')
        self.typestr, self.order = typestr.lstrip('<>|='), typestr[0]
        return self

    def __setstate__(self, state: Any) -> None:
        fits = type(state) is tuple and len(state) >= 2 and state[2:5] == (None,) * 3
        require(fits and state[1] in ('<', '>', '|', '='), 'a NumPy dtype with parts')
        self.order = state[1]

    def thaw(self, held: tuple) -> np.dtype:  # noqa: ARG002
        return np.dtype(('>' if self.order == '>' else '<') + self.typestr)


class _Array(StandIn):
    """Stands for ``numpy.ndarray``."""

    __slots__ = ('data', 'dtype', 'fortran', 'shape')

    def __new__(cls) -> '_Array':
        self = super().__new__(cls)
        self.data, self.dtype, self.fortran, self.shape = b'', _DType('u1'), False, (0,)
        return self

    def __setstate__(self, state: Any) -> None:
        require(type(state) is tuple and len(state) == 5, 'a damaged NumPy array')
        _, self.shape, self.dtype, self.fortran, self.data = state
        self.check()

    def check(self) -> None:
        """Raise unless there are as many bytes as the shape takes."""
        whole = type(self.shape) is tuple and len(self.shape) <= 32
        whole = whole and all(type(n) is int and 0 <= n < 1 << 48 for n in self.shape)
        require(whole, f'a NumPy array of shape {self.shape!r:.40}')
        require(isinstance(self.dtype, _DType), 'a NumPy array without dtype')
        count = 1
        for side in self.shape:
            count *= side
        # Python 2 wrote bytes as text, which is read as Latin-1.
        if type(self.data) is str:
            self.data = self.data.encode('latin1')
        size = count * self.dtype.thaw(()).itemsize
        fits = type(self.data) in (bytes, bytearray) and len(self.data) == size
        require(fits, f'a NumPy array of {size} bytes that has not as many')

    def thaw(self, held: tuple) -> np.ndarray:  # noqa: ARG002
        flat = np.frombuffer(self.data, self.dtype.thaw(()))
        return flat.reshape(self.shape, order='F' if self.fortran else 'C').copy()


class _Scalar(_Array):
    """Stands for a number of NumPy."""

    __slots__ = ()

    def thaw(self, held: tuple) -> Any:
        return super().thaw(held)[()]


def _reconstruct(kind: Any, shape: Any, typecode: Any) -> _Array:  # noqa: ARG001  # NumPy's
    require(kind is _Array, 'a subclass of a NumPy array')
    return _Array()


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    self = _Array()
    self.__setstate__((1, shape, dtype, order == 'F', data))
    return self


def _scalar(dtype: Any, data: Any) -> _Scalar:
    self = _Scalar()
    self.shape, self.dtype, self.data = (), dtype, data
    self.check()
    return self


def _encode(text: Any, encoding: Any) -> bytes:
    """Bytes, as protocols below 3 write them."""
    require(type(text) is str and encoding == 'latin1', 'a text of a codec')
    return text.encode('latin1')


def _bytes(*args: Any) -> bytes:
    """No bytes, as protocols below 3 write them."""
    require(args == (), 'a call of bytes')
    return b''


def make_set(items: Any = ()) -> set:
    """A set of items that are cheap to hash."""
    require(type(items) in (list, tuple), 'a set of no list')
    for item in items:
        check_key(item)
    return set(items)


def _frozenset(items: Any = ()) -> frozenset:
    return frozenset(make_set(items))


def _ordered_dict(items: Any = ()) -> OrderedDict:
    made: OrderedDict = OrderedDict()
    require(type(items) in (list, tuple), 'an OrderedDict of no list')
    for item in items:
        require(type(item) in (list, tuple) and len(item) == 2, 'a damaged OrderedDict')
        check_key(item[0])
        made[item[0]] = item[1]
    return made


# What plain containers and NumPy's numbers name, in Python 3's terms and NumPy 2's.
PLAIN_NAMES: Mapping[str, Callable] = MappingProxyType(
    {
        '_codecs.encode': _encode,
        'builtins.bytes': _bytes,
        'builtins.frozenset': _frozenset,
        'builtins.set': make_set,
        'collections.OrderedDict': _ordered_dict,
        'numpy._core.multiarray._reconstruct': _reconstruct,
        'numpy._core.multiarray.scalar': _scalar,
        'numpy._core.numeric._frombuffer': _frombuffer,
        'numpy.dtype': _DType,
        'numpy.ndarray': _Array,
    }
)


def check_value(value: Any, instructions: int, limits: Limits) -> bool:
    """Look through what a machine has made.

    Args:
        value (Any): What it returned.
        instructions (int): How many it took.
        limits (Limits): The most there may be.

    Returns:
        bool: Whether there are stand-ins in it, which :func:`thaw` makes real.

    Raises:
        UnsafePickleError: Something contains itself, lies too deep, would be too much
            if written out, or is no value at all.
    """
    known: dict[int, tuple[int, int] | None] = {}
    has_stand_ins = False

    def weigh(node: Any, depth: int) -> tuple[int, int]:
        """How many values are in a container, and how deep they lie."""
        nonlocal has_stand_ins
        if id(node) in known:
            measured = known[id(node)]
            if measured is None:
                raise UnsafePickleError('it has a container that contains itself')
        else:
            known[id(node)] = None
            require(depth <= limits.depth, f'over {limits.depth} containers deep')
            count, height = 1, 0
            children: Any = node
            if isinstance(node, dict):
                children = node.values()
            elif isinstance(node, StandIn):
                has_stand_ins = True
                children = node.held()
            elif type(node) not in (list, tuple, set, frozenset):
                raise UnsafePickleError(f'it has a bare {type(node).__name__}')
            for child in children:
                if type(child) not in _LEAVES:
                    more, below = weigh(child, depth + 1)
                    count += more
                    height = max(height, below + 1)
            measured = known[id(node)] = (count + len(children), height)
        require(
            depth + measured[1] <= limits.depth, f'over {limits.depth} containers deep'
        )
        most = max(limits.written_out, 4 * instructions)
        require(
            measured[0] <= most, f'over {most} values if what is shared is written out'
        )
        return measured

    if type(value) not in _LEAVES:
        weigh(value, 1)
    return has_stand_ins


def thaw(value: Any) -> Any:
    """Put real values in the places of stand-ins.

    Args:
        value (Any): What passed :func:`check_value`.

    Returns:
        Any: The same, lists and dicts changed in place.
    """
    done: dict[int, tuple[Any, Any]] = {}

    def real(node: Any) -> Any:
        if type(node) in _LEAVES:
            return node
        if id(node) not in done:
            # The node beside its value: an id is only taken as long as it lives.
            done[id(node)] = node, _thawed(node, real)
        return done[id(node)][1]

    return real(value)


def _thawed(node: Any, real: Callable[[Any], Any]) -> Any:
    """A container or a stand-in, of real values."""
    if isinstance(node, StandIn):
        return node.thaw(tuple(real(item) for item in node.held()))
    if isinstance(node, dict):
        for key, item in node.items():
            node[key] = real(item)
    elif type(node) is list:
        node[:] = [real(item) for item in node]
    elif type(node) is tuple:
        return tuple(real(item) for item in node)
    return node
