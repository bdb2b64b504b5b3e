"""Feed the loaders with random pickles: nothing may run, crash, or come out alive.

    python tests/fuzz_unpickling.py --programs 1000000 --seed 0

A program is a random run of pickle's instructions over every name that occurs in real
files, that the loaders or torch's own loader know, or that an attack would like; or a
real file with some bytes changed. Each goes through one of the loaders in turn. The
process watches itself: an audit hook sees imports, executed code, processes, written
files and sockets; memory and the time of a program are bounded; and what comes out must
be of a type that data has. Prints counts; exits with 1 at the first violation, and a
crash of the interpreter is one as well, for whoever started it.
"""

import argparse
import codecs
import collections
import io
import pickle
import random
import resource
import signal
import struct
import sys
import warnings
import zipfile

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer

import projects.clip_vg  # noqa: F401  # registers, before the audit hook watches
from projects.clip_vg.checkpoints import clip_weights, safe_loading
from projects.clip_vg_core.utils.safe_pickle import interpret
from projects.clip_vg_core.utils.safe_torch import (
    _OTHER_NAMES,
    TENSOR_NAMES,
    _load_stream,
    _Saved,
)
from projects.clip_vg_core.utils.stand_ins import PLAIN_NAMES

CHECKPOINT_NAMES = {**_OTHER_NAMES, **safe_loading.MMENGINE_NAMES}
DUMP_NAMES = {**TENSOR_NAMES, 'torch.storage._load_from_bytes': _Saved}
ATTACKS = [
    *('os.system', 'posix.system', 'subprocess.Popen', 'builtins.exec'),
    *('builtins.eval', 'builtins.getattr', 'builtins.setattr', 'builtins.open'),
    *('builtins.__import__', 'builtins.str', 'builtins.list', 'builtins.dict'),
    *('builtins.bytearray', 'builtins.tuple', 'builtins.type', 'builtins.map'),
    *('numpy.load', 'numpy.memmap', 'numpy.lib.format.read_array', 'copyreg._ext'),
    *('operator.attrgetter', 'functools.partial', 'importlib.import_module'),
    *('torch.load', 'torch.hub.load', 'torch.storage.UntypedStorage', 'socket.socket'),
    *('__torch__.Module', '__torch__.torch.nn.Linear', 'sys.modules', 'io.open'),
]
TORCHS = list(torch._weights_only_unpickler._get_allowed_globals())
NAMES = sorted({*CHECKPOINT_NAMES, *DUMP_NAMES, *clip_weights._ARCHIVE_NAMES, *TORCHS})
# What may come out.
VALUES = (
    *(str, bytes, bytearray, int, float, bool, type(None), list, tuple, dict, set),
    *(
        frozenset,
        collections.OrderedDict,
        collections.Counter,
        np.ndarray,
        np.generic,
        np.dtype,
    ),
    *(torch.Tensor, torch.Size, torch.device, torch.dtype, HistoryBuffer, ConfigDict),
    *(argparse.Namespace, torch.storage.TypedStorage),
)
# Functions of MMEngine that the states of schedules hold; see `safe_loading`.
METHODS = {'_annealing_cos', '_annealing_linear', 'min', 'max', 'current', 'mean'}
WATCHED = ('import', 'exec', 'compile', 'os.', 'subprocess.', 'socket.', 'ctypes.')
SECONDS = 5


def violation(what, program=b''):
    """End with what was found."""
    print(f'VIOLATION: {what}; program {program!r}', flush=True)  # noqa: T201
    sys.exit(1)


class Watch:
    """The audit hook; on while a program is loaded."""

    def __init__(self):
        self.on, self.seen = False, []
        sys.addaudithook(self)

    def __call__(self, event, args):
        if self.on and (
            event.startswith(WATCHED)
            or (event == 'open' and args[1] not in ('r', 'rb'))
        ):
            self.seen.append((event, str(args)[:200]))


def atoms(rng):
    """A number, a text, bytes: ordinary ones, and those at the edges."""
    texts = [b'', b'cpu', b'0', b'storage', b'latin1', b'f8', b'O', b'_metadata', b'F']
    texts += [b'u1', b'<', b'__setstate__', b'__dict__', b'min', b'torch.nn', b'a']
    text = rng.choice(texts)
    return rng.choice(
        [
            *(b'N', b'\x88', b'\x89', b']', b'}', b')', b'\x8f'),
            b'K' + bytes([rng.randrange(256)]),
            b'K' + bytes([rng.randrange(4)]),
            b'J' + struct.pack('<i', rng.choice([-1, 2**31 - 1, -(2**31), 1 << 20])),
            b'\x8a\x08' + struct.pack('<q', rng.choice([-1, 2**62, 2**40, 8])),
            b'G' + struct.pack('>d', rng.choice([0.5, float('nan'), 1e300])),
            b'X' + struct.pack('<I', len(text)) + text,
            b'X' + struct.pack('<I', len(text)) + text,
            b'C' + bytes([len(text)]) + text,
            b'B' + struct.pack('<I', 8) + bytes(rng.randrange(256) for _ in range(8)),
            b'\x96' + struct.pack('<Q', 4) + b'abcd',
            b"S'" + text + b"'\n",
            b'U' + bytes([len(text)]) + text,
            b'I%d\n' % rng.randrange(100),
            b'L%dL\n' % rng.randrange(1 << 70),
            b'F0.5\n',
            b'V' + text + b'\n',
        ]
    )


def name(rng):
    """A name, as one of the two instructions has it."""
    module, _, last = rng.choice(NAMES if rng.random() < 0.8 else ATTACKS).rpartition(
        '.'
    )
    module, last = module.encode(), last.encode()
    if rng.random() < 0.8:
        return b'c' + module + b'\n' + last + b'\n'
    texts = [b'X' + struct.pack('<I', len(text)) + text for text in (module, last)]
    return texts[0] + texts[1] + b'\x93'


def storage(rng):
    """A persistent id, more or less as torch has it."""
    kinds = b'Float Long Byte Half Bool'.split()
    count = rng.choice([b'K\x02', b'K\x02', b'K\x01', b'K\x00', b'J\xff\xff\xff\x7f'])
    key = rng.choice(b'001')
    return (
        b'(X\7\0\0\0storagectorch\n' + rng.choice(kinds) + b'Storage\n'
        b'X\1\0\0\0' + bytes([key]) + b'X\3\0\0\0cpu' + count + b'tQ'
    )


def generate(rng):
    """A random program."""
    joined = [*(b't', b'\x85', b'\x86', b'\x87', b'l', b'd', b'e', b'u', b'a', b's')]
    joined += [b'R', b'R', b'R', b'R', b'\x81', b'b', b'b', b'\x92', b'Q', b'\x90']
    joined += [b'0', b'1', b'2', b'2', b'(', b'(', b'\x91', b'o', b'.', b'\x94']
    out = [b'\x80' + bytes([rng.choice([2, 2, 2, 4])])]
    for _ in range(rng.randrange(3, 40)):
        draw = rng.random()
        if draw < 0.3:
            out.append(atoms(rng))
        elif draw < 0.45:
            out.append(name(rng))
        elif draw < 0.5:
            out.append(storage(rng))
        elif draw < 0.6:  # a call that fits
            arguments = b''.join(atoms(rng) for _ in range(rng.randrange(5)))
            out.append(name(rng) + b'(' + arguments + b'tR')
        elif draw < 0.66:
            out.append(memo(rng))
        elif draw < 0.67:
            out.append(bytes([rng.randrange(256)]))
        else:
            out.append(rng.choice(joined))
    return b''.join(out) + b'.'


def memo(rng):
    """Put into the memo, or get from it."""
    place = rng.randrange(4)
    return rng.choice(
        [
            b'q' + bytes([place]),
            b'h' + bytes([place]),
            b'r' + struct.pack('<I', rng.choice([place, 2**32 - 1])),
            b'j' + struct.pack('<I', place),
            b'p%d\n' % place,
            b'g%d\n' % place,
        ]
    )


def real_programs():
    """Indices of real files, to be changed."""
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    model = torch.nn.Linear(1, 2)
    values = [
        [dict(ref_id=1, sentences=[dict(tokens=['a'], sent='a')], box=[1.5, 2])],
        dict(state_dict=model.state_dict(), hub=dict(loss=history), n=np.int64(3)),
        dict(model=dict(a=torch.ones(2)), args=argparse.Namespace(lr=1), e=1),
        [np.arange(4.0), np.float32(1), {1}, collections.OrderedDict(a=1)],
        dict(c=ConfigDict(a=dict(b=1)), milestones=collections.Counter([2])),
    ]
    found = []
    for value in values:
        buffer = io.BytesIO()
        torch.save(value, buffer)
        with zipfile.ZipFile(buffer) as archive:
            found.append(archive.read('archive/data.pkl'))
        buffer = io.BytesIO()
        torch.save(value, buffer, _use_new_zipfile_serialization=False)
        found += [buffer.getvalue(), pickle.dumps(value, 2), pickle.dumps(value, 5)]
    return found


def mutate(rng, program):
    """Change, take out and double some bytes."""
    out = bytearray(program)
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(out))
        draw = rng.random()
        if draw < 0.5:
            out[place] = rng.randrange(256)
        elif draw < 0.75:
            del out[place : place + rng.randrange(1, 8)]
        else:
            out[place:place] = rng.choice([out[place : place + 8], name(rng)])
        if not out:
            break
    return bytes(out)


def archived(rng, program):
    """The program as the index of an archive with two small records."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as file:
        file.writestr('archive/data.pkl', program)
        file.writestr('archive/version', '3\n')
        file.writestr('archive/data/0', bytes(8))
        file.writestr('archive/data/1', bytes(rng.choice([0, 2, 8])))
    return buffer


HEAD = [0x1950A86A20F9469CFC6C, 1001, dict(little_endian=True)]
LEGACY = b''.join(pickle.dumps(each, 2) for each in HEAD)


def legacy(program):
    """The program in a file of torch before 1.6, with two small storages."""
    data = LEGACY + program
    data += pickle.dumps(['0', '1'], 2)
    return data + (struct.pack('<q', 2) + bytes(8)) * 2


def check(value, program, depth=0):
    """Everything in a value must be of a type that data has."""
    if getattr(value, '__name__', None) in METHODS:
        return
    if not isinstance(value, VALUES) or depth > 80:
        violation(f'a {type(value).__name__} came out', program)
    if isinstance(value, dict):
        for item in value.values():
            check(item, program, depth + 1)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            check(item, program, depth + 1)
    elif isinstance(value, argparse.Namespace):
        check(vars(value), program, depth + 1)
    elif isinstance(value, torch.Tensor) and not value.is_sparse:
        value.clone()  # reads every number that it says it has
    elif isinstance(value, np.ndarray) and value.dtype.hasobject:
        violation('an array of objects came out', program)


def load_archive(stream):
    """As CLIP's weights are read; the stream in the place of a path."""
    return clip_weights._read_archive(stream)


def run(kind, rng, program):
    """Feed one loader."""
    if kind == 'plain':
        return interpret(program, PLAIN_NAMES)
    if kind == 'dump':
        return interpret(program, DUMP_NAMES)
    if kind == 'zip':
        stream = archived(rng, program)
        return _load_stream(stream, stream.getvalue(), CHECKPOINT_NAMES, 'cpu')
    if kind == 'legacy':
        data = program if program[:20] == LEGACY[:20] else legacy(program)
        return _load_stream(io.BytesIO(data), data, CHECKPOINT_NAMES, 'cpu')
    return load_archive(archived(rng, program))


KINDS = ('plain', 'dump', 'zip', 'legacy', 'archive')


def warm_up(rng, real):
    """What torch and Python import when first used is none of a program's doing."""
    codecs.lookup('raw-unicode-escape')
    for kind in KINDS:
        for program in real:
            try:
                check(run(kind, rng, program), program)
            except Exception:
                continue


def bound_memory():
    """A GiB more than there is."""
    with open('/proc/self/statm') as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 30),) * 2)


def outcome(watch, kind, rng, program):
    """Feed one loader, and watch it."""
    signal.signal(signal.SIGALRM, lambda *_: violation(f'over {SECONDS} s', program))
    signal.alarm(SECONDS)
    watch.on = True
    try:
        value = run(kind, rng, program)
    except MemoryError:
        violation('over a GiB', program)
    except Exception as error:
        watch.on = False
        str(error)
        return 'refused' if 'Unsafe' in type(error).__name__ else 'damaged'
    finally:
        watch.on = False
        signal.alarm(0)
    check(value, program)
    return 'read'


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--programs', type=int, default=1_000_000)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter('ignore')  # of torch, for other protocols than its own
    watch, counts = Watch(), collections.Counter()
    real, rng = real_programs(), random.Random(args.seed)
    warm_up(rng, real)
    bound_memory()
    for number in range(args.programs):
        kind = KINDS[number % len(KINDS)]
        changed = rng.random() < 0.4
        program = mutate(rng, rng.choice(real)) if changed else generate(rng)
        counts[kind, outcome(watch, kind, rng, program)] += 1
        if watch.seen:
            violation(watch.seen, program)
    for (kind, found), count in sorted(counts.items()):
        print(f'{kind:8} {found:8} {count:8,}')  # noqa: T201
    print(f'{sum(counts.values()):,} programs, no violation')  # noqa: T201


if __name__ == '__main__':
    main()
