"""What is said of annotation files: each number against a count by hand."""

import ast
import json
import random
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from projects.clip_vg_core.data.image_roots import ImageRoots
from projects.clip_vg_core.data.inspection import (
    find_leaks,
    find_parts,
    inspect_file,
    is_held_out,
)
from projects.clip_vg_core.data.inspection_text import format_inspection
from projects.clip_vg_core.data.label_checks import count_words
from projects.clip_vg_core.data.label_table import PackedStrings
from projects.clip_vg_core.data.published_sets import PUBLISHED, match_published
from projects.clip_vg_core.data.training_config import training_config

from ...helpers import ROOT
from ...helpers.layout_files import WRITERS

BOX = [10, 20, 110, 220]


def odvg(image='a.jpg', text='left man', boxes=(BOX,), split='train', size=(480, 640)):
    """A line with targets of one expression; a size of None is not said."""
    bbox = [list(box) for box in boxes]
    region = dict(phrase=text, bbox=bbox[0] if len(bbox) == 1 else bbox)
    line = dict(
        filename=image,
        grounding=dict(caption=text, regions=[region] if bbox else []),
        split=split,
    )
    if size:
        line.update(height=size[0], width=size[1])
    return line


def write_lines(path, lines):
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return path


def rows(boxes):
    return [dict(image=f'{i}.jpg', text=f't {i}', bbox=b) for i, b in enumerate(boxes)]


def inspect_lines(tmp_path, lines, **options):
    return inspect_file(write_lines(tmp_path / 'labels.jsonl', lines), **options)


def kinds(found):
    return {problem.kind: problem for problem in found.problems}


def save(path, size=(640, 480), orientation=None):
    path.parent.mkdir(exist_ok=True)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.new('RGB', size).save(path, exif=exif)


def test_splits_are_counted_by_targets(tmp_path):
    found = inspect_lines(
        tmp_path,
        [
            odvg(),
            odvg(text='right man'),
            odvg('b.jpg', 'both', [BOX, [0, 0, 5, 5]]),
            odvg('c.jpg', 'left man', [], split='val'),
        ],
    )
    assert found.layout == 'odvg'
    assert found.splits['train'] == dict(
        labels=3, images=2, expressions=3, objects=2, none=0, one=2, several=1
    )
    assert found.splits['val'] == dict(
        labels=1, images=1, expressions=1, objects=0, none=1, one=0, several=0
    )
    assert found.total['labels'] == 4 and found.total['expressions'] == 3
    assert kinds(found)['0 or several targets'].count == 2
    assert not any(problem.spoils_training for problem in found.problems)


@pytest.mark.parametrize('name', WRITERS)
def test_every_layout_is_inspected(tmp_path, name):
    if 'parquet' in name:
        pytest.importorskip('pyarrow')
    files, labels = WRITERS[name](tmp_path)
    found = inspect_file(**files)
    counts = Counter(len(boxes) for _, boxes, _ in labels)
    assert found.total['labels'] == len(labels)
    assert found.total['none'] == counts[0] and found.total['one'] == counts[1]
    assert found.total['images'] == len({image for image, _, _ in labels})
    assert found.boxes['format'] and found.boxes['total'] == sum(counts.elements())
    ast.parse(training_config([found]))
    json.dumps(found.described())


def test_labels_without_a_single_target_cannot_be_trained_on(tmp_path):
    lines = [odvg(boxes=[]), odvg(boxes=[BOX, BOX]), odvg('b.jpg', split='val')]
    found = inspect_lines(tmp_path, lines)
    assert kinds(found)['no single target'].spoils_training
    found = inspect_lines(tmp_path, [odvg(boxes=[], split='val')])
    assert 'no single target' not in kinds(found)


def test_rows_say_how_to_join_or_to_leave_out_boxes(tmp_path):
    path = tmp_path / 'a.csv'
    lines = ['image,text,x,y,w,h', 'a.jpg,men,1,2,3,4', 'a.jpg,men,9,9,8,8']
    path.write_text('\n'.join(lines))
    assert '--fields label=' in kinds(inspect_file(path))['ambiguous expressions'].text
    joined = inspect_file(path, fields=dict(label=['image', 'text']))
    assert joined.total['several'] == 1 and 'ambiguous expressions' not in kinds(joined)
    path.write_text('\n'.join([*lines, 'a.jpg,dog,0,0,0,0']))
    problem = kinds(inspect_file(path))['boxes']
    assert problem.spoils_training and 'zeros' in problem.text


def test_names_that_come_twice_cannot_be_trained_on(tmp_path):
    lines = [dict(odvg(text=text), sample_id='one') for text in ('man', 'dog')]
    problem = kinds(inspect_lines(tmp_path, lines))['sample_id']
    assert problem.spoils_training and "'one'" in problem.text


def test_words_are_counted_as_python_splits_them():
    rng = random.Random(0)
    texts = [
        ''.join(rng.choices(' \t\nab\u00e9\u4e2d', k=rng.randrange(12)))
        for _ in range(300)
    ]
    words = count_words(PackedStrings.pack(texts)).tolist()
    assert words == [len(text.split()) for text in texts]
    assert count_words(PackedStrings.pack(['', ''])).tolist() == [0, 0]


def test_lengths_and_what_clip_would_cut(tmp_path):
    texts = ['man', 'a red cup', '!?' * 50, 'word ' * 76, 'it is ' * 37, '7' * 76]
    found = inspect_lines(tmp_path, [odvg(text=text) for text in texts])
    assert found.lengths['longest'] == 76 and found.lengths['mean'] == 26
    # 100 marks are one piece, 76 words or digits are more than 75, 74 words are not.
    assert found.lengths['cut'] == 2
    assert kinds(found)['long expressions'].count == 2


def test_readings_of_boxes_count_what_contradicts_them(tmp_path):
    boxes = [[300, 200, 600, 400], [10, 10, 50, 50], [500, 10, 620, 90]]
    found = inspect_lines(tmp_path, [odvg(boxes=[box]) for box in boxes])
    counts = {
        (reading['format'], reading['unit']): reading['contradicted']
        for reading in found.boxes['readings']
    }
    # As xywh the first and the third end at 900 and 1,120 of 640 pixels.
    assert counts['xyxy', 'pixel'] == 0 and counts['xywh', 'pixel'] == 2
    assert counts['xywh', '1000'] == 1 and counts['xyxy', '1'] == 3
    assert (found.boxes['format'], found.boxes['unit']) == ('xyxy', 'pixel')
    assert found.boxes['largest'] == 620 and found.boxes['sized'] == 3
    assert '1,120' not in format_inspection(found)


def test_a_box_format_that_was_said_is_the_reason(tmp_path):
    found = inspect_lines(tmp_path, [odvg()], box_format='xywh')
    assert found.boxes['format'] == 'xywh' and 'box_format' in found.boxes['why']
    assert found.table.boxes.tolist() == [[10, 20, 120, 240]]


def test_rows_say_which_kinds_were_ruled_out(tmp_path):
    boxes = [[20 + i, 30, 90, 60 + i] for i in range(30)]
    found = inspect_lines(tmp_path, rows(boxes))
    assert found.layout == 'rows' and found.boxes['format'] == 'xyxy'
    assert 'xywh' in found.boxes['why']


@pytest.mark.parametrize('boxes', [[[0.1, 0.2, 0.5, 0.6]] * 3, [[9, 9, 30, 30]]])
def test_boxes_that_are_refused_leave_the_rest_to_be_seen(tmp_path, boxes):
    found = inspect_lines(tmp_path, rows(boxes))
    assert found.boxes['format'] is None
    problem = kinds(found)['boxes']
    assert problem.spoils_training and 'labels.jsonl' in problem.text
    assert found.total['labels'] == len(boxes) and found.boxes['readings']


def test_boxes_of_another_format_spoil_training(tmp_path):
    lines = [odvg(boxes=[[400, 300, 200 + i, 150]]) for i in range(30)]
    found = inspect_lines(tmp_path, lines)
    assert kinds(found)['invalid boxes'].count == 30
    assert kinds(found)['boxes'].spoils_training
    fits = inspect_lines(tmp_path, lines, box_format='xywh')
    assert 'boxes' not in kinds(fits) and 'invalid boxes' not in kinds(fits)


def test_a_box_outside_of_the_image_is_named(tmp_path):
    lines = [odvg(text=f'man {i}') for i in range(40)]
    lines.append(odvg('far.jpg', 'far man', [[700, 20, 800, 90]]))
    problem = kinds(inspect_lines(tmp_path, lines))['invalid boxes']
    assert problem.count == 1 and not problem.spoils_training
    for part in ('far.jpg', 'far man', '700'):
        assert part in problem.text


def test_duplicates_are_those_of_a_slow_count(tmp_path):
    rng = random.Random(1)
    lines = [
        odvg(
            rng.choice(['a.jpg', 'b.jpg']),
            rng.choice(['man', 'cup', 'dog']),
            [[rng.randrange(3), 5, 50, 60]],
        )
        for _ in range(40)
    ]
    seen, first, again, other = set(), {}, 0, 0
    for line in lines:
        region = line['grounding']['regions'][0]
        pair, box = (line['filename'], region['phrase']), tuple(region['bbox'])
        again += (pair, box) in seen
        other += (pair, box) not in seen and first.setdefault(pair, box) != box
        seen.add((pair, box))
    found = kinds(inspect_lines(tmp_path, lines))
    assert found['duplicates'].count == again > 0
    assert found['ambiguous expressions'].count == other > 0


def test_empty_expressions_and_instructions_in_them(tmp_path):
    found = inspect_lines(tmp_path, [odvg(text=' '), odvg(), odvg(text='x')])
    assert kinds(found)['empty expressions'].count == 1
    lines = [odvg(text=f'Please find the box of thing {i}') for i in range(20)]
    problem = kinds(inspect_lines(tmp_path, lines))['instruction']
    assert 'Please find the box of thing' in problem.text and problem.spoils_training
    assert 'instruction' not in kinds(inspect_lines(tmp_path, lines[:19]))


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('a.json', '{"images": ['),
        ('a.jsonl', '{"filename": "a.jpg"}\n{"filename": "b.jpg"}\n'),
        ('a.json', '[]'),
        ('a.jsonl', ''),
    ],
)
def test_a_file_that_cannot_be_read_is_one_problem(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    found = inspect_file(tmp_path / name)
    (problem,) = found.problems
    assert problem.spoils_training and str(tmp_path / name) in problem.text
    assert found.table is None
    json.dumps(found.described())


def test_a_missing_file_is_a_problem_too(tmp_path):
    (problem,) = inspect_file(tmp_path / 'no.json').problems
    assert str(tmp_path / 'no.json') in problem.text


# --- images ------------------------------------------------------------------------


def test_missing_images_are_counted_and_named(tmp_path):
    save(tmp_path / 'img' / 'a.jpg')
    save(tmp_path / 'img' / '000000000001.jpg')
    lines = [odvg(), odvg('b.jpg'), odvg('COCO_train2014_000000000001.jpg')]
    found = inspect_lines(tmp_path, lines, roots=ImageRoots([tmp_path / 'img']))
    assert found.images['missing'] == found.images['renamed'] == 1
    assert 'b.jpg' in kinds(found)['missing images'].text
    assert kinds(found)['missing images'].spoils_training
    assert not kinds(found)['other names'].spoils_training


def test_sizes_that_differ_from_the_images(tmp_path):
    save(tmp_path / 'img' / 'a.jpg', (320, 240))
    (tmp_path / 'img' / 'c.jpg').write_text('no image')
    lines = [odvg(), odvg('c.jpg', size=None)]
    found = inspect_lines(tmp_path, lines, roots=ImageRoots([tmp_path / 'img']))
    problem = kinds(found)['image sizes']
    assert problem.count == 1 and '640 x 480' in problem.text
    assert '320 x 240' in problem.text
    assert 'c.jpg' in kinds(found)['unreadable images'].text


@pytest.mark.parametrize(('size', 'upright'), [((480, 640), True), ((640, 480), False)])
def test_labels_of_turned_images_are_recognised_by_their_size(tmp_path, size, upright):
    save(tmp_path / 'img' / 'a.jpg', (640, 480), orientation=6)
    line = odvg(size=size[::-1], boxes=[[5, 5, 60, 60]])
    found = inspect_lines(tmp_path, [line], roots=ImageRoots([tmp_path / 'img']))
    assert found.images['turned'] == 1 and found.images['upright'] is upright
    assert found.images['other_size'] == 0


def test_sizes_of_images_are_learnt_for_the_boxes(tmp_path):
    save(tmp_path / 'img' / 'a.jpg', (100, 100))
    line = odvg(size=None, boxes=[[120, 5, 150, 60]])
    alone = inspect_lines(tmp_path, [line])
    assert 'invalid boxes' not in kinds(alone) and alone.boxes['sized'] == 0
    found = inspect_lines(tmp_path, [line], roots=ImageRoots([tmp_path / 'img']))
    assert kinds(found)['invalid boxes'].count == 1 and found.boxes['sized'] == 1


# --- leaks and published sets ------------------------------------------------------


def test_leaks_between_splits_and_files_by_coco_number(tmp_path):
    train = [odvg('COCO_train2014_000000000007.jpg'), odvg('other.jpg')]
    val = [odvg('000000000007.jpg', split='testA'), odvg('own.jpg', split='val')]
    both = inspect_lines(tmp_path, train + val)
    (leak,) = (p for p in both.problems if p.kind == 'leak')
    assert leak.count == 1 and leak.spoils_training and 'testA' in leak.text
    one = inspect_file(write_lines(tmp_path / 'one.jsonl', train))
    two = inspect_file(write_lines(tmp_path / 'two.jsonl', val))
    assert not one.problems and not two.problems
    (leak,) = find_leaks([one, two])
    assert leak.count == 1 and 'two.jsonl' in leak.text
    assert not find_leaks([two, two])


@pytest.mark.parametrize(
    ('split', 'held'),
    [('train', False), ('all', False), ('trainval', False), ('val', True)]
    + [('testA', True), ('test', True), ('minival', True)],
)
def test_which_splits_are_held_out(split, held):
    assert is_held_out(split) is held


@pytest.mark.parametrize('known', PUBLISHED, ids=lambda known: known.name)
def test_published_sets_are_known_by_their_numbers(known):
    assert (ROOT / 'configs' / known.config).is_file()
    match = match_published(known.splits, 'some folder')
    assert match.name == known.name and match.complete == tuple(known.splits)
    assert not match.others and not match.absent
    one = dict([next(iter(known.splits.items()))])
    assert match_published(one, '').name == known.name


@pytest.mark.parametrize(
    ('names', 'expected'),
    [
        ('refcoco/instances.json refs(unc).p', 'RefCOCO (unc)'),
        ('refcoco_mini/instances.json refs(unc).p', 'RefCOCO (unc)'),
        ('refcoco+/instances.json refs(unc).p', 'RefCOCO+ (unc)'),
        ('hf/refcocoplus_train.parquet ', 'RefCOCO+ (unc)'),
        ('refcocog/instances.json refs(umd).p', 'RefCOCOg (umd)'),
        ('refcocog/instances.json refs(google).p', 'RefCOCOg (google)'),
        ('unc/unc_train.pth ', 'RefCOCO (unc)'),
        ('unc+/unc+_train.pth ', 'RefCOCO+ (unc)'),
        ('gref/gref_train.pth ', 'RefCOCOg (google)'),
        ('gref_umd/gref_umd_train.pth ', 'RefCOCOg (umd)'),
        ('referit/referit_train.pth ', 'ReferItGame'),
        ('flickr/flickr_train.pth ', 'Flickr30k Entities'),
        ('mine/instances.json refs(unc).p', None),
        ('grefcoco/instances.json grefs(unc).json', None),
    ],
)
def test_names_tell_a_published_set_whose_numbers_differ(names, expected):
    match = match_published(dict(train=10), names)
    assert (match and match.name) == expected


def test_what_is_missing_of_a_published_set():
    match = match_published(dict(train=120_082, val=10), 'refcoco/instances.json')
    assert match.others == dict(train=(120_082, 120_624), val=(10, 10_834))
    assert match.damaged == dict(train=(120_082, 120_624))
    assert match.absent == ('testA', 'testB')


def test_parts_of_a_refer_set_are_found_beside_each_other(tmp_path):
    instances = tmp_path / 'instances.json'
    assert find_parts(tmp_path / 'x.jsonl') == [(tmp_path / 'x.jsonl', None)]
    instances.write_text('{}')
    assert find_parts(instances) == [(instances, None)]
    refs = [tmp_path / f'refs({name}).p' for name in ('google', 'umd')]
    for path in refs:
        path.write_bytes(b'')
    both = [(instances, path) for path in refs]
    assert find_parts(instances) == find_parts(tmp_path) == both
    assert find_parts(refs[1]) == both[1:]
    assert find_parts(instances, refs[0]) == both[:1]


def test_real_annotations(realdata):
    folder = ImageRoots([realdata / 'images' / 'train2014'])
    ((file, refs),) = find_parts(realdata / 'refcoco_mini')
    found = inspect_file(file, refs, folder)
    labels = {name: split['labels'] for name, split in found.splits.items()}
    assert labels == dict(train=328, val=17, testA=12, testB=20)  # its README
    assert list(labels) == ['train', 'val', 'testA', 'testB']
    assert found.images['missing'] == 0 and found.images['looked'] == 47
    assert found.published.name == 'RefCOCO (unc)' and not found.published.damaged
    readings = Counter(
        {(r['format'], r['unit']): r['contradicted'] for r in found.boxes['readings']}
    )
    assert readings['xywh', 'pixel'] == 0 and readings['xyxy', 'pixel'] > 100
    assert not any(problem.spoils_training for problem in found.problems)


def test_all_of_refcoco_is_known(realdata):
    ((file, refs),) = find_parts(realdata / 'refcoco')
    found = inspect_file(file, refs)
    assert found.published.complete == ('train', 'val', 'testA', 'testB')
    # Two of its 50,000 refs are of one box.
    assert found.total['labels'] == 142_210 and found.total['objects'] == 49_999
    assert found.total['images'] == 19_994 and found.lengths['longest'] == 39
    assert np.isclose(found.lengths['mean'], 3.5, atol=0.01)
