"""A file is continued only if it was made from the same."""

import json

import pytest

from projects.clip_vg_core.data.label_keys import images_fingerprint
from projects.clip_vg_core.utils.resumable import bind, origin_path, resumable_map

ORIGIN = dict(checkpoint='a' * 64, questions='b' * 64, precision=None)


def test_the_same_goes_on_and_another_is_refused_by_what_differs(tmp_path):
    path = tmp_path / 'new' / 'made.jsonl'
    bind(path, ORIGIN)
    path.write_text('x')
    bind(path, ORIGIN)
    assert path.read_text() == 'x'
    with pytest.raises(ValueError, match=r'made\.jsonl.*checkpoint was aaaa.*is cccc'):
        bind(path, dict(ORIGIN, checkpoint='c' * 64))
    with pytest.raises(ValueError, match='device was unknown, is cpu'):
        bind(path, dict(ORIGIN, device='cpu'))
    assert path.read_text() == 'x'


@pytest.mark.parametrize('beside', [None, '', '[]', '{"checkpoint"'])
def test_what_does_not_say_its_origin_is_refused(tmp_path, beside):
    path = tmp_path / 'made.jsonl'
    path.write_text('x')
    if beside is not None:
        origin_path(path).write_text(beside)
    with pytest.raises(ValueError, match='checkpoint was unknown'):
        bind(path, ORIGIN)


def test_overwriting_makes_anew_what_differs_only(tmp_path):
    path = tmp_path / 'made.jsonl'
    bind(path, ORIGIN)
    path.write_text('x')
    bind(path, ORIGIN, overwrite=True)
    assert path.read_text() == 'x'
    bind(path, dict(ORIGIN, precision='int8'), overwrite=True)
    assert not path.exists()
    assert json.loads(origin_path(path).read_text())['precision'] == 'int8'


def test_lines_of_another_origin_are_not_counted(tmp_path):
    """As many lines as there are items once passed for all of them."""

    def run(word, **more):
        def answer(items):
            return [f'{word} {item}' for item in items]

        return list(resumable_map(path, ['a', 'b'], answer, 1, 'x', True, **more))

    path = tmp_path / 'made.jsonl'
    assert run('one', origin=dict(model=1)) == ['one a', 'one b']
    assert run('two', origin=dict(model=1)) == ['one a', 'one b']
    with pytest.raises(ValueError, match='model was 1, is 2'):
        run('two', origin=dict(model=2))
    found = run('two', origin=dict(model=2), overwrite=True)
    assert found == ['two a', 'two b']


def test_images_are_told_by_names_order_and_bytes(tmp_path):
    for name, size in (('a', 3), ('b', 4)):
        (tmp_path / name).write_bytes(bytes(size))
    first = images_fingerprint(tmp_path, ['a', 'b'])
    assert images_fingerprint(tmp_path, ['a', 'b']) == first
    assert images_fingerprint(tmp_path, ['b', 'a']) != first
    assert images_fingerprint(tmp_path, ['a']) != first
    (tmp_path / 'b').write_bytes(bytes(5))
    assert images_fingerprint(tmp_path, ['a', 'b']) != first
