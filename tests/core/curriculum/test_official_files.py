"""The official code's files of reliability and selections, there and back."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from projects.clip_vg_core.curriculum.official_files import (
    read_iou_result,
    write_iou_result,
    write_selection,
)
from projects.clip_vg_core.data.readers import read_annotations
from projects.clip_vg_core.data.readers.transvg import PLACEHOLDER
from projects.clip_vg_core.utils.safe_pickle import UnsafePickleError

SIZE = dict(height=330, width=640)
LABELS = [
    dict(image='a.jpg', bbox=[10.0, 20.0, 40.0, 60.0], text='left man', **SIZE),
    dict(image='b.jpg', bbox=[0.0, 5.0, 9.0, 8.0], text='red car', **SIZE),
]
VALUES = np.array([0.25, 1.0], np.float32)
PREDICTED = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)


@pytest.mark.parametrize('name', ['unc_train', 'referit_train', 'flickr_train'])
def test_round_trip_with_the_boxes_of_each_data_set(tmp_path, name):
    path = tmp_path / f'{name}_iou_result.pth'
    write_iou_result(LABELS, VALUES, PREDICTED, path)
    assert read_iou_result(path).tolist() == VALUES.tolist()
    table = read_annotations(path)
    assert [table[i]['bbox'] for i in (0, 1)] == [label['bbox'] for label in LABELS]
    assert [table[i]['text'] for i in (0, 1)] == ['left man', 'red car']


def official_item(entries, dataset, index):
    """A label as the official loader has it: int boxes, xyxy."""
    if dataset == 'flickr':
        image, box, text = entries[index]
    else:
        image, _, box, text, _ = entries[index]
    box = np.array(box, dtype=int)
    if dataset not in ('referit', 'flickr'):
        box[2:] += box[:2]
    return image, box.tolist(), text


def official_frame(box, height, width, side):
    """Where the official test transforms put a box: cxcywh of the padded square."""
    ratio = float(side / float(max(height, width)))
    box = torch.tensor(box).float() * ratio
    top = round((side - round(height * ratio)) / 2.0 - 0.1)
    left = round((side - round(width * ratio)) / 2.0 - 0.1)
    x1, y1, x2, y2 = (box + torch.tensor([left, top, left, top])).unbind()
    return torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]) / side


DATASETS = dict(unc='xywh', gref_umd='xywh', referit='xyxy', flickr='xyxy')


@pytest.mark.parametrize('name', ['{}_train_pseudo', '1_{}_train_pseudo_0_5'])
@pytest.mark.parametrize('dataset', DATASETS)
def test_the_official_loader_gets_what_was_in_its_list(tmp_path, dataset, name):
    """Also where a side is an integer and its corners are none in float32."""
    rng = np.random.default_rng(0)
    boxes = rng.integers(1, 60_000, (3000, 4)) / 100
    boxes[::2, 2:] = np.floor(boxes[::2, 2:])
    boxes[::3] = np.floor(boxes[::3])
    if DATASETS[dataset] == 'xyxy':
        boxes[:, 2:] += boxes[:, :2]
    boxes = boxes.round(2)
    path = tmp_path / f'{dataset}_train_pseudo.pth'  # a name that all versions know
    rows = [[f'{i}.jpg', box, f'a{i}'] for i, box in enumerate(boxes.tolist())]
    if dataset != 'flickr':
        rows = [[i, PLACEHOLDER, box, text, PLACEHOLDER] for i, box, text in rows]
    torch.save(rows, path)
    back = tmp_path / 'back' / f'{name.format(dataset)}.pth'
    write_selection(read_annotations(path), back)
    written = torch.load(back, weights_only=True)
    assert written == rows  # every number, to its last digit
    for index in range(0, 3000, 100):
        assert official_item(written, dataset, index) == (
            official_item(rows, dataset, index)
        )


@pytest.mark.parametrize('dataset', ['unc', 'flickr'])
@pytest.mark.parametrize('side', [224, 336])
def test_tensors_are_the_labels_box_and_the_prediction_as_the_official_code_has_them(
    tmp_path, dataset, side
):
    rng = np.random.default_rng(1)
    sizes = [(330, 640), (640, 331), (500, 500), (100, 37), (480, 641)]
    labels, predicted, expected = [], [], []
    for number, (height, width) in enumerate(sizes * 4):
        corners = np.sort(rng.random((2, 2)), 0) * (width - 2, height - 2) + (0, 1)
        box = corners.ravel().astype(np.float32).tolist()
        labels.append(
            dict(image=f'{number}.jpg', bbox=box, text='a', height=height, width=width)
        )
        predicted.append(rng.random(4) * width)
        left, top, right, bottom = box
        true = [int(left), int(top), int(right), int(bottom)]
        if dataset == 'unc':
            whole = int(round(right - left, 4)), int(round(bottom - top, 4))
            true[2:] = true[0] + whole[0], true[1] + whole[1]
        expected.append(
            [
                official_frame(true, height, width, side),
                official_frame(predicted[-1], height, width, side),
            ]
        )
    path = tmp_path / f'{dataset}_train_pseudo_iou_result.pth'
    values = np.linspace(0, 1, len(labels), dtype=np.float32)
    write_iou_result(labels, values, np.array(predicted), path, input_size=side)
    entries = torch.load(path, weights_only=True)
    for entry, tensors, value in zip(entries, expected, values, strict=True):
        assert len(entry) == 7 and entry[-1] == value
        for saved, tensor in zip(entry[4:6], tensors, strict=True):
            torch.testing.assert_close(saved, tensor, atol=1e-6, rtol=0)
            assert saved.untyped_storage().nbytes() == 16


def test_sizes_come_from_the_images_where_labels_do_not_say_them(tmp_path):
    labels = [dict(label, height=None, width=None) for label in LABELS]
    path = tmp_path / 'unc_iou_result.pth'
    with pytest.raises(ValueError, match=r'size of a.jpg.*--images'):
        write_iou_result(labels, VALUES, PREDICTED, path)
    for label in LABELS:
        Image.new('RGB', (640, 330)).save(tmp_path / label['image'])
    write_iou_result(labels, VALUES, PREDICTED, path, images=tmp_path)
    write_iou_result(LABELS, VALUES, PREDICTED, tmp_path / 'unc_2.pth')
    saved, expected = (
        torch.load(p, weights_only=True) for p in (path, tmp_path / 'unc_2.pth')
    )
    for one, other in zip(saved, expected, strict=True):
        assert torch.equal(one[4], other[4]) and torch.equal(one[5], other[5])


def test_reads_an_entry_as_the_format_page_gives_it(tmp_path):
    entry = ['i.jpg', 'useless placeholder', [1, 2, 3, 4], 'it']
    entry += [torch.zeros(4), torch.zeros(4), 0.4586]
    torch.save([entry], tmp_path / 'r.pth')
    assert read_iou_result(tmp_path / 'r.pth') == pytest.approx([0.4586])


def test_a_selection_is_a_list_of_pseudo_labels(tmp_path):
    path = tmp_path / 'unc_train_refine_0_5.pth'
    write_selection(LABELS[1:], path)
    table = read_annotations(path)
    assert len(table) == 1
    assert table[0]['bbox'] == LABELS[1]['bbox']
    assert table[0]['source'] == 'pseudo'
    with pytest.raises(FileExistsError):
        write_selection(LABELS, path)


@pytest.mark.parametrize('last', [1.5, 'high', None, -0.1])
def test_a_wrong_reliability_is_named(tmp_path, last):
    entry = ['i.jpg', 'p', [1, 2, 3, 4], 'it', 0, 0, last]
    torch.save([entry], tmp_path / 'r.pth')
    with pytest.raises(ValueError, match='entry 0'):
        read_iou_result(tmp_path / 'r.pth')


def test_labels_without_reliability_or_prediction_are_counted(tmp_path):
    path = tmp_path / 'unc_iou_result.pth'
    with pytest.raises(ValueError, match='1 labels are not scored'):
        write_iou_result(LABELS, np.array([np.nan, 0.5]), PREDICTED, path)
    with pytest.raises(ValueError, match='2 labels have no predicted box'):
        write_iou_result(LABELS, VALUES, np.full((2, 4), np.nan), path)


class Hostile:
    def __reduce__(self):
        return print, ('run',)


def test_nothing_in_the_file_is_run(tmp_path, capsys):
    torch.save([Hostile()], tmp_path / 'r.pth', pickle_module=pickle)
    with pytest.raises(UnsafePickleError, match='print'):
        read_iou_result(tmp_path / 'r.pth')
    assert 'run' not in capsys.readouterr().out
