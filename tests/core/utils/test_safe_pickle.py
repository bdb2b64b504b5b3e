"""Pickles from strangers: data is read, no name becomes an object, nothing explodes."""

import builtins
import collections
import os
import pickle
import re

import numpy as np
import pytest

from projects.clip_vg_core.utils.safe_pickle import (
    UnsafePickleError,
    interpret,
    load_pickle,
)
from projects.clip_vg_core.utils.stand_ins import PLAIN_NAMES, Limits

from ...helpers.pickles import deep, laughs, self_containing

PLAIN = {
    'list': [1, 2.5, 'text', b'bytes', None, True, -3, 2**40, -(2**70), b''],
    'tuple': ('a', ('b',), (), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
    'set': {1, 2},
    'frozen': frozenset(['a']),
    'text': 'naïve 😀 \n \\ \' "',
    'bytes': bytes(range(256)) * 2,
    'long': ['x' * 300, b'y' * 300, 'z' * 70_000],
    'ordered': collections.OrderedDict(a=1),
    'keys': {1: 'a', 'b': 2, None: 3, b'c': 4, 1.5: 5},
    'number': np.float64(0.5),
    'empty': [[], {}, set(), np.float32(-1)],
}
ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.asfortranarray(np.arange(6).reshape(2, 3)),
    np.arange(3, dtype='>i2'),
    np.zeros((0, 4)),
    np.array([True, False]),
    np.array(7, np.uint8),
]


def write(tmp_path, data):
    path = tmp_path / 'file.p'
    path.write_bytes(data)
    return path


@pytest.mark.parametrize('protocol', range(6))
def test_plain_values_are_read_as_python_reads_them(tmp_path, protocol):
    data = pickle.dumps([PLAIN, PLAIN], protocol=protocol)
    read = load_pickle(write(tmp_path, data))
    assert read == pickle.loads(data) == [PLAIN, PLAIN]
    assert read[0] is read[1]
    assert [type(v) for v in read[0].values()] == [type(v) for v in PLAIN.values()]


@pytest.mark.parametrize('protocol', range(6))
def test_numeric_arrays_are_read(tmp_path, protocol):
    read = load_pickle(write(tmp_path, pickle.dumps(ARRAYS, protocol=protocol)))
    for array, expected in zip(read, ARRAYS, strict=True):
        np.testing.assert_array_equal(array, expected)
        assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
        array.flags.writeable = True  # it owns its numbers


def test_what_python_2_wrote_is_read(tmp_path):
    # What Python 2 wrote for [{'sent': 'caf\xe9'}] with protocol 2.
    data = b'\x80\x02]q\x00}q\x01U\x04sentq\x02U\x04caf\xe9q\x03sa.'
    assert load_pickle(write(tmp_path, data)) == [{'sent': 'café'}]
    # And with protocol 0, as in some of REFER's: [{'sent': "it's", 'n': (1L, u'é')}].
    data = b"(lp1\n(dp2\nS'sent'\np3\nS\"it's\"\np4\nsS'n'\np5\n(L1L\nV\xe9\ntp6\nsa."
    assert load_pickle(write(tmp_path, data)) == [{'sent': "it's", 'n': (1, 'é')}]


def test_every_instruction_of_data_is_read_and_the_others_are_refused():
    refused = set()
    for name in dir(pickle):
        code = getattr(pickle, name)
        if name.isupper() and isinstance(code, bytes) and len(code) == 1:
            try:
                interpret(code)
            except UnsafePickleError as error:
                if 'instruction' in str(error):
                    refused.add(name)
            except Exception:  # its arguments are missing
                pass
    # EXT: names by number. INST, OBJ: objects of Python 2. The rest: not in the file.
    assert refused == {
        *('EXT1', 'EXT2', 'EXT4', 'INST', 'OBJ', 'PERSID'),
        *('NEXT_BUFFER', 'READONLY_BUFFER'),
    }


class Attack:
    """Does something when unpickled in the plain way."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('protocol', range(6))
@pytest.mark.parametrize(
    ('name', 'call'),
    [
        ('posix.system', (os.system, ('touch touched',))),
        ('builtins.eval', (eval, ('open("touched", "w")',))),
        ('builtins.getattr', (getattr, ('text', 'upper'))),
        ('builtins.str', (str, ('text',))),
        ('builtins.list', (list, ((),))),
        ('numpy.ndarray', (np.ndarray, ((1,), np.dtype('O'), b'A' * 8))),
        ('numpy.dtype', (np.dtype, ('O',))),
    ],
)
def test_calls_are_refused_by_name(tmp_path, monkeypatch, name, call, protocol):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, pickle.dumps([Attack(*call)], protocol=protocol))
    with pytest.raises(UnsafePickleError, match=str(path)) as caught:
        load_pickle(path)
    if name not in PLAIN_NAMES:
        assert f'"{name}"' in str(caught.value)
    assert not (tmp_path / 'touched').exists()


# What broke out of, crashed or stalled the unpickler before this one; the first three
# were public cases. `c`: name, `R`: call, `b`: change, `s`: set an item.
BREAKS = {
    'object pointers from bytes': b'cnumpy\nndarray\n((K\x01tcnumpy\ndtype\n(X\x01\x00'
    b'\x00\x00OtRB\x08\x00\x00\x00AAAAAAAAtR.',
    'a cache that BUILD sets': b'ctorch.serialization\n_get_layout\n}b.',
    'flags of a dtype': b'cnumpy\ndtype\n(X\x02\x00\x00\x00u1tR(K\x03X\x01\x00\x00\x00|'
    b'X\x01\x00\x00\x00aNNK\x00K\x00K\x00tb.',
    'attributes of a function': b'c_codecs\nencode\n}X\x0c\x00\x00\x00__defaults__)sb.',
    'attributes of a class': b'cnumpy\nndarray\n}X\x08\x00\x00\x00__call__K\x01sb.',
    'attributes of a dict': b'ccollections\nOrderedDict\n)R}X\x19\x00\x00\x00'
    b'__array_interface__XXXXXX}sb.',
    'a name through dots': b'\x80\x04\x8c\x05numpy\x8c\x09os.getcwd\x93)R.',
    'a name that is no text': b'\x80\x04K\x01K\x02\x93.',
    'a class as a value': b'cnumpy\nndarray\n.',
    'a function as a value': b'(lc_codecs\nencode\na.',
    'an object as a key': b'}cnumpy\nndarray\nK\x01s.',
    'a tuple as a key': b'})K\x01s.',
    'a tuple in a set': b'\x80\x04\x8f()\x90.',
    'a call of a number': b'K\x01)R.',
    'an object of a number': b'K\x01)\x81.',
    'an object of a function': b'c_codecs\nencode\n)\x81.',
    'a change of a list': b']}b.',
    'items of a tuple': b')K\x01K\x02s.',
    'an append to a dict': b'}K\x01a.',
    'an array of a huge shape': b'cnumpy._core.multiarray\n_reconstruct\n(cnumpy\n'
    b'ndarray\n(K\x00tB\x01\x00\x00\x00btR(K\x01(\x8a\x06\xff\xff\xff\xff\xff\x7ft'
    b'cnumpy\ndtype\n(X\x02\x00\x00\x00f8tR\x89B\x00\x00\x00\x00tb.',
    'a place in the memo': b'K\x01r\xff\xff\xff\xff.',
    'a number of many digits': b'I' + b'9' * 5000 + b'\n.',
    'Python 2 object': b'(ios\nsystem\n.',
}


@pytest.mark.parametrize('name', [n for n in BREAKS if n != 'a place in the memo'])
def test_breaks_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r'file\.p'):
        load_pickle(write(tmp_path, BREAKS[name]))


def test_a_place_in_the_memo_costs_no_memory(tmp_path):
    """Python's unpickler makes room for all places below."""
    assert load_pickle(write(tmp_path, BREAKS['a place in the memo'])) == 1


@pytest.mark.parametrize('kind', ['tuple', 'list', 'dict'])
def test_few_bytes_for_very_many_values_are_refused(tmp_path, kind):
    with pytest.raises(UnsafePickleError, match='10000000 values'):
        load_pickle(write(tmp_path, laughs(40, kind)))
    assert load_pickle(write(tmp_path, laughs(10, kind)))


def test_what_is_deep_or_contains_itself_is_refused(tmp_path):
    for kind in ('tuple', 'list'):
        with pytest.raises(UnsafePickleError, match='64 containers'):
            load_pickle(write(tmp_path, deep(100_000, kind)))
        assert load_pickle(write(tmp_path, deep(60, kind)))
    for data in self_containing():
        with pytest.raises(UnsafePickleError, match='itself'):
            load_pickle(write(tmp_path, data))


@pytest.mark.parametrize(
    'limits', [dict(size=1000), dict(instructions=4000), dict(seconds=0)]
)
def test_limits_hold(tmp_path, limits):
    path = write(tmp_path, pickle.dumps(list(range(10_000))))
    assert len(load_pickle(path)) == 10_000
    with pytest.raises(UnsafePickleError, match='over (1,000|4096 values|0 s)'):
        load_pickle(path, limits=Limits(**limits))


def test_nothing_is_imported_or_called(tmp_path, monkeypatch):
    """No name of a file reaches the import system, whichever it is."""
    asked = []
    monkeypatch.setattr(builtins, '__import__', lambda *a, **k: asked.append(a))
    for module, name in [('antigravity', 'x'), ('numpy', 'load'), ('os', 'system')]:
        with pytest.raises(UnsafePickleError, match=re.escape(f'"{module}.{name}"')):
            load_pickle(write(tmp_path, f'c{module}\n{name}\n.'.encode()))
    assert not asked


@pytest.mark.parametrize('keep', [0.0, 0.5, 0.98])
def test_a_truncated_file_is_named(tmp_path, keep):
    data = pickle.dumps(list(range(1000)))
    with pytest.raises(ValueError, match=r'file\.p .*truncated'):
        load_pickle(write(tmp_path, data[: int(len(data) * keep)]))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='nothing'):
        load_pickle(tmp_path / 'nothing.p')
