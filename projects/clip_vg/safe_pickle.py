"""Reading pickles of strangers: an interpreter that knows no name of Python.

Python's own unpickler is a small machine that imports what a file names and calls
it. An allow-list does not make it safe: ``numpy.ndarray``, ``list`` and ``str`` are
enough to run code or to crash the interpreter. The machine here has the same
instructions, and instead of imports one table of names: what stands in for each is a
class or a function of this package that only checks and records its arguments. Real
arrays are built afterwards from what was recorded (:func:`thaw`); every other name is
refused.

A file is bounded, too: in its bytes, in instructions and seconds, in how deep
containers lie in each other, and in how much there is if what is shared were written
out, which no ``repr`` or comparison of a value could survive otherwise.
"""

import codecs
import pickle
import struct
import time
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

__all__ = [
    'PLAIN_NAMES',
    'Limits',
    'Machine',
    'StandIn',
    'UnsafePickleError',
    'check_value',
    'load_pickle',
    'thaw',
]


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


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise UnsafePickleError(f'it is {what}')


class _DType(StandIn):
    """Stands for ``numpy.dtype``: one number of a few bytes, never an object."""

    __slots__ = ('order', 'typestr')
    order: str
    typestr: str

    def __new__(cls, typestr: Any, align: Any = False, copy: Any = True) -> '_DType':  # noqa: ARG004  # NumPy's
        self = super().__new__(cls)
        kinds = ('b1', *(f'{k}{n}' for k in 'iu' for n in (1, 2, 4, 8)), 'f2', 'f4')
        known = type(typestr) is str and typestr.lstrip('<>|=') in (*kinds, 'f8')
        _require(known, f'a NumPy array of {typestr!r:.40}, which are no plain numbers')
        self.typestr, self.order = typestr.lstrip('<>|='), typestr[0]
        return self

    def __setstate__(self, state: Any) -> None:
        fits = type(state) is tuple and len(state) >= 2 and state[2:5] == (None,) * 3
        _require(fits and state[1] in ('<', '>', '|', '='), 'a NumPy dtype with parts')
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
        _require(type(state) is tuple and len(state) == 5, 'a damaged NumPy array')
        _, self.shape, self.dtype, self.fortran, self.data = state
        self.check()

    def check(self) -> None:
        """Raise unless there are as many bytes as the shape takes."""
        whole = type(self.shape) is tuple and len(self.shape) <= 32
        whole = whole and all(type(n) is int and 0 <= n < 1 << 48 for n in self.shape)
        _require(whole, f'a NumPy array of shape {self.shape!r:.40}')
        _require(isinstance(self.dtype, _DType), 'a NumPy array without dtype')
        count = 1
        for side in self.shape:
            count *= side
        # Python 2 wrote bytes as text, which is read as Latin-1.
        if type(self.data) is str:
            self.data = self.data.encode('latin1')
        size = count * self.dtype.thaw(()).itemsize
        fits = type(self.data) in (bytes, bytearray) and len(self.data) == size
        _require(fits, f'a NumPy array of {size} bytes that has not as many')

    def thaw(self, held: tuple) -> np.ndarray:  # noqa: ARG002
        flat = np.frombuffer(self.data, self.dtype.thaw(()))
        return flat.reshape(self.shape, order='F' if self.fortran else 'C').copy()


class _Scalar(_Array):
    """Stands for a number of NumPy."""

    __slots__ = ()

    def thaw(self, held: tuple) -> Any:
        return super().thaw(held)[()]


def _reconstruct(kind: Any, shape: Any, typecode: Any) -> _Array:  # noqa: ARG001  # NumPy's
    _require(kind is _Array, 'a subclass of a NumPy array')
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
    _require(type(text) is str and encoding == 'latin1', 'a text of a codec')
    return text.encode('latin1')


def _bytes(*args: Any) -> bytes:
    """No bytes, as protocols below 3 write them."""
    _require(args == (), 'a call of bytes')
    return b''


def _set(items: Any = ()) -> set:
    _require(type(items) in (list, tuple), 'a set of no list')
    for item in items:
        _check_key(item)
    return set(items)


def _frozenset(items: Any = ()) -> frozenset:
    return frozenset(_set(items))


def _ordered_dict(items: Any = ()) -> OrderedDict:
    made: OrderedDict = OrderedDict()
    _require(type(items) in (list, tuple), 'an OrderedDict of no list')
    for item in items:
        _require(
            type(item) in (list, tuple) and len(item) == 2, 'a damaged OrderedDict'
        )
        _check_key(item[0])
        made[item[0]] = item[1]
    return made


# What plain containers and NumPy's numbers name, in Python 3's terms and NumPy 2's.
PLAIN_NAMES: Mapping[str, Callable] = MappingProxyType(
    {
        '_codecs.encode': _encode,
        'builtins.bytes': _bytes,
        'builtins.frozenset': _frozenset,
        'builtins.set': _set,
        'collections.OrderedDict': _ordered_dict,
        'numpy._core.multiarray._reconstruct': _reconstruct,
        'numpy._core.multiarray.scalar': _scalar,
        'numpy._core.numeric._frombuffer': _frombuffer,
        'numpy.dtype': _DType,
        'numpy.ndarray': _Array,
    }
)
_LEAVES = frozenset((str, bytes, bytearray, int, float, bool, type(None)))
_KEYS = frozenset((str, bytes, float, bool, type(None)))
# Ints beyond this can be made to have one hash, and a dict of them slow.
_HASH_PRIME = (1 << 61) - 1
_DIGITS = 4000  # of a decimal number


def _check_key(key: Any) -> None:
    """Refuse keys that can be made costly to hash; no file of the field has them."""
    kind = type(key)
    if kind in _KEYS or (kind is int and -_HASH_PRIME < key < _HASH_PRIME):
        return
    raise UnsafePickleError(
        f'it has a {kind.__name__} as the key of a dict or in a set'
    )


class _Stop(Exception):
    """The last instruction."""


class Machine:
    """An interpreter of pickles that imports nothing.

    Args:
        data (bytes): One pickle, or several behind each other.
        names (Mapping[str, Callable]): Full names and what stands in for them.
        encoding (str): Of Python 2's strings.
        limits (Limits): The most that is read.
        storage (Callable, optional): What stands in for a persistent id. Defaults to
            None: there must be none.
    """

    def __init__(
        self,
        data: bytes,
        names: Mapping[str, Callable] = PLAIN_NAMES,
        encoding: str = 'latin1',
        limits: Limits | None = None,
        storage: Callable[[Any], Any] | None = None,
    ) -> None:
        self.data, self.names, self.encoding = data, names, encoding
        self.limits, self.storage = limits or Limits(), storage
        self.position = self.instructions = 0
        self.used: set[str] = set()
        # By identity: what a file puts together never compares as one of these.
        self._called = {id(value) for value in names.values()}

    def load(self) -> Any:
        """Interpret one pickle, from where the last one ended.

        Returns:
            Any: Containers, numbers, texts and stand-ins; see :func:`check_value`.

        Raises:
            UnsafePickleError: It names something else, or is over a limit.
            Exception: Many kinds, where the data is damaged.
        """
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        end = time.monotonic() + self.limits.seconds
        data, instructions = self.data, _INSTRUCTIONS
        try:
            while True:
                if self.instructions > self.limits.instructions:
                    raise UnsafePickleError(f'it has over {self.instructions} values')
                if time.monotonic() > end:
                    raise UnsafePickleError(f'it takes over {self.limits.seconds} s')
                for _ in range(4096):
                    code = data[self.position]
                    self.position += 1
                    instructions[code](self)
                self.instructions += 4096
        except _Stop:
            return self.stack.pop()

    # Arguments of instructions.

    def take(self, count: int) -> bytes:
        """The next bytes."""
        end = self.position + count
        if count < 0 or end > len(self.data):
            raise EOFError('it ends in the middle of a value')
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def line(self) -> bytes:
        """The rest of a line."""
        end = self.data.find(b'\n', self.position)
        if end < 0:
            raise EOFError('it ends in the middle of a line')
        taken = self.data[self.position : end]
        self.position = end + 1
        return taken

    def marked(self) -> list[Any]:
        """What lies above the last mark."""
        items = self.stack
        self.stack = self.marks.pop()
        return items

    # Names, and the three instructions that would call them.

    def push_name(self, module: Any, name: Any) -> None:
        """Put what stands in for a name on the stack."""
        if type(module) is not str or type(name) is not str:
            raise UnsafePickleError('it has a name that is no text')
        full = _todays_name(module, name)
        if full not in self.names:
            raise UnsafePickleError(
                f'it asks for "{full[:200]}", which is not among the few names that '
                'such a file needs'
            )
        self.used.add(full)
        self.stack.append(self.names[full])

    def call(self) -> None:
        """``REDUCE``: let a stand-in check and record its arguments."""
        args = self.stack.pop()
        function = self.stack[-1]
        if id(function) not in self._called or type(args) is not tuple:
            raise UnsafePickleError(f'it calls a {type(function).__name__}')
        self.stack[-1] = function(*args)

    def new(self) -> None:
        """``NEWOBJ``: as a call, of stand-ins for classes alone."""
        if not isinstance(self.stack[-2], type):
            raise UnsafePickleError('it makes an object of what is no class')
        self.call()

    def build(self) -> None:
        """``BUILD``: give a stand-in its state."""
        state = self.stack.pop()
        target = self.stack[-1]
        if type(target) is OrderedDict:  # a state dict's versions of modules
            fits = type(state) is dict and state.keys() <= {'_metadata'}
            _require(fits, 'an OrderedDict with attributes')
            target.__dict__.update(state)
        elif isinstance(target, StandIn):
            target.__setstate__(state)
        else:
            raise UnsafePickleError(f'it changes a {type(target).__name__}')

    # Containers.

    def append(self, items: list[Any]) -> None:
        """Put items at the end of a list."""
        if type(self.stack[-1]) is not list:
            raise UnsafePickleError(f'it appends to a {type(self.stack[-1]).__name__}')
        self.stack[-1].extend(items)

    def put(self, items: list[Any]) -> None:
        """Put keys and values into a dict."""
        target = self.stack[-1]
        if type(target) not in (dict, OrderedDict):
            raise UnsafePickleError(f'it puts items into a {type(target).__name__}')
        keys = items[::2]
        for key in keys:
            if type(key) is not str:
                _check_key(key)
        self.instructions += len(keys)
        target.update(zip(keys, items[1::2], strict=True))

    def add(self, items: list[Any]) -> None:
        """Put items into a set."""
        if type(self.stack[-1]) is not set:
            raise UnsafePickleError(f'it adds to a {type(self.stack[-1]).__name__}')
        self.stack[-1].update(_set(items))

    def persistent(self) -> None:
        """What a persistent id means, as tensors of PyTorch have."""
        if self.storage is None:
            raise UnsafePickleError('it refers to something outside of it')
        self.stack[-1] = self.storage(self.stack[-1])


def _todays_name(module: str, name: str) -> str:
    """Today's full name of what Python 2 and NumPy 1 wrote."""
    module, name = NAME_MAPPING.get((module, name), (module, name))
    module = IMPORT_MAPPING.get(module, module)
    if module.startswith('numpy.core.'):
        module = module.replace('numpy.core.', 'numpy._core.', 1)
    return f'{module}.{name}'


def _pack(code: bytes, kind: str) -> Callable[[Machine], None]:
    """An instruction with one number of a fixed size."""
    unpack, size = struct.Struct(kind).unpack_from, struct.calcsize(kind)

    def number(machine: Machine) -> None:
        machine.stack.append(unpack(machine.data, machine.position)[0])
        machine.position += size

    number.__name__ = f'number_{code!r}'
    return number


def _sized(kind: str, make: Callable[[Machine, bytes], Any]) -> Callable:
    """An instruction with a length and as many bytes."""
    unpack, size = struct.Struct(kind).unpack_from, struct.calcsize(kind)

    def value(machine: Machine) -> None:
        begin = machine.position + size
        end = begin + unpack(machine.data, machine.position)[0]
        if not begin <= end <= len(machine.data):
            raise EOFError('it ends in the middle of a value')
        machine.position = end
        machine.stack.append(make(machine, machine.data[begin:end]))

    return value


def _get(kind: str) -> Callable[[Machine], None]:
    unpack, size = struct.Struct(kind).unpack_from, struct.calcsize(kind)

    def get(machine: Machine) -> None:
        machine.stack.append(machine.memo[unpack(machine.data, machine.position)[0]])
        machine.position += size

    return get


def _memoize(kind: str) -> Callable[[Machine], None]:
    unpack, size = struct.Struct(kind).unpack_from, struct.calcsize(kind)

    def memoize(machine: Machine) -> None:
        machine.memo[unpack(machine.data, machine.position)[0]] = machine.stack[-1]
        machine.position += size

    return memoize


def _text(machine: Machine, data: bytes) -> str:  # noqa: ARG001
    return data.decode('utf-8', 'surrogatepass')


def _old_text(machine: Machine, data: bytes) -> str:
    return data.decode(machine.encoding)


def _as_bytes(machine: Machine, data: bytes) -> bytes:  # noqa: ARG001
    return data


def _as_bytearray(machine: Machine, data: bytes) -> bytearray:  # noqa: ARG001
    return bytearray(data)


def _long(machine: Machine, data: bytes) -> int:  # noqa: ARG001
    _require(len(data) <= _DIGITS, 'a number of thousands of digits')
    return int.from_bytes(data, 'little', signed=True)


def _decimal(line: bytes) -> int:
    _require(len(line) <= _DIGITS, 'a number of thousands of digits')
    return int(line)


def _int_line(machine: Machine) -> None:
    line = machine.line()
    flags = {b'00': False, b'01': True}
    machine.stack.append(flags[line] if line in flags else _decimal(line))


def _quoted(machine: Machine) -> None:
    line = machine.line().strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise ValueError('it has a text without quotes')
    text, _ = codecs.escape_decode(line[1:-1])
    machine.stack.append(text.decode(machine.encoding))


def _tuple(count: int) -> Callable[[Machine], None]:
    def make(machine: Machine) -> None:
        if len(machine.stack) < count:
            raise IndexError('it takes from an empty stack')
        machine.stack[-count:] = [tuple(machine.stack[-count:])]

    return make


def _push(value: Any) -> Callable[[Machine], None]:
    return lambda machine: machine.stack.append(value)


def _empty(kind: type) -> Callable[[Machine], None]:
    return lambda machine: machine.stack.append(kind())


def _mark(machine: Machine) -> None:
    machine.marks.append(machine.stack)
    machine.stack = []


def _pop(machine: Machine) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.marked()


def _pop_marked(machine: Machine) -> None:
    machine.marked()


def _append_one(machine: Machine) -> None:
    item = machine.stack.pop()
    machine.append([item])


def _put_one(machine: Machine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.put([key, value])


def _from_marked(make: Callable[[list], Any]) -> Callable[[Machine], None]:
    def instruction(machine: Machine) -> None:
        made = make(machine.marked())
        machine.stack.append(made)

    return instruction


def _dict(items: list) -> dict:
    for key in items[::2]:
        _check_key(key)
    return dict(zip(items[::2], items[1::2], strict=True))


def _stop(machine: Machine) -> None:
    if len(machine.stack) != 1 or machine.marks:
        raise ValueError('it ends with more than one value, or with none')
    raise _Stop


def _global_line(machine: Machine) -> None:
    module, name = machine.line().decode(), machine.line().decode()
    machine.push_name(module, name)


def _global_stack(machine: Machine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.push_name(module, name)


def _new_ex(machine: Machine) -> None:
    options = machine.stack.pop()
    _require(options == {}, 'an object made with named arguments')
    machine.new()


def _skip(count: int) -> Callable[[Machine], None]:
    def skip(machine: Machine) -> None:
        machine.take(count)

    return skip


_CODES: dict[bytes, Callable[[Machine], None]] = {
    pickle.PROTO: _skip(1),
    pickle.FRAME: _skip(8),
    pickle.STOP: _stop,
    pickle.MARK: _mark,
    pickle.POP: _pop,
    pickle.POP_MARK: _pop_marked,
    pickle.DUP: lambda machine: machine.stack.append(machine.stack[-1]),
    # Numbers and texts.
    pickle.NONE: _push(None),
    pickle.NEWTRUE: _push(True),
    pickle.NEWFALSE: _push(False),
    pickle.INT: _int_line,
    pickle.BININT: _pack(pickle.BININT, '<i'),
    pickle.BININT1: _pack(pickle.BININT1, '<B'),
    pickle.BININT2: _pack(pickle.BININT2, '<H'),
    pickle.LONG: lambda machine: machine.stack.append(
        _decimal(machine.line().rstrip(b'L'))
    ),
    pickle.LONG1: _sized('<B', _long),
    pickle.LONG4: _sized('<i', _long),
    pickle.FLOAT: lambda machine: machine.stack.append(float(machine.line())),
    pickle.BINFLOAT: _pack(pickle.BINFLOAT, '>d'),
    pickle.STRING: _quoted,
    pickle.BINSTRING: _sized('<i', _old_text),
    pickle.SHORT_BINSTRING: _sized('<B', _old_text),
    pickle.UNICODE: lambda machine: machine.stack.append(
        machine.line().decode('raw-unicode-escape')
    ),
    pickle.BINUNICODE: _sized('<I', _text),
    pickle.SHORT_BINUNICODE: _sized('<B', _text),
    pickle.BINUNICODE8: _sized('<Q', _text),
    pickle.BINBYTES: _sized('<I', _as_bytes),
    pickle.SHORT_BINBYTES: _sized('<B', _as_bytes),
    pickle.BINBYTES8: _sized('<Q', _as_bytes),
    pickle.BYTEARRAY8: _sized('<Q', _as_bytearray),
    # Containers.
    pickle.EMPTY_LIST: _empty(list),
    pickle.LIST: _from_marked(list),
    pickle.APPEND: _append_one,
    pickle.APPENDS: lambda machine: machine.append(machine.marked()),
    pickle.EMPTY_TUPLE: _push(()),
    pickle.TUPLE: _from_marked(tuple),
    pickle.TUPLE1: _tuple(1),
    pickle.TUPLE2: _tuple(2),
    pickle.TUPLE3: _tuple(3),
    pickle.EMPTY_DICT: _empty(dict),
    pickle.DICT: _from_marked(_dict),
    pickle.SETITEM: _put_one,
    pickle.SETITEMS: lambda machine: machine.put(machine.marked()),
    pickle.EMPTY_SET: _empty(set),
    pickle.ADDITEMS: lambda machine: machine.add(machine.marked()),
    pickle.FROZENSET: _from_marked(_frozenset),
    # What was there before.
    pickle.PUT: lambda machine: machine.memo.__setitem__(
        _decimal(machine.line()), machine.stack[-1]
    ),
    pickle.BINPUT: _memoize('<B'),
    pickle.LONG_BINPUT: _memoize('<I'),
    pickle.MEMOIZE: lambda machine: machine.memo.__setitem__(
        len(machine.memo), machine.stack[-1]
    ),
    pickle.GET: lambda machine: machine.stack.append(
        machine.memo[_decimal(machine.line())]
    ),
    pickle.BINGET: _get('<B'),
    pickle.LONG_BINGET: _get('<I'),
    # Names and calls.
    pickle.GLOBAL: _global_line,
    pickle.STACK_GLOBAL: _global_stack,
    pickle.REDUCE: Machine.call,
    pickle.NEWOBJ: Machine.new,
    pickle.NEWOBJ_EX: _new_ex,
    pickle.BUILD: Machine.build,
    pickle.BINPERSID: Machine.persistent,
}


def _refused(machine: Machine) -> None:
    code = machine.data[machine.position - 1 : machine.position]
    raise UnsafePickleError(
        f'it has the instruction {code!r}, which data does not need'
    )


def _unknown(machine: Machine) -> None:
    code = machine.data[machine.position - 1 : machine.position]
    raise ValueError(f'{code!r} is no instruction of a pickle')


# Names by number, objects of Python 2, and what is outside of the file.
for _code in (
    *(pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.INST, pickle.OBJ, pickle.PERSID),
    *(pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
):
    _CODES[_code] = _refused
_INSTRUCTIONS = [_CODES.get(bytes([code]), _unknown) for code in range(256)]


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
            found = known[id(node)]
            if found is None:
                raise UnsafePickleError('it has a container that contains itself')
        else:
            known[id(node)] = None
            _require(depth <= limits.depth, f'over {limits.depth} containers deep')
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
            found = known[id(node)] = (count + len(children), height)
        _require(
            depth + found[1] <= limits.depth, f'over {limits.depth} containers deep'
        )
        most = max(limits.written_out, 4 * instructions)
        _require(
            found[0] <= most, f'over {most} values if what is shared is written out'
        )
        return found

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


def unreadable(path: Path, error: Exception, what: str) -> ValueError:
    """The one error for a file that is not what it should be."""
    if isinstance(error, UnsafePickleError):
        return UnsafePickleError(
            f'{path} was refused, and nothing of it was run: {error}. Use a file from '
            'a source you trust, or write the data anew as JSON.'
        )
    if not path.is_file():
        return ValueError(f'{path}: no such file. Expected {what}.')
    return ValueError(
        f'{path} ({path.stat().st_size:,} bytes) cannot be read as {what}: '
        f'{type(error).__name__}: {str(error)[:300]}. It may be truncated by an '
        'interrupted download or a killed write: fetch or write it again, or use an '
        'earlier one.'
    )


def interpret(
    data: bytes,
    names: Mapping[str, Callable] = PLAIN_NAMES,
    encoding: str = 'latin1',
    limits: Limits | None = None,
) -> Any:
    """The value of a pickle in memory; see :func:`load_pickle`."""
    machine = Machine(data, names, encoding, limits)
    value = machine.load()
    if check_value(value, machine.instructions, machine.limits):
        value = thaw(value)
    return value


def load_pickle(
    path: str | Path,
    encoding: str = 'latin1',
    names: Mapping[str, Callable] = PLAIN_NAMES,
    limits: Limits | None = None,
) -> Any:
    """Read a pickle of plain containers; no name in it becomes an object of Python.

    Args:
        path (str or Path): The pickle.
        encoding (str): How to read Python 2 strings. Defaults to 'latin1', as
            the REFER files need.
        names (Mapping[str, Callable]): What stands in for the names in it. Defaults to
            those of containers and of NumPy's numbers and numeric arrays.
        limits (Limits, optional): Defaults to None: those of :class:`Limits`.

    Returns:
        Any: Lists, tuples, dicts, sets, str, bytes, numbers, NumPy arrays.

    Raises:
        UnsafePickleError: The file asks for anything else, and it names what; or it is
            over a limit.
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged or no pickle at all.
    """
    path, limits = Path(path), limits or Limits()
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file.')
    try:
        size = path.stat().st_size
        _require(size <= limits.size, f'{size:,} bytes large, over {limits.size:,}')
        return interpret(path.read_bytes(), names, encoding, limits)
    except Exception as error:  # a hostile stream can raise almost anything
        raise unreadable(path, error, 'a pickle') from error
