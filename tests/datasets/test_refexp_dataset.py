"""The data set: labels, grouped samples, filters, and images of all kinds."""

import hashlib
import json
import os
import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose, LoadImageFromFile
from mmdet.registry import DATASETS, TRANSFORMS
from mmengine.config import Config
from PIL import Image

from projects.clip_vg.datasets import refexp_dataset
from projects.clip_vg.datasets.transforms import LoadGroundingImage
from projects.clip_vg_core.curriculum.reliability_file import (
    ReliabilityFile,
    read_reliability,
)
from projects.clip_vg_core.data.readers import write_odvg
from projects.clip_vg_core.data.table_builder import TableBuilder

from ..helpers import ROOT
from ..helpers.layout_files import WRITERS

PIPELINE = [
    dict(type='LoadGroundingImage'),
    dict(type='PILResize', size=32),
    dict(type='Letterbox', size=32),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackGroundingInputs'),
]


def make(
    tmp_path, labels, images=('a.jpg',), size=(60, 40), steps=PIPELINE[:1], **options
):
    """A data set of ODVG labels (image, xyxy box, text) and grey images.

    Its pipeline begins with ``steps``, which load the image.
    """
    builder = TableBuilder(str)
    for i, (image, box, text) in enumerate(labels):
        builder.add(image, box, text, f's{i}', 'train', 'human', (size[1], size[0]))
    write_odvg(builder.build('xyxy'), tmp_path / 'labels.jsonl', overwrite=True)
    for name in images:
        if not (tmp_path / name).exists():
            Image.new('RGB', size, (90, 120, 30)).save(tmp_path / name)
    return DATASETS.build(
        dict(
            type='RefExpDataset',
            data_root=str(tmp_path),
            ann_file='labels.jsonl',
            pipeline=[*steps, *PIPELINE[1:]],
            **options,
        )
    )


LABELS = [
    ('a.jpg', [0, 0, 20, 20], 'one'),
    ('a.jpg', [10, 10, 60, 40], 'two'),
    ('b.jpg', [5, 5, 9, 9], 'three'),
]


def test_a_grouped_sample_is_its_labels_in_order(tmp_path):
    dataset = make(tmp_path, LABELS, ('a.jpg', 'b.jpg'))
    single, grouped = dataset[0]['data_samples'], dataset[1, 0]['data_samples']
    assert single.text == 'one'
    assert grouped.text == ['two', 'one']
    assert grouped.sample_id == ['s1', 's0']
    assert torch.equal(
        grouped.gt_instances.bboxes.tensor[1], single.gt_instances.bboxes.tensor[0]
    )
    assert torch.equal(dataset[0]['inputs'], dataset[1, 0]['inputs'])


def test_labels_of_two_images_are_no_group(tmp_path):
    dataset = make(tmp_path, LABELS, ('a.jpg', 'b.jpg'))
    with pytest.raises(ValueError, match=r'a\.jpg.*b\.jpg'):
        dataset[0, 2]


def test_the_end_of_iteration_and_subsets(tmp_path):
    dataset = make(tmp_path, LABELS, ('a.jpg', 'b.jpg'))
    assert len(list(dataset)) == len(dataset) == 3
    assert dataset.get_data_info(-1)['text'] == 'three'
    assert [s['data_samples'].text for s in dataset.get_subset([2, 0])] == [
        'three',
        'one',
    ]
    assert len(make(tmp_path, LABELS, ('a.jpg', 'b.jpg'), indices=2)) == 2


@pytest.mark.parametrize(
    ('box', 'reason'),
    [
        ([5, 5, 5, 9], 'not positive'),
        ([5, 5, 3, 9], 'not positive'),
        ([61, 5, 70, 9], 'outside'),
        ([-9, 5, -1, 9], 'outside'),
        ([5, 40, 9, 50], 'outside'),
    ],
)
def test_invalid_boxes_are_dropped_counted_and_named(
    tmp_path, monkeypatch, box, reason
):
    texts = []
    monkeypatch.setattr(
        refexp_dataset, 'print_log', lambda text, **_: texts.append(text)
    )
    dataset = make(tmp_path, [*LABELS[:2], ('a.jpg', box, 'wrong')])
    assert len(dataset) == 2
    assert len(texts) == 1
    assert '1 of 3 labels dropped' in texts[0]
    assert reason in texts[0] and 's2 (a.jpg)' in texts[0]


def test_nan_boxes_are_dropped(tmp_path):
    table = make(tmp_path, LABELS[:2]).table
    table.boxes[0, 2] = np.nan
    write = [('a.jpg', [1, 2, 3, 4], 'x'), ('a.jpg', [1, 2, float('nan'), 4], 'y')]
    assert len(make(tmp_path, write)) == 1


def test_boxes_that_pass_the_border_are_kept(tmp_path):
    assert len(make(tmp_path, [('a.jpg', [-0.4, 5, 60.3, 40.2], 'whole')])) == 1


def test_invalid_boxes_that_are_kept_are_counted_too(tmp_path, monkeypatch):
    texts = []
    monkeypatch.setattr(
        refexp_dataset, 'print_log', lambda text, **_: texts.append(text)
    )
    labels = [*LABELS[:2], ('a.jpg', [5, 5, 5, 9], 'wrong')]
    assert len(make(tmp_path, labels, filter_cfg=dict(invalid_boxes=False))) == 3
    assert len(texts) == 1 and '1 of 3 labels kept' in texts[0] and 's2' in texts[0]


@pytest.mark.parametrize(
    'name', ['clip_vg_refcoco.py', 'clip_vg_vit-l14-336_refcoco.py']
)
def test_configs_drop_invalid_boxes_in_training_only(name):
    cfg = Config.fromfile(ROOT / 'configs' / name)
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.filter_cfg == dict(invalid_boxes=False)
    assert 'filter_cfg' not in cfg.train_dataloader.dataset


def test_nothing_left_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r'No label is left of 1 .*labels\.jsonl'):
        make(tmp_path, [('a.jpg', [5, 5, 5, 9], 'wrong')])


def logged(monkeypatch):
    """What a data set logs from here on."""
    texts = []
    monkeypatch.setattr(
        refexp_dataset, 'print_log', lambda text, **_: texts.append(text)
    )
    return texts


def test_many_dropped_boxes_ask_for_the_format(tmp_path, monkeypatch):
    texts = logged(monkeypatch)
    few = [*LABELS[:1] * 19, ('a.jpg', [5, 5, 5, 9], 'wrong')]
    make(tmp_path, few)
    assert '1 of 20' in texts.pop() and not texts
    make(tmp_path, few[1:])  # 1 of 19: over 5 %
    assert 'xywh in the place of xyxy' in texts.pop() and not texts


def test_all_missing_images_are_reported_at_once(tmp_path, monkeypatch):
    names = [f'{i:02}.jpg' for i in range(30)]
    labels = [(name, [1, 1, 9, 9], 'x') for name in names]
    texts = logged(monkeypatch)
    make(tmp_path, labels, names[:3])
    assert len(texts) == 1
    with pytest.raises(FileNotFoundError) as caught:
        make(tmp_path, labels, names[:3], check_images='error')
    for text in (texts[0], str(caught.value)):
        assert '27 of 30 images' in text and 'and 7 more' in text
        assert all(name in text for name in names[3:23]) and names[0] not in text
    make(tmp_path, labels, names[:3], check_images='off')
    assert len(texts) == 1
    with pytest.raises(ValueError, match="check_images='no'"):
        make(tmp_path, labels, check_images='no')


@pytest.mark.parametrize(
    ('name', 'there', 'message'),
    [
        ('train2014/a.jpg', 'a.jpg', r'a\.jpg is in .*folder train2014/ is too much'),
        ('a.jpg', 'a.JPG', r'a\.JPG is there'),
    ],
)
def test_a_missing_image_says_what_is_wrong_with_its_name(
    tmp_path, name, there, message
):
    labels = [(name, [1, 1, 9, 9], 'x')]
    with pytest.raises(FileNotFoundError, match=f'{re.escape(name)}(?s:.*){message}'):
        (tmp_path / there).parent.mkdir(exist_ok=True)
        make(tmp_path, labels, (there,), check_images='error')
    dataset = make(tmp_path, labels, (), check_images='off')
    with pytest.raises(FileNotFoundError, match=rf's0(?s:.*){message}'):
        dataset[0]


COCO_2014, COCO_2017 = 'COCO_train2014_000000000001.jpg', '000000000001.jpg'


@pytest.mark.parametrize(
    ('name', 'there', 'folder', 'hint'),
    [
        (COCO_2014, COCO_2017, '', 'COCO 2014.*COCO 2017'),
        (COCO_2014, f'train2017/{COCO_2017}', 'train2014/', 'COCO 2014.*COCO 2017'),
        (COCO_2017, 'COCO_val2014_000000000001.jpg', '', 'COCO 2017.*COCO 2014'),
        ('sub\\a.jpg', 'sub/a.jpg', '', 'backslash'),
        # VLM-R1's names begin with the folder that ours ends with.
        (f'train2014/{COCO_2014}', f'train2014/{COCO_2014}', 'train2014', 'too much'),
        (f'coco/train2014/{COCO_2014}', f'train2017/{COCO_2017}', 'train2014', ''),
    ],
)
def test_an_image_is_found_under_its_other_name(
    tmp_path, monkeypatch, name, there, folder, hint
):
    labels = [(name, [1, 1, 9, 9], 'x')]
    (tmp_path / 'coco').mkdir()
    for each in ('train2014', 'train2017', 'sub'):
        (tmp_path / 'coco' / each).mkdir()
    Image.new('RGB', (60, 40)).save(tmp_path / 'coco' / there)
    texts = logged(monkeypatch)
    prefix = dict(img=f'coco/{folder}')
    dataset = make(tmp_path, labels, (), data_prefix=prefix, check_images='error')
    assert Path(dataset.get_data_info(0)['img_path']).samefile(
        tmp_path / 'coco' / there
    )
    assert dataset[0]['data_samples'].text == 'x'
    assert len(texts) == 1 and '1 images' in texts[0] and there in texts[0]
    # The bytes of an image belong to the key of its labels.
    assert (dataset.label_files[0].keys != dataset.label_files[0].content).all()
    unchecked = make(tmp_path, labels, (), data_prefix=prefix, check_images='off')
    with pytest.raises(FileNotFoundError, match=f's0(?s:.*){hint}'):
        unchecked[0]


def test_several_folders_are_looked_through(tmp_path):
    for folder, name in (('one', 'a.jpg'), ('two', 'b.jpg')):
        (tmp_path / folder).mkdir()
        Image.new('RGB', (60, 40)).save(tmp_path / folder / name)
    for check in ('error', 'off'):
        options = dict(data_prefix=dict(img=['one/', 'two/']), check_images=check)
        dataset = make(tmp_path, LABELS, (), **options)
        paths = [dataset.get_data_info(i)['img_path'] for i in range(3)]
        assert paths == [
            *(str(tmp_path / 'one/a.jpg'),) * 2,
            str(tmp_path / 'two/b.jpg'),
        ]
        assert pickle.loads(pickle.dumps(dataset.image_roots)).path('b.jpg') == paths[2]
    Image.new('RGB', (60, 40), 'red').save(tmp_path / 'two/a.jpg')
    with pytest.raises(ValueError, match=r"'a\.jpg' is in .*one and in .*two"):
        make(tmp_path, LABELS, (), **dict(options, check_images='error'))
    (tmp_path / 'one/a.jpg').unlink()
    (tmp_path / 'two/a.jpg').unlink()
    with pytest.raises(FileNotFoundError, match=r'1 of 2 .*one, .*two: a\.jpg'):
        make(tmp_path, LABELS, (), **dict(options, check_images='error'))


def test_data_sets_have_a_folder_each_where_names_coincide(tmp_path):
    rows = [('1.jpg', name, [0, 0, 9, 9], name, []) for name in ('referit', 'flickr')]
    torch.save(rows, tmp_path / 'mixup_train.pth')
    for folder in ('r', 'f'):
        (tmp_path / folder).mkdir()
        Image.new('RGB', (60, 40)).save(tmp_path / folder / '1.jpg')
    dataset = DATASETS.build(
        dict(
            type='RefExpDataset',
            data_root=str(tmp_path),
            ann_file='mixup_train.pth',
            data_prefix=dict(img=dict(referit='r', flickr='f')),
            check_images='error',
        )
    )
    paths = [dataset.get_data_info(i)['img_path'] for i in range(2)]
    assert paths == [str(tmp_path / 'r/1.jpg'), str(tmp_path / 'f/1.jpg')]


def test_any_number_of_targets_is_a_sample(tmp_path, monkeypatch):
    texts = logged(monkeypatch)
    boxes = [[1, 1, 9, 9], [10, 10, 20, 20]]
    rows = [('a.jpg', '', b, f't{n}', []) for n, b in enumerate([[], boxes[:1], boxes])]
    torch.save(rows, tmp_path / 'referit_train.pth')
    Image.new('RGB', (60, 40)).save(tmp_path / 'a.jpg')
    config = dict(
        type='RefExpDataset', data_root=str(tmp_path), ann_file='referit_train.pth'
    )
    one = DATASETS.build(config)
    assert [one.get_data_info(i)['text'] for i in range(len(one))] == ['t1']
    assert sorted(text[:6] for text in texts) == ['1 of 3', '1 of 3']
    dataset = DATASETS.build(dict(config, targets='any'))
    infos = [dataset.get_data_info(i) for i in range(3)]
    assert [info['num_targets'] for info in infos] == [0, 1, 2]
    assert [[i['bbox'] for i in info['instances']] for info in infos] == [
        *([], boxes[:1], boxes)
    ]
    grouped = dataset.get_data_info([2, 0, 1])
    assert grouped['num_targets'] == [2, 0, 1]
    assert [i['bbox_label'] for i in grouped['instances']] == [0, 0, 2]
    # The key of a label with one target is the same in both.
    assert one.label_files[0].keys[0] == dataset.label_files[0].keys[1]
    assert len(texts) == 2


def test_labels_of_held_out_images_are_refused_or_dropped(tmp_path, monkeypatch):
    texts = logged(monkeypatch)
    labels = [(COCO_2014, [1, 1, 9, 9], 'x'), ('b.jpg', [1, 1, 9, 9], 'y')]
    torch.save([(COCO_2017, '', [1, 1, 9, 9], 'z', [])], tmp_path / 'unc_testA.pth')
    held_out = dict(held_out=dict(ann_file='unc_testA.pth', split='testA'))
    with pytest.raises(
        ValueError, match=r'1 of 2 .*1 images.*unc_testA\.pth.*COCO_train'
    ):
        make(tmp_path, labels, (COCO_2014, 'b.jpg'), **held_out)
    dataset = make(tmp_path, labels, (), **held_out, on_leak='drop')
    assert list(dataset.table.texts) == ['y']
    assert len(texts) == 1 and '1 of 2' in texts[0]
    assert len(dataset.indices_of(dataset.label_files[0])) == 1
    with pytest.raises(ValueError, match="on_leak='warn'"):
        make(tmp_path, labels, (), **held_out, on_leak='warn')


def test_a_set_without_a_training_split_is_not_trained_on(tmp_path):
    path, labels = WRITERS['ref_l4_lines'](tmp_path)
    config = dict(
        type='RefExpDataset', ann_file=str(path['ann_file']), check_images='off'
    )
    with pytest.raises(ValueError, match='no training split'):
        DATASETS.build(config)
    for options in (dict(test_mode=True), dict(split='val')):
        assert len(DATASETS.build(dict(config, **options))) == len(labels)


def test_a_file_of_rows_is_read_with_sizes_from_the_images(tmp_path):
    """Boxes are fractions; no file says how large the image is."""
    (tmp_path / 'mine.csv').write_text(
        'file,words,x1,y1,x2,y2\na.jpg,x,0.1,0.1,0.5,0.5'
    )
    Image.new('RGB', (60, 40)).save(tmp_path / 'a.jpg')
    dataset = DATASETS.build(
        dict(
            type='RefExpDataset',
            data_root=str(tmp_path),
            ann_file='mine.csv',
            fields=dict(text='words'),
            box_unit='1',
        )
    )
    np.testing.assert_allclose(dataset.table.boxes, [[6, 4, 30, 20]], rtol=1e-6)


def test_configs_stop_at_missing_images():
    cfg = Config.fromfile(ROOT / 'configs/clip_vg_refcoco.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.check_images == 'error'


def test_boxes_are_compared_with_sizes_that_no_file_says(tmp_path):
    """Lists of TransVG have no sizes; the images have."""
    Image.new('RGB', (60, 40)).save(tmp_path / 'a.jpg')
    box = [20, 10, 55, 35]  # xyxy
    torch.save([('a.jpg', '', box, 'x', [])], tmp_path / 'mine.pth')
    config = dict(type='RefExpDataset', data_root=str(tmp_path), ann_file='mine.pth')
    with pytest.raises(ValueError, match=r'mine\.pth.*1 of 1 .*xyxy .*read as xywh'):
        DATASETS.build(config)
    dataset = DATASETS.build(dict(config, box_format='xyxy'))
    assert dataset.table.boxes.tolist() == [box]
    unchecked = dict(config, filter_cfg=dict(check_boxes=False))
    assert DATASETS.build(unchecked).table.boxes.tolist() == [[20, 10, 75, 45]]


def test_what_readers_leave_out_is_logged(tmp_path, monkeypatch):
    texts = logged(monkeypatch)
    torch.save(
        [('a.jpg', '', box, 'x', []) for box in ([1, 1, 9, 9], None)],
        tmp_path / 'mine.pth',
    )
    config = dict(type='RefExpDataset', data_root=str(tmp_path), ann_file='mine.pth')
    assert len(DATASETS.build(dict(config, check_images='off'))) == 1
    assert len(texts) == 1 and '1 of 2' in texts[0] and 'entry 1' in texts[0]


def turned(path, size=(60, 40), orientation=6):
    """Save an image of stored ``size`` that is white at the left, black elsewhere."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.new('RGB', size)
    image.paste((255, 255, 255), (0, 0, 20, size[1]))
    image.save(path, exif=exif, quality=95)


def test_upright_images_are_turned_for_their_labels(tmp_path, monkeypatch):
    texts = logged(monkeypatch)
    turned(tmp_path / 'a.jpg')  # shown after a quarter turn clockwise: white above
    label = ('a.jpg', [0, 0, 40, 20], 'white')
    upright = make(tmp_path, [label], (), size=(40, 60), upright=True)
    upright.pipeline = Compose([LoadGroundingImage()])
    sample = upright[0]
    assert sample['img'].shape == (60, 40, 3)
    assert sample['img'][2:16].min() > 200 and sample['img'][24:].max() < 50
    assert len(texts) == 1 and '1 of 1 images' in texts[0] and 'upright' in texts[0]
    stored = make(tmp_path, [label], (), size=(40, 60))
    assert 'stored' in texts[1] and 'upright=True' in texts[1]
    with pytest.raises(ValueError, match=r'\(40, 60\).*EXIF.*upright=True'):
        stored[0]
    as_stored = make(tmp_path, [('a.jpg', [0, 0, 20, 40], 'x')], (), upright=True)
    with pytest.raises(ValueError, match=r'\(60, 40\).*EXIF.*as stored'):
        as_stored[0]


def test_the_transform_turns_images_too(tmp_path):
    turned(tmp_path / 'a.jpg')
    for options, shape in ((dict(upright=True), (60, 40)), ({}, (40, 60))):
        results = LoadGroundingImage(**options)(dict(img_path=str(tmp_path / 'a.jpg')))
        assert results['img'].shape[:2] == results['ori_shape'] == shape


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='data_root=.*nowhere'):
        DATASETS.build(
            dict(
                type='RefExpDataset', data_root=str(tmp_path / 'nowhere'), ann_file='x'
            )
        )


def test_a_missing_image_is_named_with_its_label(tmp_path):
    dataset = make(tmp_path, [('gone.jpg', [1, 1, 9, 9], 'x')], images=())
    with pytest.raises(FileNotFoundError, match=r'gone\.jpg.*s0'):
        dataset[0]


@pytest.mark.parametrize('keep', [0, 100, 500])
def test_a_damaged_image_is_named_with_its_label(tmp_path, keep):
    dataset = make(tmp_path, LABELS[:1])
    path = tmp_path / 'a.jpg'
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r'a\.jpg cannot be decoded.*s0'):
        dataset[0]


def test_a_image_of_another_size_is_an_error(tmp_path):
    dataset = make(tmp_path, LABELS[:1])
    Image.new('RGB', (61, 40)).save(tmp_path / 'a.jpg')
    with pytest.raises(ValueError, match=r'\(40, 61\).*\(40, 60\)'):
        dataset[0]


@pytest.mark.parametrize('mode', ['L', 'CMYK', 'RGB'])
def test_images_of_other_kinds_become_colour(tmp_path, mode):
    dataset = make(tmp_path, LABELS[:1])
    Image.new('RGB', (60, 40), (90, 120, 30)).convert(mode).save(tmp_path / 'a.jpg')
    assert dataset[0]['inputs'].shape == (3, 32, 32)


def test_exif_rotation_is_ignored(tmp_path):
    """Boxes of REFER are in the frame of the stored pixels."""
    dataset = make(tmp_path, LABELS[:1])
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees
    Image.new('RGB', (60, 40)).save(tmp_path / 'a.jpg', exif=exif)
    assert dataset[0]['data_samples'].ori_shape == (40, 60)


MMCV = dict(type='LoadImageFromFile', imdecode_backend='pillow')
AS_STORED = dict(MMCV, color_type='color_ignore_orientation')


@pytest.mark.parametrize(
    ('steps', 'warned'),
    [
        ([MMCV], {False}),
        ([dict(type=LoadImageFromFile)], {False}),
        ([AS_STORED], {True}),
        ([dict(MMCV, color_type='unchanged')], {True}),
        ([MMCV, PIPELINE[0]], set()),
        ([PIPELINE[0]], set()),
    ],
)
@pytest.mark.parametrize('upright', [False, True])
def test_a_loader_that_turns_images_otherwise_is_told(
    tmp_path, monkeypatch, steps, warned, upright
):
    make(tmp_path, LABELS[:1])
    texts = logged(monkeypatch)
    dataset = make(tmp_path, LABELS[:1], steps=steps, upright=upright)
    assert [type(step) for step in dataset.pipeline.transforms[: len(steps)]] == [
        step['type'] if isinstance(step['type'], type) else TRANSFORMS.get(step['type'])
        for step in steps
    ]
    told = [text for text in texts if 'LoadGroundingImage' in text]
    assert len(told) == (upright in warned)


@pytest.mark.parametrize('steps', [[MMCV], [MMCV, PIPELINE[0]], [PIPELINE[0]]])
def test_a_pipe_is_not_waited_for(tmp_path, steps):
    dataset = make(tmp_path, LABELS[:1], steps=steps, check_images='off')
    path = Path(dataset.get_data_info(0)['img_path'])
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        dataset.prepare_data(0)


@pytest.mark.parametrize('keep', [None, 0, 100])
def test_an_image_that_mmcv_cannot_read_is_named_with_its_label(tmp_path, keep):
    dataset = make(tmp_path, LABELS[:1], steps=[MMCV, PIPELINE[0]])
    path = tmp_path / 'a.jpg'
    if keep is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises((ValueError, FileNotFoundError), match=r'a\.jpg.*s0'):
        dataset[0]


def test_its_description_needs_no_data():
    """MMDetection's DetInferencer builds the test data set for its classes."""
    config = dict(type='RefExpDataset', data_root='nowhere', ann_file='labels.jsonl')
    assert DATASETS.build(dict(config, lazy_init=True)).metainfo['classes']
    with pytest.raises(FileNotFoundError, match='nowhere'):
        DATASETS.build(config)


def test_labels_are_those_of_mmdetections_odvg_dataset(tmp_path):
    """The same file through both, for detectors that train on ``ODVGDataset``."""
    ours = make(tmp_path, LABELS, ('a.jpg', 'b.jpg'))
    theirs = DATASETS.build(
        dict(
            type='ODVGDataset',
            data_root=str(tmp_path),
            ann_file='labels.jsonl',
            data_prefix=dict(img=''),
            return_classes=True,
            pipeline=[],
        )
    )
    assert len(ours) == len(theirs)
    for index in range(len(theirs)):
        label, expected = ours.get_data_info(index), theirs.get_data_info(index)
        del expected['sample_idx']
        for key, value in expected.items():
            assert label[key] == value, key


def test_several_files_are_one_index_space(tmp_path, shapes):
    make(tmp_path, LABELS[:2])
    dataset = DATASETS.build(
        dict(
            type='RefExpDataset',
            data_root=str(tmp_path),
            ann_file=['labels.jsonl', str(shapes / 'shapes/instances.json')],
            split_file=[None, str(shapes / 'shapes/refs(synthetic).p')],
            source=['template', None],
            split='train',
        )
    )
    assert dataset.get_data_info(0)['source'] == 'template'
    assert dataset.get_data_info(len(dataset) - 1)['source'] == 'human'
    assert dataset.get_data_info(2)['split'] == 'train'


def test_the_same_names_in_two_files_are_told_apart(tmp_path):
    make(tmp_path, LABELS[:2])
    (tmp_path / 'other.jsonl').write_bytes((tmp_path / 'labels.jsonl').read_bytes())
    dataset = DATASETS.build(
        dict(
            type='RefExpDataset',
            data_root=str(tmp_path),
            ann_file=['labels.jsonl', 'other.jsonl'],
        )
    )
    names = list(dataset.table.sample_ids)
    assert len(set(names)) == 4
    assert names[0] == 'labels/s0'


def test_a_split_in_the_name_is_filled(tmp_path):
    for split in ('val', 'testA'):
        torch.save([('a', '', [0, 0, 1, 1], split, [])], tmp_path / f'unc_{split}.pth')
    dataset = DATASETS.build(
        dict(
            type='RefExpDataset',
            data_root=str(tmp_path),
            ann_file='unc_{split}.pth',
            split=['val', 'testA'],
        )
    )
    assert list(dataset.table.texts) == ['val', 'testA']
    assert [label['split'] for label in dataset.table] == ['val', 'testA']


def test_labels_go_to_workers_as_a_few_buffers(tmp_path):
    """Nothing grows with the labels but arrays: no Python object per label."""
    small = make(tmp_path, LABELS[:2] * 10)
    large = make(tmp_path, LABELS[:2] * 1000)
    count = [len(pickle.dumps(d.table)) / len(d) for d in (small, large)]
    assert count[1] < 100  # bytes for a label; measured 51 for these short texts


def test_serialising_changes_nothing(tmp_path, monkeypatch):
    texts = logged(monkeypatch)
    dataset = make(tmp_path, LABELS[:1], serialize_data=True)
    assert dataset[0]['data_samples'].text == 'one'
    assert sum('serialize_data' in text for text in texts) == 1


WRONG = ('b.jpg', [5, 5, 5, 9], 'wrong')


def make_two(tmp_path, **options):
    """Files of 4 and 3 labels; the 2nd of each has an invalid box."""
    for name, labels in (
        ('template', [LABELS[0], WRONG, *LABELS[1:]]),
        ('relation', [LABELS[0], WRONG, LABELS[1]]),
    ):
        builder = TableBuilder(str)
        for i, (image, box, text) in enumerate(labels):
            builder.add(image, box, text, f'{name}{i}', 'train', name, (40, 60))
        write_odvg(builder.build('xyxy'), tmp_path / f'{name}.jsonl', overwrite=True)
    return DATASETS.build(
        dict(
            type='RefExpDataset',
            data_root=str(tmp_path),
            **dict(dict(ann_file=['template.jsonl', 'relation.jsonl']), **options),
        )
    )


def write_reliability(folder, label_file, measurer='m'):
    """0, 0.125, 0.25, ...: a label's value says its place in the file."""
    store = ReliabilityFile(folder, dict(name=measurer), label_file)
    values = np.arange(label_file.count) / 8
    store.write(label_file.keys, values, np.zeros((len(values), 4)))
    return store.path


def test_indices_and_keys_follow_dropped_labels(tmp_path):
    dataset = make_two(tmp_path)
    ids = list(dataset.table.sample_ids)
    assert len(ids) == 5
    assert [f.source for f in dataset.label_files] == ['template', 'relation']
    assert [f.count for f in dataset.label_files] == [4, 3]
    for file, kept in zip(dataset.label_files, ([0, 2, 3], [0, 2]), strict=True):
        indices = dataset.indices_of(file)
        assert np.array_equal(dataset.label_keys()[indices], file.keys[kept])
        assert [ids[i] for i in indices] == [f'{file.source}{p}' for p in kept]


@pytest.mark.parametrize('chosen', [-3, [4, 1, 0]])
def test_indices_and_keys_follow_a_subset(tmp_path, chosen):
    dataset = make_two(tmp_path, indices=chosen)
    names = {}
    for file in dataset.label_files:
        for index in dataset.indices_of(file):
            (place,) = np.flatnonzero(file.keys == dataset.label_keys()[index])
            names[int(index)] = f'{file.source}{place}'
    assert names == dict(enumerate(dataset.table.sample_ids))


def test_label_files_do_not_depend_on_what_is_dropped_or_read_with_them(tmp_path):
    both = make_two(tmp_path)
    both.full_init()
    options = dict(ann_file='relation.jsonl', filter_cfg=dict(invalid_boxes=False))
    alone = make_two(tmp_path, **options)
    assert len(alone) == 3
    assert alone.label_files == both.label_files[1:]
    # The fingerprint is of the sample_ids alone, each with a newline.
    names = ''.join(f'relation{i}\n' for i in range(3))
    assert (
        alone.label_files[0].sample_ids_sha256
        == hashlib.sha256(names.encode()).hexdigest()
    )
    split = make_two(tmp_path, split='train')
    split.full_init()
    assert {file.split for file in split.label_files} == {'train'}


def test_files_of_one_source_go_by_their_names(tmp_path):
    make_two(tmp_path)
    dataset = make_two(tmp_path, source=['human', 'human'])
    dataset.full_init()
    assert [file.source for file in dataset.label_files] == ['template', 'relation']


def test_reliability_goes_to_the_labels_of_its_file(tmp_path):
    dataset = make_two(tmp_path)
    dataset.full_init()
    template, relation = (
        write_reliability(tmp_path, file) for file in dataset.label_files
    )
    nan = np.nan
    values = dataset.read_reliability(template)
    assert values.dtype == np.float32
    assert np.array_equal(values, [0, 0.25, 0.375, nan, nan], equal_nan=True)
    values = dataset.read_reliability(str(relation))
    assert np.array_equal(values, [nan, nan, nan, 0, 0.25], equal_nan=True)


def test_reliability_is_of_the_labels_that_were_scored(tmp_path):
    dataset = make_two(tmp_path)
    dataset.full_init()
    path = write_reliability(tmp_path, dataset.label_files[0])
    for suffix in ('.npy', '.json', '.keys.npy'):  # under the name of another source
        path.with_suffix(suffix).rename(tmp_path / f'm__relation{suffix}')
    values = dataset.read_reliability(tmp_path / 'm__relation.npy')
    assert values[:3].tolist() == [0, 0.25, 0.375]
    manifest = tmp_path / 'm__relation.json'
    manifest.write_text(
        manifest.read_text().replace('"source": "template"', '"source": "relation"')
    )
    with pytest.raises(ValueError, match='3 of the 3 labels of relation'):
        dataset.read_reliability(tmp_path / 'm__relation.npy')
    with pytest.raises(FileNotFoundError, match=r'm__human'):
        dataset.read_reliability(tmp_path / 'm__human.npy')


def test_reliability_follows_labels_in_another_order_and_of_a_part(tmp_path):
    dataset = make(tmp_path, LABELS, ('a.jpg', 'b.jpg'))
    dataset.full_init()
    path = write_reliability(tmp_path, dataset.label_files[0])
    lines = (tmp_path / 'labels.jsonl').read_text().splitlines(keepends=True)
    (tmp_path / 'labels.jsonl').write_text(''.join(lines[:0:-1]))
    dataset = make_two(tmp_path, ann_file='labels.jsonl')
    assert list(dataset.table.sample_ids) == ['s2', 's1']
    assert dataset.read_reliability(path).tolist() == [0.25, 0.125]


CHANGES = {
    'a box': lambda folder: edit(folder, '[10.0, 10.0, 60.0, 40.0]', '[1, 1, 9, 9]'),
    'an expression': lambda folder: edit(folder, '"two"', '"zwei"'),
    'a name': lambda folder: edit(folder, '"s1"', '"t1"'),
    'an image': lambda folder: Image.new('RGB', (60, 40)).save(
        folder / 'b.jpg', quality=5
    ),
    'an image that is gone': lambda folder: (folder / 'b.jpg').unlink(),
}


def edit(folder, before, after):
    text = (folder / 'labels.jsonl').read_text()
    assert before in text
    (folder / 'labels.jsonl').write_text(text.replace(before, after))


@pytest.mark.parametrize('change', CHANGES)
def test_reliability_of_labels_that_have_changed_is_refused_and_scored_anew(
    tmp_path, change
):
    make(tmp_path, LABELS, ('a.jpg', 'b.jpg'))
    options = dict(ann_file='labels.jsonl')
    path = write_reliability(tmp_path, files_of(make_two(tmp_path, **options))[0])
    CHANGES[change](tmp_path)
    dataset = make_two(tmp_path, **options)
    place = 2 if 'image' in change else 1
    with pytest.raises(ValueError, match=rf'm__human.*1 of the 3.*\[{place}\]'):
        dataset.read_reliability(path)
    # The next scoring keeps the rest.
    store = ReliabilityFile(tmp_path, dict(name='m'), dataset.label_files[0])
    expected = [0, 0.125, 0.25]
    expected[place] = np.nan
    assert np.array_equal(store.values, expected, equal_nan=True)
    assert np.isnan(store.boxes[:, 0]).tolist() == np.isnan(expected).tolist()
    values = dataset.read_reliability(path)
    assert np.array_equal(values, expected, equal_nan=True)


def files_of(dataset):
    dataset.full_init()
    return dataset.label_files


def test_a_scoring_killed_between_its_files_believes_nothing(tmp_path):
    make(tmp_path, LABELS, ('a.jpg', 'b.jpg'))
    (file,) = files_of(make_two(tmp_path, ann_file='labels.jsonl'))
    path = write_reliability(tmp_path, file)
    path.with_suffix('.keys.npy').unlink()
    with pytest.raises(ValueError, match='3 of the 3'):
        read_reliability(path, file)
    assert np.isnan(ReliabilityFile(tmp_path, dict(name='m'), file).values).all()
    path.with_suffix('.keys.npy').write_bytes(b'x')
    with pytest.raises(ValueError, match=r'm__human\.keys\.npy'):
        read_reliability(path, file)


def test_a_file_of_an_earlier_version_is_checked_by_its_names(tmp_path):
    make(tmp_path, LABELS, ('a.jpg', 'b.jpg'))
    (file,) = files_of(make_two(tmp_path, ann_file='labels.jsonl'))
    path = write_reliability(tmp_path, file)
    keys = path.with_suffix('.keys.npy')
    keys.unlink()
    manifest = json.loads(path.with_suffix('.json').read_text())
    del manifest['keys']
    path.with_suffix('.json').write_text(json.dumps(manifest))
    assert read_reliability(path, file).tolist() == [0, 0.125, 0.25]
    with pytest.raises(ValueError, match='the label file has changed'):
        read_reliability(path, replace(file, sample_ids_sha256='0' * 64))
    store = ReliabilityFile(tmp_path, dict(name='m'), file)
    assert store.values.tolist() == [0, 0.125, 0.25]
    assert np.array_equal(np.load(keys), file.keys)  # and is written in today's form


def test_files_of_one_name_are_two_sources(tmp_path):
    for folder in ('one', 'two'):
        (tmp_path / folder).mkdir()
        make(tmp_path / folder, LABELS, ('a.jpg', 'b.jpg'))
    files = ['one/labels.jsonl', 'two/labels.jsonl']
    dataset = make_two(tmp_path, ann_file=files)
    assert [file.source for file in files_of(dataset)] == ['labels', 'labels_2']


def test_the_fingerprint_is_of_what_labels_say(tmp_path):
    make(tmp_path, LABELS, ('a.jpg', 'b.jpg'))
    options = dict(ann_file='labels.jsonl')
    before = make_two(tmp_path, **options).fingerprint()
    assert make_two(tmp_path, **options).fingerprint() == before
    assert make_two(tmp_path, **options, indices=2).fingerprint() != before
    edit(tmp_path, '"two"', '"zwei"')
    assert make_two(tmp_path, **options).fingerprint() != before


IMAGES = [f'{i:02}.jpg' for i in range(60)]


def folds(tmp_path, images, **options):
    """The images that are selected, two labels each."""
    labels = [(name, [1, 1, 9, 9], text) for text in 'xy' for name in images]
    table = make(tmp_path, labels, (), **options).table
    names = [label['image'] for label in table]
    assert {names.count(name) for name in names} == {2}  # an image stays whole
    return set(names)


def test_folds_part_the_images(tmp_path):
    parts = [
        folds(tmp_path, IMAGES, image_folds=dict(number=4, keep=[k])) for k in range(4)
    ]
    assert set.union(*parts) == set(IMAGES)
    assert sum(map(len, parts)) == len(IMAGES)
    # 60 in 4 parts: 15 each, binomial with a deviation of 3.4.
    assert all(5 <= len(part) <= 25 for part in parts)
    two = folds(tmp_path, IMAGES, image_folds=dict(number=4, keep=[3, 0]))
    assert two == parts[3] | parts[0]


def test_the_fold_of_an_image_depends_on_its_name_and_the_seed_alone(tmp_path):
    keep = dict(number=2, keep=[0])
    of_all = folds(tmp_path, IMAGES, image_folds=keep)
    part = IMAGES[40:10:-1]
    assert folds(tmp_path, part, image_folds=keep) == of_all & set(part)
    assert folds(tmp_path, IMAGES, image_folds=dict(keep, seed=1)) != of_all


def test_indices_and_keys_follow_folds(tmp_path):
    keep = dict(number=2, keep=[1])
    labels = [(name, [1, 1, 9, 9], 'x') for name in IMAGES]
    dataset = make(tmp_path, labels, (), image_folds=keep)
    assert 0 < len(dataset) < dataset.label_files[0].count == 60
    (file,) = dataset.label_files
    indices = dataset.indices_of(file)
    places = [np.flatnonzero(file.keys == key)[0] for key in dataset.label_keys()]
    assert indices.tolist() == list(range(len(dataset)))
    assert [f's{place}' for place in places] == list(dataset.table.sample_ids)


def test_a_few_images_have_all_of_their_labels(tmp_path):
    few = folds(tmp_path, IMAGES, max_images=5)
    assert len(few) == 5
    # All other images may be missing.
    for name in few:
        Image.new('RGB', (60, 40)).save(tmp_path / name)
    options = dict(max_images=5, check_images='error')
    assert folds(tmp_path, IMAGES[::-1], **options) == few
    assert folds(tmp_path, IMAGES, max_images=100) == set(IMAGES)


@pytest.mark.parametrize('keep', [[], [3], [-1, 0]])
def test_folds_that_do_not_exist_are_refused(tmp_path, keep):
    with pytest.raises(
        ValueError, match=r'image_folds: keep=.*expected some of 0 to 2'
    ):
        make(tmp_path, LABELS, image_folds=dict(number=3, keep=keep))
