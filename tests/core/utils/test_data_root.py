"""The folder of the data is replaced in every loader."""

import pytest

from projects.clip_vg_core.utils.data_root import replace_data_root


def test_all_loaders_read_from_the_folder():
    cfg = dict(
        train_dataloader=dict(dataset=dict(type='A', data_root='a/', ann_file='x')),
        val_dataloader=dict(dataset=dict(type='A')),
        test_dataloader=None,
        data_root='a/',
    )
    replace_data_root(cfg, 'b')
    assert cfg == dict(
        train_dataloader=dict(dataset=dict(type='A', data_root='b', ann_file='x')),
        val_dataloader=dict(dataset=dict(type='A', data_root='b')),
        test_dataloader=None,
        data_root='a/',
    )


def test_wrapped_data_sets_are_reached():
    inner = [dict(type='A', data_root='a'), dict(type='B', data_root='a')]
    wrapped = dict(
        type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=inner)
    )
    cfg = dict(train_dataloader=dict(dataset=wrapped))
    replace_data_root(cfg, 'b')
    assert [data['data_root'] for data in inner] == ['b', 'b']
    assert 'data_root' not in wrapped and 'data_root' not in wrapped['dataset']


@pytest.mark.parametrize('cfg', [{}, dict(test_dataloader=dict(batch_size=1))])
def test_a_config_without_data_is_refused(cfg):
    with pytest.raises(ValueError, match='--data-root here'):
        replace_data_root(cfg, 'here')
