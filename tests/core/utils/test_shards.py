"""Which shard a process has, and folders of shards: bound to what they are made of."""

import json

import pytest

from projects.clip_vg_core.utils.folder_lock import lock_folder
from projects.clip_vg_core.utils.shards import Shards, parse_shard, shard_range

STARTERS = (
    *('RANK', 'WORLD_SIZE', 'SLURM_PROCID', 'SLURM_STEP_NUM_TASKS'),
    *('SLURM_ARRAY_TASK_ID', 'SLURM_ARRAY_TASK_MIN', 'SLURM_ARRAY_TASK_COUNT'),
    *('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE'),
)


@pytest.mark.parametrize('count', [0, 1, 5, 16])
@pytest.mark.parametrize('total', [1, 3, 7])
@pytest.mark.parametrize('batch_size', [1, 4])
def test_shards_cover_everything_once_in_whole_batches(count, total, batch_size):
    ranges = [shard_range(count, (i, total), batch_size) for i in range(1, total + 1)]
    assert [i for part in ranges for i in part] == list(range(count))
    assert all(part.start % batch_size == 0 for part in ranges if part)


@pytest.mark.parametrize(
    ('variables', 'expected'),
    [
        (dict(RANK='0', WORLD_SIZE='4'), (1, 4)),
        (dict(RANK='3', WORLD_SIZE='4'), (4, 4)),
        (dict(SLURM_PROCID='2', SLURM_STEP_NUM_TASKS='3'), (3, 3)),
        (dict(OMPI_COMM_WORLD_RANK='1', OMPI_COMM_WORLD_SIZE='2'), (2, 2)),
        (
            dict(
                SLURM_ARRAY_TASK_ID='7',
                SLURM_ARRAY_TASK_MIN='5',
                SLURM_ARRAY_TASK_COUNT='4',
            ),
            (3, 4),
        ),
        (  # an array of jobs of two processes each
            dict(
                SLURM_ARRAY_TASK_ID='1',
                SLURM_ARRAY_TASK_MIN='0',
                SLURM_ARRAY_TASK_COUNT='3',
                SLURM_PROCID='1',
                SLURM_STEP_NUM_TASKS='2',
            ),
            (4, 6),
        ),
    ],
)
def test_a_process_is_numbered_by_what_started_it(monkeypatch, variables, expected):
    for name in STARTERS:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match='--shard auto'):
        parse_shard('auto')
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert parse_shard('auto') == expected


@pytest.mark.parametrize('text', ['0/8', '9/8', '1', '1/0', 'x/8', '-1/8', ''])
def test_numbers_that_are_no_shard(text):
    with pytest.raises(ValueError, match=f'--shard {text}'):
        parse_shard(text)


def test_an_array_with_gaps_is_refused(monkeypatch):
    for name, value in (('ID', '9'), ('MIN', '1'), ('COUNT', '5')):
        monkeypatch.setenv(f'SLURM_ARRAY_TASK_{name}', value)
    with pytest.raises(ValueError, match='task 9'):
        parse_shard('auto')


def test_parts_of_other_settings_or_numbers_are_refused(tmp_path):
    shards = Shards(tmp_path / 'out')
    shards.begin(dict(seed=1, sizes=(1, 2)), 3)
    shards.begin(dict(seed=1, sizes=(1, 2)), 3)  # another process
    for settings, total, named in (
        (dict(seed=2, sizes=(1, 2)), 3, 'seed was 1, is 2'),
        (dict(seed=1, sizes=(1, 2)), 4, 'shards was 3, is 4'),
    ):
        with pytest.raises(ValueError, match=named):
            shards.begin(settings, total)
    with pytest.raises(ValueError, match='seed was 1, is 2'):
        shards.resume(dict(seed=2, sizes=(1, 2)))
    assert shards.resume(dict(seed=1, sizes=(1, 2)))
    shards.begin(dict(seed=2), 4, overwrite=True)
    assert shards.total() == 4


def test_a_part_that_is_being_made_is_not_removed(tmp_path):
    shards = Shards(tmp_path / 'out')
    shards.begin({}, 2)
    with (
        lock_folder(shards.part(2), every_process=True),
        pytest.raises(RuntimeError, match='2 is in use'),
    ):
        shards.begin(dict(seed=2), 2, overwrite=True)
    assert shards.missing() == [1, 2]
    shards.part(1).mkdir(exist_ok=True)
    shards.finish(1)
    assert shards.missing() == [2]


def test_damaged_settings_name_their_file(tmp_path):
    shards = Shards(tmp_path / 'out')
    shards.begin({}, 2)
    path = shards.folder / 'settings.json'
    assert json.loads(path.read_text()) == dict(shards=2)
    path.write_text('{')
    with pytest.raises(ValueError, match='settings.json'):
        shards.begin({}, 2)
