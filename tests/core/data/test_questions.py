"""Files of questions: what is read, and errors that name file and line."""

import json

import pytest
from PIL import Image

from projects.clip_vg_core.data.questions import read_questions

ROWS = [('a.jpg', 'red, left'), ('b.jpg', 'größer "x"'), ('a.jpg', 'two\u2028lines')]
EXPECTED = {'a.jpg': ['red, left', 'two\u2028lines'], 'b.jpg': ['größer "x"']}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'images').mkdir()
    for name in ('a.jpg', 'b.jpg'):
        Image.new('RGB', (4, 4)).save(tmp_path / 'images' / name)
    return tmp_path / 'images'


def as_csv(rows, head='image,expression', end='\r\n'):
    quoted = [','.join('"' + v.replace('"', '""') + '"' for v in row) for row in rows]
    return end.join([head, *quoted, ''])


def as_lines(rows):
    lines = [
        json.dumps(dict(image=i, expression=e), ensure_ascii=False) for i, e in rows
    ]
    return '\n'.join([*lines, ''])


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig'])
@pytest.mark.parametrize('write', [as_csv, as_lines])
def test_csv_and_json_lines_in_utf_8(tmp_path, folder, write, encoding):
    path = tmp_path / ('q.csv' if write is as_csv else 'q.jsonl')
    path.write_bytes(write(ROWS).encode(encoding))
    assert read_questions(path, folder) == EXPECTED


def test_columns_have_any_order_and_more(tmp_path, folder):
    path = tmp_path / 'q.CSV'
    path.write_text('id,expression, image\n\n1,"a\nb",a.jpg\n2,c,b.jpg\n')
    assert read_questions(path, folder) == {'a.jpg': ['a\nb'], 'b.jpg': ['c']}


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('q.csv', 'image,expression\na.jpg,red, left\n', r'line 2: 3 fields.*quotes'),
        ('q.csv', 'image,expression\n\na.jpg\n', r'line 3: 1 fields'),
        ('q.csv', 'image,expression\na.jpg,"x\ny"\na.jpg\n', r'line 4: 1 fields'),
        ('q.csv', 'picture,text\na.jpg,x\n', r"line 1: .*'picture', 'text'"),
        ('q.csv', 'image;expression\na.jpg;x\n', r"line 1: .*'image;expression'"),
        ('q.csv', 'image,expression\na.jpg,"x\n', r'line 2: unexpected end'),
        ('q.csv', 'image,expression\na.jpg, \n', r'line 2: found .*expression'),
        ('q.csv', 'image,expression\nc.jpg,x\n', r'line 2: .*c\.jpg: no such'),
        ('q.csv', 'image,expression\n', r'no questions'),
        ('q.csv', 'image,expression\na.jpg,x\n'.encode('utf-16'), r'line 1: .*UTF-16'),
        ('q.csv', 'image,expression\na.jpg,x\n'.encode('utf-16-le'), r'zero bytes'),
        (
            'q.csv',
            'image,expression\na.jpg,grün\n'.encode('cp1252'),
            r'line 2: .*UTF-8',
        ),
        (
            'q.jsonl',
            '{"image": "a.jpg", "expression": "x"}\n\n[1]\n',
            r'line 3: .*list',
        ),
        ('q.jsonl', '[{"image": "a.jpg"}]', r'line 1: found list'),
        ('q.json', '{\n"image": "a.jpg"}', r'line 1 is not a JSON object'),
        ('q.tsv', 'image\texpression\n', r'line 1 is not a JSON object'),
        ('q.jsonl', '{"image": "a.jpg", "expression": 5}', r'line 1: found'),
    ],
)
def test_errors_name_file_and_line(tmp_path, folder, name, content, message):
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf'{name}.*{message}'):
        read_questions(tmp_path / name, folder)
