"""Files of torch.save from strangers: values are those of torch, and nothing runs."""

import argparse
import collections
import io
import os
import pickle
import threading
import zipfile

import numpy as np
import pytest
import torch

from projects.clip_vg_core.utils.safe_pickle import UnsafePickleError, load_pickle
from projects.clip_vg_core.utils.safe_torch import load_dump, load_torch

from ...helpers.pickles import deep, laughs, self_containing


def same(one, other):
    """Whether two values are equal, tensors and arrays in them included."""
    if isinstance(other, torch.Tensor):
        return (one.dtype, one.shape) == (other.dtype, other.shape) and bool(
            (one == other).all()
        )
    if isinstance(other, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(other, dict):
        keys = list(one) == list(other)
        return keys and all(same(one[key], other[key]) for key in other)
    if isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


BASE = torch.arange(12.0)
SAVED = {
    'views of one storage': [BASE, BASE[2:8], BASE.reshape(3, 4).T],
    'dtypes': [
        torch.ones(3).to(getattr(torch, name))
        for name in ('bfloat16', 'bool', 'uint8', 'int8', 'float64', 'float16', 'int64')
    ],
    'odd shapes': [torch.tensor(3.5), torch.empty(0), torch.empty(0, 4), BASE[::5]],
    'parameter': torch.nn.Parameter(torch.ones(2)),
    'weights': torch.nn.Linear(2, 3).state_dict(),
    'plain': [1, 'a', b'b', None, {2}, collections.Counter([1, 1])],
    'numpy': [np.arange(6.0).reshape(2, 3), np.float64(0.5), np.array([], int)],
    'torch names': [torch.float16, torch.Size([1, 2]), torch.device('cpu')],
    'options': argparse.Namespace(lr=0.1, layers=[1, 2]),
}


@pytest.mark.parametrize('is_zip', [True, False])
@pytest.mark.parametrize('name', SAVED)
def test_values_are_those_that_were_saved(tmp_path, name, is_zip):
    path = tmp_path / 'saved.pth'
    torch.save(SAVED[name], path, _use_new_zipfile_serialization=is_zip)
    assert same(load_torch(path), SAVED[name])


def test_views_share_their_storage(tmp_path):
    torch.save(SAVED['views of one storage'], tmp_path / 'saved.pth')
    whole, part, _ = load_torch(tmp_path / 'saved.pth')
    part += 100
    assert whole[2] == 102


def test_a_list_of_labels_is_read(tmp_path):
    """As TransVG has it; no tensor in it, so nothing of torch is needed."""
    labels = [('a.jpg', '1.pth', [1.5, 2, 3, 4], 'left man', [('r1', ['man'])])] * 3
    torch.save(labels, tmp_path / 'unc_val.pth')
    assert load_torch(tmp_path / 'unc_val.pth') == labels


@pytest.mark.parametrize('protocol', [2, 4, 5])
def test_tensors_in_a_plain_pickle_are_read(tmp_path, protocol):
    """What DumpDetResults writes."""
    path = tmp_path / 'dump.pkl'
    dump = [dict(img_id=1, pred_instances=dict(bboxes=BASE.reshape(3, 4), n=BASE[:3]))]
    path.write_bytes(pickle.dumps(dump, protocol=protocol))
    assert same(load_dump(path), dump)
    with pytest.raises(UnsafePickleError, match='torch'):
        load_pickle(path)


class Attack:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('is_zip', [True, False])
@pytest.mark.parametrize(
    ('name', 'call'),
    [
        ('posix.system', (os.system, ('touch touched',))),
        ('builtins.eval', (eval, ('open("touched", "w")',))),
        ('numpy.ndarray', (np.ndarray, ((1,), np.dtype('O'), b'A' * 8))),
        ('torch.storage.UntypedStorage', (torch.UntypedStorage, (10,))),
        ('torch.serialization._get_layout', (torch.serialization._get_layout, ('x',))),
        ('torch._utils._rebuild_sparse_tensor', (torch._utils._rebuild_sparse_tensor,)),
    ],
)
@pytest.mark.parametrize('beside', [1, torch.ones(2)])
def test_calls_are_refused_by_name(tmp_path, monkeypatch, name, call, is_zip, beside):
    """Also where torch's own loader would allow them."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'hostile.pth'
    call = call if len(call) == 2 else (*call, (1,))
    saved = [beside, Attack(*call)]
    torch.save(saved, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(UnsafePickleError, match=str(path)) as caught:
        load_torch(path)
    assert name in ('numpy.ndarray',) or f'"{name}"' in str(caught.value)
    assert not (tmp_path / 'touched').exists()


def archive(path, index, records=(), compression=zipfile.ZIP_STORED, root='archive'):
    """An archive as torch.save writes it, of parts that are ours."""
    with zipfile.ZipFile(path, 'w', compression) as file:
        file.writestr(f'{root}/data.pkl', index)
        file.writestr(f'{root}/version', '3\n')
        for name, data in dict(records).items():
            file.writestr(f'{root}/data/{name}', data)
    return path


def tensor(size='K\x02', stride='K\x01', offset='K\x00', count='K\x02', key='0'):
    """The index of an archive of one tensor of shape (size, )."""
    pid = f'(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0{key}X\x03\0\0\0cpu'
    code = f'ctorch._utils\n_rebuild_tensor_v2\n({pid}{count}tQ{offset}{size}\x85'
    code += f'{stride}\x85\x89ccollections\nOrderedDict\n)RtR.'
    return b'\x80\x02' + code.encode('latin1')


def test_the_archive_of_these_tests_is_one(tmp_path):
    path = archive(tmp_path / 'a.pth', tensor(), {'0': BASE[:2].numpy().tobytes()})
    assert torch.equal(load_torch(path), BASE[:2])


# Numbers as pickle has them: K is one byte, J four, \x8a\x08 eight.
LARGE = '\x8a\x08\0\0\0\0\0\1\0\0'


@pytest.mark.parametrize(
    ('what', 'match'),
    [
        (dict(count='K\x03', size='K\x03'), '12 bytes in a record of 8'),
        (dict(count=LARGE), 'record of 8 bytes'),
        (dict(key='1'), 'record of None bytes'),
        (dict(size='K\x03'), r'\(3,\) that reaches beyond its 2'),
        (dict(offset='K\x01'), 'beyond'),
        (dict(stride='K\x02'), 'beyond'),
        (dict(size=LARGE, stride='K\x00'), 'in 2 numbers'),
        (dict(size='J\xff\xff\xff\xff'), 'shape'),
        (dict(size='X\x01\0\0\0a'), 'shape'),
    ],
)
def test_tensors_beyond_their_bytes_are_refused(tmp_path, what, match):
    """PyTorch would read memory that is not the file's, or make room for any size."""
    path = archive(tmp_path / 'a.pth', tensor(**what), {'0': bytes(8)})
    with pytest.raises(UnsafePickleError, match=match):
        load_torch(path)


def test_odd_archives_are_refused(tmp_path):
    numbers = {'0': bytes(8)}
    path = tmp_path / 'a.pth'
    with pytest.raises(UnsafePickleError, match='compressed'):
        load_torch(archive(path, tensor(), numbers, zipfile.ZIP_DEFLATED))
    for name in ('archive/DATA.pkl', 'other/data/0'):
        archive(path, tensor(), numbers)
        with zipfile.ZipFile(path, 'a') as file:
            file.writestr(name, b'N.')
        with pytest.raises(UnsafePickleError, match='ambiguous'):
            load_torch(path)


@pytest.mark.parametrize('beside', [b'', b'ctorch\nfloat32\n0'])
def test_what_is_too_much_is_refused(tmp_path, beside):
    """Whether or not torch would be asked."""
    for data in (laughs(40), deep(9999), *self_containing()):
        index = b'\x80\x02' + beside + data.removeprefix(b'\x80\x02')
        with pytest.raises(UnsafePickleError, match=r'written out|deep|itself'):
            load_torch(archive(tmp_path / 'a.pth', index))


def test_a_nested_file_of_a_plain_pickle_is_checked_as_well(tmp_path):
    class Storage:
        def __reduce__(self):
            nested = io.BytesIO()
            torch.save(Attack(os.system, ('touch touched',)), nested)
            return torch.storage._load_from_bytes, (nested.getvalue(),)

    class Hostile:
        def __reduce__(self):
            hooks = collections.OrderedDict()
            return torch._utils._rebuild_tensor_v2, (
                *(Storage(), 0, (1,), (1,), False, hooks),
            )

    path = tmp_path / 'dump.pkl'
    path.write_bytes(pickle.dumps([Hostile()]))
    with pytest.raises(UnsafePickleError, match=r'posix\.system'):
        load_dump(path)


def test_threads_do_not_take_each_others_names(tmp_path):
    path, errors = tmp_path / 'saved.pth', []
    before = set(torch.serialization.get_safe_globals())
    torch.save([SAVED['numpy'], SAVED['weights']], path)

    def load():
        try:
            for _ in range(20):
                load_torch(path)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize('is_zip', [True, False])
@pytest.mark.parametrize('keep', [0.0, 0.5, 0.98])
def test_a_truncated_file_is_named(tmp_path, is_zip, keep):
    path = tmp_path / 'whole.pth'
    torch.save(torch.arange(1000), path, _use_new_zipfile_serialization=is_zip)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(ValueError, match=r'whole\.pth '):
        load_torch(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='nothing'):
        load_torch(tmp_path / 'nothing.p')
