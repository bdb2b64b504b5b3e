"""An interpreter of pickles that imports nothing.

Python's own unpickler is a small machine that imports what a file names and calls
it. An allow-list does not make it safe: ``numpy.ndarray``, ``list`` and ``str`` are
enough to run code or to crash the interpreter. The machine here has the same
instructions, and instead of imports one table of names: what stands in for each is a
class or a function of this package that only checks and records its arguments. Every
other name is refused.
"""

import codecs
import pickle
import struct
import time
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from .stand_ins import (
    PLAIN_NAMES,
    Limits,
    StandIn,
    UnsafePickleError,
    check_key,
    make_set,
    require,
)

__all__ = ['Machine']

_DIGITS = 4000  # of a decimal number


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
            require(fits, 'an OrderedDict with attributes')
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
                check_key(key)
        self.instructions += len(keys)
        target.update(zip(keys, items[1::2], strict=True))

    def add(self, items: list[Any]) -> None:
        """Put items into a set."""
        if type(self.stack[-1]) is not set:
            raise UnsafePickleError(f'it adds to a {type(self.stack[-1]).__name__}')
        self.stack[-1].update(make_set(items))

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
    require(len(data) <= _DIGITS, 'a number of thousands of digits')
    return int.from_bytes(data, 'little', signed=True)


def _decimal(line: bytes) -> int:
    require(len(line) <= _DIGITS, 'a number of thousands of digits')
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
        check_key(key)
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
    require(options == {}, 'an object made with named arguments')
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
    pickle.FROZENSET: _from_marked(lambda items: frozenset(make_set(items))),
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
