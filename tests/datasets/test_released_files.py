"""The release's files of reliability and selections, there and back."""

import pickle

import numpy as np
import pytest
import torch

from projects.clip_vg.datasets.readers import read_annotations
from projects.clip_vg.datasets.readers.released_files import (
    read_iou_result,
    write_iou_result,
    write_selection,
)
from projects.clip_vg.safe_pickle import UnsafePickleError

LABELS = [
    dict(image='a.jpg', bbox=[10.0, 20.0, 40.0, 60.0], text='left man'),
    dict(image='b.jpg', bbox=[0.0, 5.0, 9.0, 8.0], text='red car'),
]
VALUES = np.array([0.25, 1.0], np.float32)
ANSWERS = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)


@pytest.mark.parametrize('name', ['unc_train', 'referit_train'])
def test_round_trip_with_the_boxes_of_each_data_set(tmp_path, name):
    path = tmp_path / f'{name}_iou_result.pth'
    write_iou_result(LABELS, VALUES, ANSWERS, path)
    assert read_iou_result(path).tolist() == VALUES.tolist()
    table = read_annotations(path)
    assert [table[i]['bbox'] for i in (0, 1)] == [label['bbox'] for label in LABELS]
    assert [table[i]['text'] for i in (0, 1)] == ['left man', 'red car']


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


def test_labels_without_reliability_are_counted(tmp_path):
    values = np.array([np.nan, 0.5])
    with pytest.raises(ValueError, match='1 labels are not scored'):
        write_iou_result(LABELS, values, ANSWERS, tmp_path / 'unc_iou_result.pth')


class Hostile:
    def __reduce__(self):
        return print, ('run',)


def test_nothing_in_the_file_is_run(tmp_path, capsys):
    torch.save([Hostile()], tmp_path / 'r.pth', pickle_module=pickle)
    with pytest.raises(UnsafePickleError, match='print'):
        read_iou_result(tmp_path / 'r.pth')
    assert 'run' not in capsys.readouterr().out
