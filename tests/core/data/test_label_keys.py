"""Keys of labels: equal for equal labels, another for any change."""

from dataclasses import replace

import numpy as np
import pytest

from projects.clip_vg_core.data import label_keys
from projects.clip_vg_core.data.label_keys import (
    content_keys,
    hash_strings,
    image_bytes,
    with_image_bytes,
)
from projects.clip_vg_core.data.label_table import PackedStrings
from projects.clip_vg_core.data.table_builder import TableBuilder

MASK = (1 << 64) - 1


def slow_hash(text):
    """The definition, with Python's integers."""
    base, total, power = 0x9E3779B97F4A7C15, 0, 1
    data = text.encode('utf-8', 'surrogatepass')
    for byte in data:
        total = (total + (byte + 1) * power) & MASK
        power = power * base & MASK
    value = (total + len(data)) & MASK
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK
    return value ^ value >> 31


@pytest.mark.parametrize('chunk', [1, 7, 1 << 20])
def test_hashes_are_those_of_the_definition(monkeypatch, chunk):
    monkeypatch.setattr(label_keys, '_CHUNK', chunk)
    texts = ['', 'a', 'b', 'ab', 'ba', 'left man', 'é😀', '\0', '\0\0', 'x' * 100, 'a']
    hashes = hash_strings(PackedStrings.pack(texts))
    assert hashes.tolist() == [slow_hash(text) for text in texts]
    assert len(set(hashes.tolist())) == len(set(texts))


def table(count=50, **changes):
    """Labels of ``count``, one of them changed."""
    builder = TableBuilder(str)
    for i in range(count):
        label = dict(image=f'{i // 3}.jpg', box=[i, 1, i + 9, 8], text=f'man {i % 7}')
        label.update(sample_id=f's{i}', split='train', source='x')
        if i == 20:
            label.update(changes)
        builder.add(**label)
    return builder.build('xyxy')


@pytest.mark.parametrize(
    'change',
    [
        dict(text='man 60'),
        dict(sample_id='s_20'),
        dict(image='elsewhere.jpg'),
        dict(box=[20, 1, 29, 8.001]),
        dict(box=[1, 20, 29, 8]),
    ],
)
def test_a_change_changes_one_key(change):
    before, after = content_keys(table()), content_keys(table(**change))
    assert np.flatnonzero(before != after).tolist() == [20]
    assert len(set(before.tolist())) == 50


def test_keys_do_not_depend_on_the_other_labels_or_the_sign_of_zero():
    whole = table(box=[0.0, 1, 9, 8])
    keys = content_keys(whole)
    chosen = np.array([30, 20, 3])
    assert content_keys(whole.take(chosen)).tolist() == keys[chosen].tolist()
    assert content_keys(table(box=[-0.0, 1, 9, 8])).tolist() == keys.tolist()
    assert (
        content_keys(replace(whole, splits=whole.splits + 0)).tolist() == keys.tolist()
    )
    assert len(content_keys(whole.take(np.arange(0)))) == 0


def test_other_bytes_of_an_image_are_another_key(tmp_path):
    (tmp_path / 'a.jpg').write_bytes(bytes(7))
    names = PackedStrings.pack(['a.jpg', 'b.jpg'])
    assert image_bytes(tmp_path, names).tolist() == [7, -1]
    keys = content_keys(table())
    one, other = (with_image_bytes(keys, np.full(50, size)) for size in (7, 8))
    assert not (one == other).any()
    assert (one == with_image_bytes(keys, np.full(50, 7))).all()


def test_keys_of_many_labels_do_not_collide():
    """Names and texts that differ little, as real ones do."""
    count = 200_000
    texts = PackedStrings.pack([f'{i % 13} of {i // 13}' for i in range(count)])
    assert len(np.unique(hash_strings(texts))) == count
