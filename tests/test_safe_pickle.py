"""Files from strangers: what is needed is read, nothing is run."""

import argparse
import collections
import os
import pickle

import numpy as np
import pytest
import torch

from projects.clip_vg.safe_pickle import UnsafePickleError, load_pickle, load_torch

PLAIN = {
    'list': [1, 2.5, 'text', b'bytes', None, True],
    'tuple': ('a', ('b',)),
    'set': {1, 2},
    'array': np.arange(6, dtype=np.float32).reshape(2, 3),
    'number': np.float64(0.5),
    'ordered': collections.OrderedDict(a=1),
}


class Attack:
    """Touches a file when unpickled in the plain way."""

    def __init__(self, call):
        self.call = call

    def __reduce__(self):
        return self.call


def attacks(target):
    touch = f'touch {target}'
    return {
        'os.system': Attack((os.system, (touch,))),
        'builtins.eval': Attack((eval, (f'__import__("os").system("{touch}")',))),
        'builtins.getattr': Attack((getattr, ('text', 'upper'))),
        'builtins.open': Attack((open, (str(target), 'w'))),
    }


@pytest.mark.parametrize('protocol', [0, 2, 5])
def test_plain_containers_and_arrays_are_read(tmp_path, protocol):
    path = tmp_path / 'plain.p'
    path.write_bytes(pickle.dumps(PLAIN, protocol=protocol))
    read = load_pickle(path)
    np.testing.assert_array_equal(read.pop('array'), PLAIN['array'])
    assert read == {k: v for k, v in PLAIN.items() if k != 'array'}


def test_strings_of_python_2_are_read(tmp_path):
    # What Python 2 wrote for [{'sent': 'caf\xe9'}] with protocol 2.
    data = b'\x80\x02]q\x00}q\x01U\x04sentq\x02U\x04caf\xe9q\x03sa.'
    path = tmp_path / 'refs.p'
    path.write_bytes(data)
    assert load_pickle(path) == [{'sent': 'café'}]


@pytest.mark.parametrize('name', ['os.system', 'builtins.eval', 'builtins.getattr'])
@pytest.mark.parametrize('load', [load_pickle, load_torch])
def test_code_is_refused_by_name_and_not_run(tmp_path, name, load):
    target, path = tmp_path / 'touched', tmp_path / 'hostile.p'
    hostile = [attacks(target)[name]]
    if load is load_torch:
        torch.save(hostile, path)
    else:
        path.write_bytes(pickle.dumps(hostile))
    wanted = name.replace('os.', 'posix.')
    with pytest.raises(UnsafePickleError, match=wanted.replace('.', r'\.')):
        load(path)
    assert not target.exists()


def test_names_are_not_followed_through_dots(tmp_path):
    """Protocol 4 lets a file ask for 'sys.modules' inside an allowed module."""
    path = tmp_path / 'dots.p'
    path.write_bytes(
        b'\x80\x04\x8c\x05numpy\x8c\x0bos.getcwdxx\x93.'.replace(b'xx', b'  ')
    )
    with pytest.raises(UnsafePickleError, match='numpy'):
        load_pickle(path)


def test_tensors_are_read(tmp_path):
    path = tmp_path / 'tensors.pth'
    saved = {'a': torch.arange(4.0), 'b': torch.nn.Parameter(torch.ones(2)), 'c': [1]}
    torch.save(saved, path)
    read = load_torch(path)
    assert torch.equal(read['a'], saved['a'])
    assert torch.equal(read['b'], saved['b'])
    torch.save(saved, path, _use_new_zipfile_serialization=False)
    assert torch.equal(load_torch(path)['a'], saved['a'])


def test_further_names_must_be_given(tmp_path):
    path = tmp_path / 'args.pth'
    torch.save({'args': argparse.Namespace(lr=1)}, path)
    with pytest.raises(UnsafePickleError, match='argparse.Namespace'):
        load_torch(path)
    assert load_torch(path, allowed=[('argparse', 'Namespace')])['args'].lr == 1


@pytest.mark.parametrize('load', [load_pickle, load_torch])
@pytest.mark.parametrize('keep', [0.0, 0.5, 0.98])
def test_a_truncated_file_is_named(tmp_path, load, keep):
    path = tmp_path / 'whole.pth'
    if load is load_torch:
        torch.save(torch.arange(1000), path)
    else:
        path.write_bytes(pickle.dumps(list(range(1000))))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(ValueError, match=r'whole\.pth .*truncated'):
        load(path)


@pytest.mark.parametrize('load', [load_pickle, load_torch])
def test_a_missing_file_is_named(tmp_path, load):
    with pytest.raises(FileNotFoundError, match='nothing'):
        load(tmp_path / 'nothing.p')
