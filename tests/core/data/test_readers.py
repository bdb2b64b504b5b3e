"""Readers: every format gives the same labels, and errors say where."""

import collections
import json
import pickle

import numpy as np
import pytest
import torch

from projects.clip_vg_core.data.label_table import PackedStrings, concatenate
from projects.clip_vg_core.data.readers import read_annotations, write_odvg

# What every format below holds: image, xyxy box, expression.
LABELS = [
    ('a.jpg', [10.0, 20.0, 40.5, 60.25], 'left man'),
    ('a.jpg', [50.0, 20.0, 90.0, 60.0], 'Mann rechts, größer'),
    ('b.jpg', [0.0, 0.0, 30.0, 30.0], ''),
]
ATTRIBUTES = [('r1', ['man'])]


def xywh(box):
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def write_refer(folder, change=None):
    instances = dict(
        images=[
            dict(id=i, file_name=name, height=100, width=120)
            for i, name in enumerate(('a.jpg', 'b.jpg'))
        ],
        annotations=[
            dict(id=7 + i, bbox=xywh(box)) for i, (_, box, _) in enumerate(LABELS)
        ],
    )
    refs = [
        dict(
            ref_id=i,
            ann_id=7 + i,
            image_id=0 if image == 'a.jpg' else 1,
            split='train' if i < 2 else 'val',
            file_name=f'{image[0]}_{i}.jpg',
            sentences=[dict(sent_id=i, sent=text, raw=text, tokens=text.split())],
        )
        for i, (image, _, text) in enumerate(LABELS)
    ]
    if change:
        change(instances, refs)
    (folder / 'instances.json').write_text(json.dumps(instances))
    (folder / 'refs(unc).p').write_bytes(pickle.dumps(refs, protocol=2))
    return dict(ann_file=folder / 'instances.json', split_file=folder / 'refs(unc).p')


def write_unc(folder):
    entries = [(im, '1.pth', xywh(box), text, ATTRIBUTES) for im, box, text in LABELS]
    torch.save(entries, folder / 'unc_val.pth')
    return dict(ann_file=folder / 'unc_val.pth')


def write_pseudo(folder):
    name = 'useless placeholder'
    entries = [[im, name, xywh(box), text, name] for im, box, text in LABELS]
    torch.save(entries, folder / 'unc+_train_pseudo.pth')
    return dict(ann_file=folder / 'unc+_train_pseudo.pth')


def write_iou_result(folder):
    entries = [
        [im, 'useless placeholder', xywh(box), text, torch.ones(4), torch.ones(4), 0.45]
        for im, box, text in LABELS
    ]
    torch.save(entries, folder / 'unc_iou_result.pth')
    return dict(ann_file=folder / 'unc_iou_result.pth')


def write_referit(folder):
    entries = [(im, '1.pth', box, text, ATTRIBUTES) for im, box, text in LABELS]
    torch.save(entries, folder / 'referit_test.pth')
    return dict(ann_file=folder / 'referit_test.pth')


def write_flickr(folder):
    torch.save([(im, box, text) for im, box, text in LABELS], folder / 'flickr_val.pth')
    return dict(ann_file=folder / 'flickr_val.pth')


def write_mdetr(folder):
    content = dict(
        images=[
            dict(id=i, file_name=im, caption=text, height=100, width=120)
            for i, (im, _, text) in enumerate(LABELS)
        ],
        annotations=[
            dict(id=i, image_id=i, bbox=xywh(box), tokens_positive=[[0, 1]])
            for i, (_, box, _) in enumerate(LABELS)
        ],
    )
    path = folder / 'finetune_refcoco_val.json'
    path.write_text(json.dumps(content))
    return dict(ann_file=path)


def write_lines(folder):
    path = folder / 'labels.jsonl'
    with path.open('w') as file:
        for image, box, text in LABELS:
            region = dict(bbox=box, phrase=text, tokens_positive=[[0, len(text)]])
            grounding = dict(caption=text, regions=[region])
            line = dict(filename=image, height=100, width=120, grounding=grounding)
            file.write(json.dumps(line) + '\n')
    return dict(ann_file=path)


def write_vlm(folder):
    path = folder / 'refcocos_val.json'
    entries = [
        dict(image=im, height=100, width=120, normal_caption=text, solution=box)
        for im, box, text in LABELS
    ]
    path.write_text(json.dumps(entries))
    return dict(ann_file=path)


WRITERS = [
    write_refer,
    write_unc,
    write_pseudo,
    write_iou_result,
    write_referit,
    write_flickr,
    write_mdetr,
    write_lines,
    write_vlm,
]


@pytest.mark.parametrize('write', WRITERS)
def test_every_format_gives_the_same_labels(tmp_path, write):
    table = read_annotations(**write(tmp_path))
    assert [label['image'] for label in table] == [image for image, _, _ in LABELS]
    assert list(table.texts) == [text for _, _, text in LABELS]
    np.testing.assert_allclose(table.boxes, [box for _, box, _ in LABELS], atol=1e-5)
    assert len(set(table.sample_ids)) == len(LABELS)


@pytest.mark.parametrize('write', WRITERS)
def test_names_do_not_change_between_readings(tmp_path, write):
    files = write(tmp_path)
    first, second = (list(read_annotations(**files).sample_ids) for _ in range(2))
    assert first == second


def test_splits(tmp_path):
    files = write_refer(tmp_path)
    assert len(read_annotations(**files, splits=['train'])) == 2
    assert len(read_annotations(**files, splits=['train', 'val'])) == 3
    assert read_annotations(**write_unc(tmp_path))[0]['split'] == 'val'


def test_pseudo_labels_say_so(tmp_path):
    assert read_annotations(**write_pseudo(tmp_path))[0]['source'] == 'pseudo'
    assert read_annotations(**write_unc(tmp_path))[0]['source'] == 'human'
    assert read_annotations(**write_unc(tmp_path), source='mine')[0]['source'] == 'mine'


def test_int_boxes_lose_the_fraction_in_the_format_of_the_file(tmp_path):
    """As in the official code: x, y, w, h of RefCOCO, but x1, y1, x2, y2 of ReferIt."""
    box = [10.6, 20.6, 20.5, 30.5]  # w = h = 9.9
    torch.save([('a', '', xywh(box), 't', [])], tmp_path / 'unc_val.pth')
    torch.save([('a', '', box, 't', [])], tmp_path / 'referit_val.pth')
    unc = read_annotations(tmp_path / 'unc_val.pth', int_boxes=True)
    referit = read_annotations(tmp_path / 'referit_val.pth', int_boxes=True)
    assert unc.boxes.tolist() == [[10, 20, 19, 29]]
    assert referit.boxes.tolist() == [[10, 20, 20, 30]]


@pytest.mark.parametrize(
    ('name', 'fields', 'expected'),
    [
        ('1_flickr_train_pseudo_template_0_5.pth', 3, 'xyxy'),
        ('1_referit_train_pseudo_template_0_5.pth', 5, 'xyxy'),
        ('2_referit_train_pseudo.pth', 7, 'xyxy'),
        ('flickr30k_train.pth', 5, 'xyxy'),
        ('my_list.pth', 3, 'xyxy'),
        ('my_list.pth', 5, 'xywh'),
        ('1_unc+_train_pseudo_template_0_5.pth', 5, 'xywh'),
        ('gref_umd_val.pth', 5, 'xywh'),
        ('dior_rsvg_train.pth', 5, 'xywh'),
    ],
)
def test_the_box_format_of_a_list(tmp_path, name, fields, expected):
    """By the data set's name anywhere in the file's, and by the fields of a row."""
    box = [100, 50, 300, 200]
    row = {
        3: ('a.jpg', box, 't'),
        5: ('a.jpg', 'm', box, 't', []),
        7: ['a.jpg', 'm', box, 't', torch.ones(4), torch.ones(4), 0.5],
    }[fields]
    torch.save([row], tmp_path / name)
    corners = dict(xyxy=box, xywh=[100, 50, 400, 250])
    assert read_annotations(tmp_path / name).boxes.tolist() == [corners[expected]]
    for kind, boxes in corners.items():
        table = read_annotations(tmp_path / name, box_format=kind)
        assert table.boxes.tolist() == [boxes]


@pytest.mark.parametrize(
    ('name', 'rows'),
    [
        ('unc_and_flickr_train.pth', [('a', '', [0, 0, 9, 9], 't', [])]),
        ('unc_train.pth', [('a', [0, 0, 9, 9], 't')]),
        ('x.pth', [('a', [0, 0, 9, 9], 't'), ('a', '', [0, 0, 9, 9], 't', [])]),
    ],
)
def test_a_box_format_that_is_not_sure_must_be_said(tmp_path, name, rows):
    torch.save(rows, tmp_path / name)
    with pytest.raises(ValueError, match=rf'{name}.*box_format'):
        read_annotations(tmp_path / name)
    assert len(read_annotations(tmp_path / name, box_format='xyxy')) == len(rows)


@pytest.mark.parametrize('write', WRITERS)
def test_every_format_takes_a_box_format(tmp_path, write):
    files = write(tmp_path)
    boxes = {
        kind: read_annotations(**files, box_format=kind, check_boxes=False).boxes
        for kind in ('xyxy', 'xywh')
    }
    # What is read as xywh has the corners of what is read as xyxy added.
    corners = boxes['xyxy'][:, :2]
    np.testing.assert_allclose(boxes['xywh'][:, :2], corners)
    expected = boxes['xyxy'][:, 2:] + corners
    np.testing.assert_allclose(boxes['xywh'][:, 2:], expected, atol=1e-4)
    with pytest.raises(ValueError, match=r"box_format='yxyx'.*'xywh', 'xyxy'"):
        read_annotations(**files, box_format='yxyx')


def write_boxes(path, boxes, height=480, width=640):
    """ODVG lines of one label each."""
    with path.open('w') as file:
        for box in boxes:
            region = dict(bbox=[float(v) for v in box], phrase='x')
            grounding = dict(caption='x', regions=[region])
            line = dict(filename='a.jpg', grounding=grounding)
            file.write(json.dumps(dict(line, height=height, width=width)) + '\n')
    return path


def random_boxes(count=200, height=480, width=640):
    """Boxes within the image, xyxy."""
    rng = np.random.default_rng(0)
    ends = rng.uniform(0, 1, (count, 2, 2))
    low, high = ends.min(1) * 0.8, ends.max(1)
    high = np.maximum(high, low + 0.05)
    return np.concatenate([low, high], 1) * [width, height, width, height]


def test_normalised_boxes_are_refused(tmp_path):
    boxes = random_boxes() / [640, 480, 640, 480]
    path = write_boxes(tmp_path / 'a.jsonl', boxes)
    for options in ({}, dict(int_boxes=True), dict(box_format='xywh')):
        with pytest.raises(ValueError, match=r'a\.jsonl, line 1.*200 labels.*\[0, 1\]'):
            read_annotations(path, **options)
    # One box of a pixel is no fraction.
    assert len(read_annotations(write_boxes(path, [[0, 0, 1, 1]]))) == 1


@pytest.mark.parametrize(
    ('change', 'read_as', 'looks_like'),
    [
        (lambda b: b, 'xywh', 'xyxy that were read as xywh'),
        (lambda b: b / [640, 480, 640, 480] * 1000, 'xyxy', 'thousandths'),
        (lambda b: b * 3, 'xyxy', 'images of another size'),
    ],
)
def test_boxes_that_pass_the_border_say_what_they_look_like(
    tmp_path, change, read_as, looks_like
):
    boxes = random_boxes()
    path = write_boxes(tmp_path / 'a.jsonl', change(boxes))
    with pytest.raises(ValueError, match=rf'a\.jsonl.*of 200 boxes.*{looks_like}'):
        read_annotations(path, box_format=read_as)
    table = read_annotations(path, box_format=read_as, check_boxes=False)
    assert len(table) == 200
    assert len(read_annotations(write_boxes(path, boxes))) == 200


def test_a_few_boxes_beyond_the_border_are_slips(tmp_path):
    boxes = random_boxes()
    boxes[:, 2:] += [20, 20]  # every second passes the border, by less than 10 %
    boxes[:2, 2] = 705  # 1 %
    assert len(read_annotations(write_boxes(tmp_path / 'a.jsonl', boxes))) == 200
    boxes[2, 2] = 705
    with pytest.raises(ValueError, match='3 of 200 boxes'):
        read_annotations(write_boxes(tmp_path / 'a.jsonl', boxes))


@pytest.mark.parametrize(
    ('name', 'split'),
    [
        ('unc_train_pseudo.pth', 'train'),
        ('1_unc+_train_pseudo_template_0_5.pth', 'train'),
        ('unc_testA.pth', 'testA'),
        ('gref_umd_test.pth', 'test'),
        ('referit_trainval.pth', 'trainval'),
        ('unc_iou_result.pth', 'all'),
        ('interval_evaluation.pth', 'all'),
    ],
)
def test_the_split_is_in_the_name_of_a_list(tmp_path, name, split):
    torch.save([('a', '', [0, 0, 9, 9], 't', [])], tmp_path / name)
    assert read_annotations(tmp_path / name, splits=[split])[0]['split'] == split
    with pytest.raises(ValueError, match=rf"no split 'other'.*'{split}'"):
        read_annotations(tmp_path / name, splits=['other'])


def test_an_empty_list_is_an_empty_table(tmp_path):
    torch.save([], tmp_path / 'unc_train_pseudo.pth')
    assert len(read_annotations(tmp_path / 'unc_train_pseudo.pth')) == 0


def test_odvg_round_trip(tmp_path):
    table = read_annotations(**write_refer(tmp_path))
    write_odvg(table, tmp_path / 'out.jsonl')
    again = read_annotations(tmp_path / 'out.jsonl')
    assert list(again) == list(table)
    with pytest.raises(FileExistsError):
        write_odvg(table, tmp_path / 'out.jsonl')


def test_mmdetection_reads_our_odvg(tmp_path):
    from mmdet.datasets import ODVGDataset

    write_odvg(read_annotations(**write_refer(tmp_path)), tmp_path / 'out.jsonl')
    theirs = ODVGDataset(
        ann_file=str(tmp_path / 'out.jsonl'),
        data_root=str(tmp_path),
        data_prefix=dict(img=''),
        return_classes=True,
    )
    assert len(theirs) == 3
    info = theirs.get_data_info(0)
    assert info['text'].startswith(LABELS[0][2])
    np.testing.assert_allclose(info['instances'][0]['bbox'], LABELS[0][1])


def test_several_regions_in_a_line_are_several_labels(tmp_path):
    regions = [
        dict(bbox=[0, 0, 5, 5], phrase='a cat', tokens_positive=[[0, 5]]),
        dict(bbox=[5, 5, 9, 9], phrase='a dog', tokens_positive=[[10, 15]]),
    ]
    line = dict(
        filename='a', grounding=dict(caption='a cat and a dog', regions=regions)
    )
    (tmp_path / 'theirs.jsonl').write_text(json.dumps(line) + '\n\n')
    table = read_annotations(tmp_path / 'theirs.jsonl')
    assert list(table.texts) == ['a cat', 'a dog']
    regions[1]['bbox'] = [5, 5, 9]
    (tmp_path / 'theirs.jsonl').write_text(json.dumps(line))
    with pytest.raises(ValueError, match=r'line 1, region 1: .*\[5, 5, 9\]'):
        read_annotations(tmp_path / 'theirs.jsonl')


BOX, OTHER = [1, 2, 10, 20], [5, 6, 30, 40]


def vlm_targets(folder):
    entries = [
        dict(image='a.jpg', normal_caption=text, solution=boxes)
        for text, boxes in (
            ('one', BOX),
            ('none', None),
            ('empty', []),
            ('one in a list', [BOX]),
            ('two', [BOX, OTHER]),
        )
    ]
    (folder / 'a.json').write_text(json.dumps(entries))
    return folder / 'a.json', 'entry'


def odvg_targets(folder):
    def region(boxes, phrase):
        return dict(bbox=boxes, phrase=phrase)

    groundings = [
        dict(caption='one', regions=[region(BOX, 'one')]),
        dict(caption='none', regions=[]),
        dict(caption='empty', regions=[region([], 'x')]),
        dict(
            caption='a caption',
            regions=[region([BOX], 'one in a list'), region([BOX, OTHER], 'two')],
        ),
    ]
    lines = [json.dumps(dict(filename='a.jpg', grounding=g)) for g in groundings]
    (folder / 'a.jsonl').write_text('\n'.join(lines))
    return folder / 'a.jsonl', 'line'


def transvg_targets(folder):
    rows = [
        ('a.jpg', '', box, text, [])
        for text, box in (
            ('one', BOX),
            ('none', None),
            ('empty', []),
            ('one in a list', [BOX]),
            ('two', [BOX, OTHER]),
        )
    ]
    torch.save(rows, folder / 'referit_val.pth')
    return folder / 'referit_val.pth', 'entry'


def mdetr_targets(folder):
    texts = ['one', 'none', 'empty', 'one in a list', 'two']
    images = [dict(id=i, file_name='a.jpg', caption=t) for i, t in enumerate(texts)]
    annotations = [dict(id=0, image_id=0, bbox=xywh(BOX), category_id=1)]
    annotations.append(
        dict(id=1, image_id=2, bbox=[0, 0, 0, 0], category_id=-1, empty=True)
    )
    annotations.append(dict(id=2, image_id=3, bbox=xywh(BOX), category_id=1))
    annotations += [dict(id=3 + i, image_id=4, bbox=xywh(BOX)) for i in range(2)]
    content = dict(images=images, annotations=annotations)
    (folder / 'a_val.json').write_text(json.dumps(content))
    return folder / 'a_val.json', 'image entry'


@pytest.mark.parametrize(
    'write', [vlm_targets, odvg_targets, transvg_targets, mdetr_targets]
)
def test_expressions_of_no_or_several_targets_are_left_out_and_counted(tmp_path, write):
    path, entry = write(tmp_path)
    table = read_annotations(path)
    assert list(table.texts) == ['one', 'one in a list']
    assert table.boxes.tolist() == [BOX, BOX]
    none, several = sorted(table.notes, key=lambda note: 'several' in note)
    assert '2 of 5' in none and f'{path}, {entry} 2' in none
    assert '1 of 5' in several and f'{path}, {entry} 4' in several


@pytest.mark.parametrize('suffix', ['p', 'json'])
def test_grefs_of_no_or_several_targets_are_left_out_and_counted(tmp_path, suffix):
    def refs_of_grefcoco(instances, refs):
        refs[0]['ann_id'] = [7]
        refs[1].update(ann_id=[-1], no_target=True)
        refs[2].update(ann_id=[8, 9])
        (tmp_path / 'grefs(unc).json').write_text(json.dumps(refs))

    files = write_refer(tmp_path, refs_of_grefcoco)
    if suffix == 'json':
        files['split_file'] = tmp_path / 'grefs(unc).json'
    table = read_annotations(**files)
    assert list(table.texts) == [LABELS[0][2]]
    np.testing.assert_allclose(table.boxes, [LABELS[0][1]], atol=1e-5)
    assert len(table.notes) == 2
    for ref, kind, note in zip((1, 2), ('no', 'several'), table.notes, strict=True):
        assert '1 of 3' in note and kind in note and f'ref {ref} (ref_id {ref})' in note


def test_notes_stay_with_a_part_and_a_sum(tmp_path):
    table = read_annotations(vlm_targets(tmp_path)[0])
    assert len(table.notes) == 2
    assert table.take(np.array([0])).notes == table.notes
    other = read_annotations(odvg_targets(tmp_path)[0])
    assert concatenate([table, other]).notes == table.notes + other.notes


def repeated(key, **change):
    """A change to REFER that repeats the first entry of a list, with other content."""

    def write(instances, refs):
        entries = refs if key == 'refs' else instances[key]
        entries.append(dict(entries[0], **change))

    return write


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (repeated('annotations', bbox=[1, 1, 2, 2]), r'annotations 3: id 7 .*bbox'),
        (
            repeated('images', file_name='c.jpg'),
            r"images 2: id 0 .*'a.jpg' and 'c.jpg'",
        ),
        (repeated('refs', ann_id=8), r'ref 3: ref_id 0 .*ann_id: 7 and 8'),
        (
            lambda i, r: r[0]['sentences'].append(dict(sent='x', sent_id=0)),
            r'ref 0 .*sentence 1: sent_id 0 .*sent',
        ),
    ],
)
def test_ids_of_refer_that_come_twice_are_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        read_annotations(**write_refer(tmp_path, change))


@pytest.mark.parametrize('key', ['annotations', 'images', 'refs'])
def test_what_refer_says_twice_alike_is_read_once(tmp_path, key):
    expected = list(read_annotations(**write_refer(tmp_path)))
    assert list(read_annotations(**write_refer(tmp_path, repeated(key)))) == expected


def test_ids_of_mdetr_that_come_twice_are_named(tmp_path):
    path = write_mdetr(tmp_path)['ann_file']
    content = json.loads(path.read_text())
    content['images'].append(dict(content['images'][0], caption='other'))
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"image entry 3: id 0 .*'other'"):
        read_annotations(path)


@pytest.mark.parametrize(
    ('content', 'where'),
    [
        ({'other': 1}, 'other'),
        ({'images': [], 'annotations': 1}, 'annotations'),
        ({'images': {}, 'annotations': []}, 'images'),
        ({'images': [], 'annotations': [7]}, 'annotation 0'),
        ({'images': [], 'annotations': [{'image_id': []}]}, 'annotation 0'),
        ({'images': [3], 'annotations': []}, 'image entry 0'),
        ({'images': [dict(id=1)], 'annotations': []}, 'caption'),
        (7, 'int'),
    ],
)
def test_json_of_an_unknown_layout_is_named(tmp_path, content, where):
    path = tmp_path / 'mine.json'
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf'mine\.json.*{where}'):
        read_annotations(path)


@pytest.mark.parametrize('write', [write_mdetr, write_lines, write_vlm, write_refer])
def test_a_byte_order_mark_is_no_part_of_the_content(tmp_path, write):
    files = write(tmp_path)
    expected = list(read_annotations(**files))
    path = files['ann_file']
    path.write_bytes(b'\xef\xbb\xbf' + path.read_bytes())
    assert list(read_annotations(**files)) == expected


def test_json_lines_are_called_that_where_one_value_is_expected(tmp_path):
    path = tmp_path / 'a.json'
    path.write_text('{"image": "a.jpg"}\n{"image": "b.jpg"}\n')
    with pytest.raises(ValueError, match=r'a\.json is JSON Lines'):
        read_annotations(path, ann_format='mdetr')
    with pytest.raises(ValueError, match=r"a\.json, line 1: no 'problem'"):
        read_annotations(path, ann_format='vlm')


def test_lines_that_are_not_utf_8_are_named(tmp_path):
    path = write_lines(tmp_path)['ann_file']
    path.write_bytes(path.read_bytes().replace(b'left man', 'grün'.encode('cp1252')))
    with pytest.raises(ValueError, match=r'labels\.jsonl, line 1 is not in UTF-8'):
        read_annotations(path)


def change_ref(key, value):
    def change(instances, refs):
        refs[1][key] = value

    return change


def drop_key(key):
    def change(instances, refs):
        del refs[1][key]

    return change


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            change_ref('ann_id', 99),
            r'ref 1 \(ref_id 1\): ann_id 99 is not in .*instances',
        ),
        (change_ref('image_id', 99), r'ref 1 .*image_id 99 is not in'),
        (
            change_ref('sentences', [dict(sent=5, sent_id=1)]),
            r'ref 1 \(ref_id 1\).*int 5',
        ),
        (change_ref('sentences', [dict(sent_id=1)]), r"ref 1 .*no 'sent'"),
        (drop_key('split'), r"ref 1: no 'split'"),
        (drop_key('ann_id'), r"ref 1 .*no 'ann_id'"),
        (lambda i, r: i.pop('images'), r"instances.json: no 'images'"),
        (lambda i, r: i['annotations'][0].pop('bbox'), r"annotation 7: no 'bbox'"),
        (
            lambda i, r: i['annotations'][1].update(bbox=[1, 2, 3]),
            r'ref 1 \(ref_id 1\): a box must be 4 numbers, found \[1, 2, 3\]',
        ),
        (
            lambda i, r: i['annotations'][1].update(bbox=[1, 2, 'wide', 3]),
            r'ref 1 \(ref_id 1\): a box must be 4 numbers',
        ),
        (lambda i, r: r.append('text'), r'ref 3: expected a dict, found str'),
    ],
)
def test_errors_of_refer_say_where(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        read_annotations(**write_refer(tmp_path, change))


def test_an_unknown_split_names_the_known(tmp_path):
    files = write_refer(tmp_path)
    with pytest.raises(ValueError, match=r"no split 'testA'.*\['train', 'val'\].*unc"):
        read_annotations(**files, splits=['testA'])
    with pytest.raises(ValueError, match=r"no split 'testA'.*'val'"):
        read_annotations(**write_unc(tmp_path), splits=['testA'])


def test_an_unknown_split_by_names_what_is_there(tmp_path):
    files = write_refer(tmp_path)
    files['split_file'] = tmp_path / 'refs(google).p'
    with pytest.raises(FileNotFoundError, match=r'refs\(google\)\.p.*refs\(unc\)\.p'):
        read_annotations(**files)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"grounding": ', r'line 1 is not valid JSON'),
        ('[1]', r'line 1: expected a JSON object, found list'),
        ('{"grounding": {"caption": "x", "regions": []}}', r"line 1: no 'filename'"),
        ('{"filename": "a", "grounding": {}}', r"line 1: no 'regions'"),
    ],
)
def test_errors_of_odvg_say_where(tmp_path, text, message):
    path = tmp_path / 'labels.jsonl'
    path.write_text(text + '\n')
    with pytest.raises(ValueError, match=rf'labels\.jsonl, {message}'):
        read_annotations(path)


@pytest.mark.parametrize('name', ['/data/a.jpg', '../a.jpg', 'C:\\a.jpg', 'a\0.jpg'])
def test_images_are_of_the_folder_of_images(tmp_path, name):
    path = tmp_path / 'a.jsonl'
    region = dict(bbox=[0, 0, 1, 1], phrase='x')
    line = dict(filename=name, grounding=dict(caption='x', regions=[region]))
    path.write_text(json.dumps(line))
    with pytest.raises(ValueError, match=r'a\.jsonl, line 1: .*leads out'):
        read_annotations(path)


@pytest.mark.parametrize('key', ['source', 'sample_id', 'split'])
def test_names_have_a_length(tmp_path, key):
    path = tmp_path / 'a.jsonl'
    region = dict(bbox=[0, 0, 1, 1], phrase='x')
    line = dict(filename='a.jpg', grounding=dict(caption='x', regions=[region]))
    path.write_text(json.dumps({**line, key: 'x' * 1000}))
    assert len(read_annotations(path)) == 1
    path.write_text(json.dumps({**line, key: 'x' * 1001}))
    with pytest.raises(ValueError, match=r'a\.jsonl, line 1: .*1000 characters'):
        read_annotations(path)


def test_a_sample_id_must_be_unique(tmp_path):
    region = dict(bbox=[0, 0, 1, 1], phrase='x', tokens_positive=[[0, 1]])
    grounding = dict(caption='x', regions=[region])
    line = json.dumps(dict(filename='a', grounding=grounding, sample_id='s'))
    (tmp_path / 'labels.jsonl').write_text(f'{line}\n{line}\n')
    with pytest.raises(ValueError, match=r"line 2: the sample_id 's' .*line 1"):
        read_annotations(tmp_path / 'labels.jsonl')


def test_truncated_json_is_named(tmp_path):
    files = write_refer(tmp_path)
    path = files['ann_file']
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(
        ValueError, match=r'instances\.json .*not valid JSON.*truncated'
    ):
        read_annotations(**files)


def test_instances_alone_are_refused_with_the_way_out(tmp_path):
    with pytest.raises(ValueError, match='split_file'):
        read_annotations(write_refer(tmp_path)['ann_file'])


@pytest.mark.parametrize('entry', [('a', 'b'), 'text', ('a', '', [0, 0, 1, 1], 5, [])])
def test_errors_of_lists_say_where(tmp_path, entry):
    torch.save(
        [(LABELS[0][0], '', [0, 0, 1, 1], 't', []), entry], tmp_path / 'unc_val.pth'
    )
    with pytest.raises(ValueError, match=r'unc_val\.pth, entry 1'):
        read_annotations(tmp_path / 'unc_val.pth')


def test_packed_strings_are_a_list_of_strings():
    strings = ['', 'abc', 'ü', '', '日本', 'z' * 300]
    packed = PackedStrings.pack(strings)
    assert list(packed) == strings
    order = np.array([4, 0, 5, 5, 1])
    assert list(packed.take(order)) == [strings[i] for i in order]
    assert list(packed.take(np.array([], np.int64))) == []


def test_concatenated_tables_share_images(tmp_path):
    (tmp_path / 'x').mkdir()
    refer = read_annotations(**write_refer(tmp_path / 'x'))
    lines = read_annotations(**write_lines(tmp_path), source='template')
    both = concatenate([refer, lines])
    assert list(both.images) == ['a.jpg', 'b.jpg']
    plain = [dict(label, img_id=None) for label in both]
    assert plain == [dict(label, img_id=None) for label in (*refer, *lines)]


@pytest.mark.realdata
@pytest.mark.parametrize(
    ('name', 'counts'),
    [  # Expressions per split, from the papers' repositories (README of the data).
        ('refcoco', dict(train=120624, val=10834, testA=5657, testB=5095)),
        ('refcoco+', dict(train=120191, val=10758, testA=5726, testB=4889)),
    ],
)
def test_the_real_data_sets_are_read_whole(realdata, name, counts):
    table = read_annotations(
        realdata / name / 'instances.json', realdata / name / 'refs(unc).p'
    )
    counted = collections.Counter(table.split_names[i] for i in table.splits.tolist())
    assert counted == counts
    assert len(set(table.sample_ids)) == len(table)
