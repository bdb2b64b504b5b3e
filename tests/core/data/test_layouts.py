"""Every layout of docs/data.md is read, by its content, with the right values."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from projects.clip_vg_core.data.readers import LAYOUTS, read_annotations
from projects.clip_vg_core.data.readers.documents import open_document

from ...helpers import ROOT
from ...helpers.layout_files import (
    FIRST,
    HEIGHT,
    LABELS,
    QUESTION,
    WIDTH,
    WRITERS,
    conversation,
    fenced,
    messages,
    to_json,
    to_lines,
    to_parquet,
    to_torch,
)


def write(name, folder):
    """A fixture; parquet needs pyarrow, an optional package."""
    if 'parquet' in name:
        pytest.importorskip('pyarrow')
    return WRITERS[name](folder)


def check(table, labels):
    """Images, targets and expressions of a table of any number of targets."""
    assert [(label['image'], label['text']) for label in table] == [
        (image, text) for image, _, text in labels
    ]
    for label, (_, boxes, _) in zip(table, labels, strict=True):
        expected = np.reshape(boxes, (-1, 4))
        np.testing.assert_allclose(
            np.reshape(label['bboxes'], (-1, 4)), expected, atol=1e-3
        )
    assert len(set(table.sample_ids)) == len(labels)


@pytest.mark.parametrize('name', WRITERS)
def test_a_layout_is_read(tmp_path, name):
    files, labels = write(name, tmp_path)
    check(read_annotations(**files, targets='any'), labels)


@pytest.mark.parametrize('name', WRITERS)
def test_labels_with_one_target_are_a_table_as_before(tmp_path, name):
    files, labels = write(name, tmp_path)
    table = read_annotations(**files)
    single = [label for label in labels if len(label[1]) == 1]
    assert table.offsets is None and table.boxes.shape == (len(single), 4)
    assert list(table.texts) == [text for _, _, text in single]
    left_out = len(labels) - len(single)
    assert sum(int(note.split(' ')[0]) for note in table.notes) == left_out


@pytest.mark.parametrize('name', WRITERS)
def test_a_layout_is_recognised_without_its_name(tmp_path, name):
    """Names of files decide nothing but a split, and xyxy of lists."""
    if 'transvg' in name or 'oneref' in name or 'dior' in name:
        pytest.skip('its box format or its folder is what the name says')
    files, labels = write(name, tmp_path)
    path = files['ann_file']
    renamed = path.with_name(f'renamed{path.suffix}')
    shutil.move(path, renamed)
    check(read_annotations(**dict(files, ann_file=renamed), targets='any'), labels)


def test_the_documentation_names_every_layout():
    text = (ROOT / 'docs' / 'data.md').read_text()
    for name, layout in LAYOUTS.items():
        if not layout.refusal:
            assert f'| `{name}` | {layout.title} | {layout.since} |' in text
            assert layout.pitfalls in text


# --- what is refused, and what the sentence says -----------------------------------


@pytest.mark.parametrize(
    ('name', 'content', 'words'),
    [
        (
            'o365.jsonl',
            dict(filename='a.jpg', detection=dict(instances=[])),
            ['detection', 'grounding'],
        ),
        (
            'coco.json',
            dict(images=[dict(id=1, file_name='a')], annotations=[], categories=[]),
            ['caption', 'split_file', 'generate_pseudo_labels'],
        ),
        ('open.json', [dict(image='a', relation_type='x', proposal=[])], ['OpenRef']),
        (
            'tao.jsonl',
            dict(image='a', caption='x', expressions=[]),
            ['expressions', 'fields'],
        ),
        ('any.json', [dict(foo=1)], ['foo', 'nearest', 'fields']),
        ('any.json', 3, ['int']),
        ('refs.json', [dict(sentences=[], ann_id=1, split='val')], ['instances.json']),
    ],
)
def test_a_layout_that_is_not_read_is_named_with_the_nearest(
    tmp_path, name, content, words
):
    path = tmp_path / name
    path.write_text(json.dumps(content) + '\n')
    with pytest.raises(ValueError) as caught:
        read_annotations(path)
    for word in (str(path), *words):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ('name', 'content', 'words'),
    [
        ('deep.json', '[' * 100_000, ['deep']),
        ('deep.jsonl', '{"a":' * 100_000, ['line 1', 'deep']),
        ('dtd.xml', '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', ['DOCTYPE']),
        ('open.xml', '<a><b></a>', ['XML']),
        ('long.jsonl', '{"a": ' + '9' * 5000 + '}', ['line 1']),
        ('short.csv', 'image,text,x1,y1,x2,y2\na,b,1\n', ['row 2', '3 cells']),
        ('two.csv', 'image,image,text\na,b,c\n', ['image']),
        ('empty.json', '', ['JSON']),
        ('empty', '', ['nothing']),
    ],
)
def test_hostile_and_broken_files_are_one_sentence(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ValueError) as caught:
        read_annotations(path)
    for word in (str(path), *words):
        assert word in str(caught.value)
    assert len(str(caught.value)) < 1500


def test_a_question_without_a_known_form_is_refused_until_it_is_said(tmp_path):
    rows = [
        dict(problem='Locate the man on the left.', solution=[1, 2, 9, 9], image='a')
    ]
    path = to_json(tmp_path / 'a.json', rows)['ann_file']
    with pytest.raises(
        ValueError, match=r'a\.json, entry 0.*Locate the man.*instruction'
    ):
        read_annotations(path)
    table = read_annotations(path, instruction='Locate {expression}.')
    assert list(table.texts) == ['the man on the left']
    with pytest.raises(ValueError, match='entry 0.*Find'):
        read_annotations(path, instruction='Find {expression}.')


@pytest.mark.parametrize(
    ('question', 'expression'),
    [
        (f"<image>\n{QUESTION}the boy's hat.", "the boy's hat"),
        ('Give the box of the phrase: red cup', 'red cup'),
        ('<image> Please find "the red cup" for me', 'the red cup'),
    ],
)
def test_the_expression_is_taken_out_of_a_question(tmp_path, question, expression):
    rows = [conversation(question, '[1, 2, 30, 40]', image='a.jpg')]
    table = read_annotations(**to_json(tmp_path / 'a.json', rows))
    assert list(table.texts) == [expression]
    assert table.boxes.tolist() == [[1, 2, 30, 40]]


def test_an_apostrophe_is_no_quote(tmp_path):
    """Between two apostrophes is no expression."""
    rows = [
        conversation(
            "Where is the man's hat and the dog's ball?", '[1, 2, 3, 4]', image='a'
        )
    ]
    with pytest.raises(ValueError, match=r'entry 0.*instruction'):
        read_annotations(**to_json(tmp_path / 'a.json', rows))


def chat_of_qwen(folder, boxes):
    rows = [
        messages(
            '<image>x', fenced(b, f't{i}'), images=['a'], height=HEIGHT, width=WIDTH
        )
        for i, b in enumerate(boxes)
    ]
    return to_json(folder / 'a.json', rows)


def test_qwen_boxes_whose_unit_the_numbers_do_not_tell_must_be_said(tmp_path):
    files = chat_of_qwen(tmp_path, [[10, 10, 100, 100]])
    with pytest.raises(ValueError, match=r"a\.json, entry 0.*'resized'.*'1000'"):
        read_annotations(**files)
    # smart_resize of 640 x 480 to multiples of 28: 644 x 476.
    for unit, x, y in (('resized', 640 / 644, 480 / 476), ('1000', 0.64, 0.48)):
        table = read_annotations(**files, box_unit=unit)
        np.testing.assert_allclose(
            table.boxes, [[10 * x, 10 * y, 100 * x, 100 * y]], rtol=1e-6
        )
    # Beyond a resized image of 644 x 476, and beyond 1000.
    assert len(read_annotations(**chat_of_qwen(tmp_path, [[10, 10, 100, 900]]))) == 1


def test_limits_of_a_resized_image_are_an_option(tmp_path):
    files = chat_of_qwen(tmp_path, [[0, 0, 112, 84]])
    unit = dict(type='resized', max_pixels=112 * 84)
    assert read_annotations(**files, box_unit=unit).boxes.tolist() == [[0, 0, 640, 480]]
    with pytest.raises(ValueError, match='max_pixels'):
        read_annotations(**files, box_unit=dict(type='resized', max_pixels=0))


def test_a_box_unit_needs_the_size_of_the_image(tmp_path):
    rows = [dict(image='a.jpg', text='x', bbox_xyxy=[0.1, 0.1, 0.5, 0.5])]
    files = to_lines(tmp_path / 'a.jsonl', rows)
    with pytest.raises(ValueError, match=r"a\.jsonl, line 1.*box_unit='1'"):
        read_annotations(**files)
    with pytest.raises(
        ValueError, match=r"a\.jsonl, line 1.*'a\.jpg'.*size|size.*'a\.jpg'"
    ):
        read_annotations(**files, box_unit='1')
    requested = []

    def read_sizes(names):
        requested.extend(names)
        return np.array([[100, 200]])

    table = read_annotations(**files, box_unit='1', read_sizes=read_sizes)
    np.testing.assert_allclose(table.boxes, [[20, 10, 100, 50]], rtol=1e-6)
    assert requested == ['a.jpg'] and table.sizes.tolist() == [[100, 200]]


@pytest.mark.parametrize('sized', [True, False])
def test_the_numbers_tell_xywh_from_xyxy_or_it_must_be_said(tmp_path, sized):
    size = dict(height=HEIGHT, width=WIDTH) if sized else {}

    def read(boxes, **options):
        rows = [
            dict(image='a', text=f't{i}', bbox=b, **size) for i, b in enumerate(boxes)
        ]
        return read_annotations(**to_lines(tmp_path / 'a.jsonl', rows), **options).boxes

    # Its right side is left of its left one as xyxy.
    assert read([[300, 200, 50, 60]]).tolist() == [[300, 200, 350, 260]]
    if sized:  # as xywh, it ends at 700 of 640
        assert read([[300, 200, 400, 230]]).tolist() == [[300, 200, 400, 230]]
    with pytest.raises(ValueError, match=r"line 1.*'xyxy'.*'xywh'"):
        read([[10, 10, 40, 40]])
    assert read([[10, 10, 40, 40]], box_format='xywh').tolist() == [[10, 10, 50, 50]]
    with pytest.raises(ValueError, match='none of the known'):
        read([[300, 200, -5, -5]])
    if not sized:  # so many boxes with w > x and h > y are xyxy
        assert read([[10, 10, 40, 40]] * 20)[0].tolist() == [10, 10, 40, 40]


def test_lists_whose_numbers_contradict_their_name_are_refused(tmp_path):
    rows = [('a', '', [300, 200, 50, 60 + i], f't{i}', []) for i in range(3)]
    files = to_torch(tmp_path / '1_referit_train.pth', rows)
    with pytest.raises(ValueError, match=r'1_referit_train\.pth.*3 of 3.*box_format'):
        read_annotations(**files)
    assert read_annotations(**files, box_format='xywh').boxes[0].tolist() == [
        *(300, 200, 350, 260)
    ]


def test_a_mixed_list_named_as_xyxy_is_refused(tmp_path):
    rows = [('a', 'referit', [0, 0, 9, 9], 'x', [])]
    files = to_torch(tmp_path / 'referit_train.pth', rows)
    with pytest.raises(ValueError, match=r'entry 0.*box_format'):
        read_annotations(**files)


def test_images_of_several_data_sets_have_a_folder_each(tmp_path):
    """Numbers of ReferIt's and Flickr30k's images coincide."""
    rows = [
        ('1.jpg', 'referit', [0, 0, 9, 9], 'x', []),
        ('1.jpg', 'flickr', [0, 0, 9, 9], 'y', []),
        (FIRST[0], dict(height=9, width=9), [0, 0, 9, 9], 'z', []),
    ]
    files = to_torch(tmp_path / 'mixup_train.pth', rows)
    folders = dict(referit='referit/images', flickr='f30k/', coco='train2014')
    table = read_annotations(**files, image_folders=folders)
    assert [label['image'] for label in table] == [
        *('referit/images/1.jpg', 'f30k/1.jpg', f'train2014/{FIRST[0]}')
    ]
    with pytest.raises(ValueError, match=r"entry 2.*'coco'.*human"):
        read_annotations(**files, image_folders=dict(referit='a', flickr='b'))


def test_training_on_a_set_without_a_training_split_is_refused(tmp_path):
    files, _ = WRITERS['ref_l4_lines'](tmp_path)
    with pytest.raises(ValueError, match=r'no training split.*val'):
        read_annotations(**files, training=True)
    assert len(read_annotations(**files, training=True, splits=['val'])) == len(LABELS)


def test_rows_take_names_of_columns(tmp_path):
    rows = [dict(a='x.jpg', caption='one', text='two', box=[1, 2, 30, 40])]
    files = to_json(tmp_path / 'a.json', rows)
    with pytest.raises(ValueError, match=r'a\.json'):
        read_annotations(**files)
    options = dict(box_format='xyxy')
    with pytest.raises(ValueError, match=r"several columns.*'text', 'caption'"):
        read_annotations(**files, fields=dict(image='a'), **options)
    table = read_annotations(**files, fields=dict(image='a', text='text'), **options)
    assert list(table.texts) == ['two']
    with pytest.raises(ValueError, match="'colour'|colour"):
        read_annotations(**files, fields=dict(colour='a'), **options)
    with pytest.raises(ValueError, match=r"entry 0: no 'b'"):
        read_annotations(**files, fields=dict(image='b', text='text'), **options)


def test_four_columns_are_a_box(tmp_path):
    path = tmp_path / 'a.csv'
    path.write_text('image,text,l,t,r,b\na.jpg,x,1,2,30,wide\n')
    fields = dict(box=('l', 't', 'r', 'b'))
    with pytest.raises(ValueError, match=r"a\.csv, row 2.*4 numbers.*'wide'"):
        read_annotations(path, fields=fields, box_format='xyxy')
    path.write_text(path.read_text().replace('wide', '40'))
    table = read_annotations(path, fields=fields, box_format='xyxy')
    assert table.boxes.tolist() == [[1, 2, 30, 40]]


@pytest.mark.parametrize(
    'text',
    [
        'Image File;Text;X;Y;W;H\na.jpg;man;1;2;30;40\n',
        'photo,phrase,bbox_xywh\na.jpg,man,"[1, 2, 30, 40]"\n',
        'photo,phrase,bbox_xywh\na.jpg,man,"(1.0, 2.0, 30.0, 40.0)"\n',
        json.dumps([dict(image='a.jpg', text='man', box=dict(x=1, y=2, w=30, h=40))]),
        json.dumps([dict(image='a.jpg', text='man', box=[dict(x=1, y=2, w=30, h=40)])]),
    ],
)
def test_rows_as_people_invent_them(tmp_path, text):
    path = tmp_path / 'labels'
    path.write_text(text)
    table = read_annotations(path)
    assert table.boxes.tolist() == [[1, 2, 31, 42]]
    assert [label['text'] for label in table] == ['man']


def test_several_boxes_or_none_in_a_cell(tmp_path):
    path = tmp_path / 'a.csv'
    two = '"[[1, 2, 30, 40], [5, 6, 70, 80]]"'
    path.write_text(f'image,text,bbox_xyxy\na.jpg,men,{two}\na.jpg,dog,[]\n')
    table = read_annotations(path, targets='any')
    assert table.target_counts().tolist() == [2, 0]


@pytest.mark.parametrize('cell', ['[[', '[' * 100_000, '[[1, 2, 3]]'])
def test_a_broken_cell_is_no_empty_list(tmp_path, cell):
    path = tmp_path / 'a.csv'
    path.write_text(
        f'image,text,bbox_xyxy\na.jpg,man,"1 2 30 40"\nb.jpg,dog,"{cell}"\n'
    )
    with pytest.raises(ValueError, match=r'a\.csv, row 3: a box must be 4 numbers'):
        read_annotations(path, targets='any')


def test_rows_that_are_alike_are_boxes_of_one_label(tmp_path):
    path = tmp_path / 'a.csv'
    rows = ['a.jpg,men,1,2,3,4', 'a.jpg,dog,5,6,7,8', 'b.jpg,men,1,2,3,4']
    rows += ['a.jpg,men,9,9,8,8', 'a.jpg,men,1,2,3,4', 'b.jpg,cat,,,,']
    path.write_text('\n'.join(['image,text,x,y,w,h', *rows]))
    assert len(read_annotations(path, targets='any')) == len(rows)
    fields = dict(label=['image', 'text'])
    table = read_annotations(path, fields=fields, targets='any')
    assert [label['text'] for label in table] == ['men', 'dog', 'men', 'cat']
    assert table.target_counts().tolist() == [2, 1, 1, 0]
    with pytest.raises(ValueError, match=r"a\.csv, row 3.*'a\.jpg'"):
        read_annotations(path, fields=dict(label='image'))


@pytest.mark.parametrize(
    ('name', 'text', 'words'),
    [
        ('a.csv', 'foto,text,x,y,w,h\na.jpg,man,1,2,3,4\n', ['image=foto']),
        ('a.csv', 'a.jpg,man,1,2,3,4\n' * 2, ['first line']),
        ('a.json', '[{"image": "a.jpg", "things": [{"text": "man"}]}]', ["'things'"]),
    ],
)
def test_unknown_rows_are_told_what_they_lack(tmp_path, name, text, words):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match='') as error:
        read_annotations(path)
    assert all(word in str(error.value) for word in words)


def test_parquet_without_pyarrow_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / 'a.parquet').write_bytes(b'PAR1')
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    with pytest.raises(ImportError, match=r'a\.parquet.*pip install pyarrow'):
        read_annotations(tmp_path / 'a.parquet')


def test_broken_parquet_is_one_sentence(tmp_path):
    pytest.importorskip('pyarrow')
    path = write('plain_parquet', tmp_path).files['ann_file']
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r'mine\.parquet .*bytes.*parquet'):
        read_annotations(path)


def test_images_inside_parquet_are_extracted_once(tmp_path):
    """Under the names of their labels: lmms-lab's file names are those of refs."""
    pytest.importorskip('pyarrow')
    from projects.clip_vg_core.data.readers import extract_images

    for name in ('refcoco_m_parquet', 'lmms_lab_parquet'):
        path = write(name, tmp_path).files['ann_file']
        folder = tmp_path / name
        assert [extract_images(path, folder) for _ in 'ab'] == [2, 0]
        images = {label['image'] for label in read_annotations(path, box_format='xyxy')}
        assert {file.name for file in folder.iterdir()} == images
        assert (folder / FIRST[0]).read_bytes() == b'not read'
    plain = write('plain_parquet', tmp_path).files['ann_file']
    with pytest.raises(ValueError, match=r"no images.*'text'"):
        extract_images(plain, tmp_path)
    image = dict(bytes=b'x', path='../x')
    to_parquet(
        tmp_path / 'out.parquet', [dict(image=image, text='x', bbox=[1, 2, 3, 4])]
    )
    with pytest.raises(ValueError, match=r"row 0.*'\.\./x'"):
        extract_images(tmp_path / 'out.parquet', tmp_path)


def test_nothing_of_a_file_of_labels_is_run(tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / 'made'), 'w'))

    torch.save([('a', Attack(), [0, 0, 1, 1], 'x', [])], tmp_path / 'unc_val.pth')
    with pytest.raises(ValueError, match=r'unc_val\.pth'):
        open_document(tmp_path / 'unc_val.pth')
    assert not (tmp_path / 'made').exists()


@pytest.mark.realdata
def test_three_layouts_of_real_data_are_one_table(realdata, tmp_path):
    """REFER, and its labels written as a TransVG list and as MDETR json."""
    files = (realdata / 'refcoco/instances.json', realdata / 'refcoco/refs(unc).p')
    refer = read_annotations(*files)
    instances = json.loads(files[0].read_text())
    raw = {a['id']: a['bbox'] for a in instances['annotations']}
    refs = open_document(files[1]).value
    boxes = [raw[ref['ann_id']] for ref in refs for _ in ref['sentences']]
    rows = list(zip(refer, boxes, strict=True))
    to_torch(
        tmp_path / 'unc_all.pth', [(r['image'], '', b, r['text'], []) for r, b in rows]
    )
    content = dict(
        images=[
            dict(id=i, file_name=r['image'], caption=r['text'])
            for i, (r, _) in enumerate(rows)
        ],
        annotations=[
            dict(id=i, image_id=i, bbox=b, category_id=1)
            for i, (_, b) in enumerate(rows)
        ],
    )
    to_json(tmp_path / 'unc_all.json', content)
    for name in ('unc_all.pth', 'unc_all.json'):
        table = read_annotations(tmp_path / name)
        assert np.array_equal(table.boxes, refer.boxes)
        assert list(table.texts) == list(refer.texts)
        assert np.array_equal(table.image_index, refer.image_index)
        assert list(table.images) == list(refer.images)


def test_changed_files_give_a_table_or_an_error_that_names_them():
    """A thousand inputs of the fuzzer; `make fuzz` runs a hundred thousand."""
    done = subprocess.run(
        [sys.executable, 'tests/fuzz_readers.py', '--inputs', '1000'],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), *sys.path])),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '1,000 inputs, no violation' in done.stdout
    # Most changes are refused; some leave a file that can be read.
    assert ' read ' in done.stdout and ' refused ' in done.stdout


def test_a_row_that_is_no_row_is_an_error_with_the_file(tmp_path):
    """After rows by which the layout is told, as in a file that was edited by hand."""
    count = 0
    for name, write_files in WRITERS.items():
        if 'parquet' in name:
            continue
        (tmp_path / name).mkdir()
        files, _ = write_files(tmp_path / name)
        path = files['ann_file']
        if path.suffix not in ('.json', '.jsonl'):
            continue
        text = path.read_text()
        if path.suffix == '.jsonl' or not text.startswith(('[', '{"')):
            path.write_text(text * 3 + 'true\n')
        elif text.startswith('['):
            path.write_text(json.dumps([*json.loads(text) * 3, True]))
        else:
            continue
        with pytest.raises(ValueError, match=path.name):
            read_annotations(**files, targets='any')
        count += 1
    assert count >= 20  # of 51 fixtures
