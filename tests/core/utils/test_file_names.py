"""What data says never leads out of a folder."""

import itertools
from pathlib import Path

import pytest

from projects.clip_vg_core.curriculum.reliability_file import reliability_path
from projects.clip_vg_core.utils.file_names import file_name, leads_out

ODD = [
    *('', '.', '..', '../x', '/../../victim/x', 'a/b', 'a\\b', '~', '~/x', 'a\0b'),
    *(
        'a\nb',
        'x' * 5000,
        'ü' * 100,
        '__',
        'a__b',
        'a_',
        '-x',
        '.hidden',
        'C:\\x',
        'C:x',
    ),
    *('con*?', ' a', 'a ', 'a.', 'Ä', '\ud800', '$(x)', 'a;b', '名前'),
]


@pytest.mark.parametrize('text', ['human', 'template', 'measurer_caption', 'a.b-c+d=1'])
def test_plain_names_stay(text):
    assert file_name(text) == text


@pytest.mark.parametrize('text', ODD)
def test_any_text_is_one_part_of_a_path(tmp_path, text):
    name = file_name(text)
    path = tmp_path / f'm__{name}.npy'
    path.write_text('x')
    assert list(tmp_path.iterdir()) == [path]
    assert Path(name).name == name
    assert not name.startswith(('.', '-'))
    assert len(name.encode('utf-8', 'surrogatepass')) <= 120
    assert '__' not in name


def test_two_texts_never_share_a_file():
    pairs = list(itertools.product([*ODD, 'a', 'b', 'a_b', 'b__c'], repeat=2))
    paths = {reliability_path('r', *pair) for pair in pairs}
    assert len(paths) == len(pairs)


@pytest.mark.parametrize(
    ('name', 'out'),
    [
        ('a.jpg', False),
        ('train2014/a.jpg', False),
        ('a..b/c...jpg', False),
        ('2014:a.jpg', False),
        ('/etc/a.jpg', True),
        ('../a.jpg', True),
        ('a/../../b.jpg', True),
        ('a\\..\\b.jpg', True),
        ('C:\\a.jpg', True),
        ('\\\\server\\a.jpg', True),
        ('a\0.jpg', True),
    ],
)
def test_names_that_lead_out(name, out):
    assert leads_out(name) is out
