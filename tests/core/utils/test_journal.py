"""The journal: whole lines, the same settings, and journals of earlier versions."""

import json

import pytest

from projects.clip_vg_core.utils.resumable import append_line, read_journal

SETTINGS = dict(strategy='greedy', start=0.5, order=('a', 'b'))


def test_finished_steps_are_read_again(tmp_path):
    path = tmp_path / 'journal.jsonl'
    assert read_journal(path, SETTINGS) == {}
    append_line(path, dict(step='a', score=0.5))
    assert read_journal(path, SETTINGS) == {'a': dict(step='a', score=0.5)}
    append_line(path, dict(step='b'))
    assert list(read_journal(path, SETTINGS)) == ['a', 'b']


def test_a_line_cut_by_a_kill_is_as_if_not_written(tmp_path):
    path = tmp_path / 'journal.jsonl'
    read_journal(path, SETTINGS)
    line = dict(step='ä', score=0.5)
    append_line(path, line)
    whole = path.read_bytes()
    for length in range(len(whole) - 20, len(whole)):
        path.write_bytes(whole[:length])
        assert read_journal(path, SETTINGS) == {}
        append_line(path, line)
        assert path.read_bytes() == whole
    # Cut within the settings: nothing was done yet.
    path.write_bytes(whole[:20])
    assert read_journal(path, SETTINGS) == {}
    assert json.loads(path.read_text()) == dict(
        settings=json.loads(json.dumps(SETTINGS))
    )


def test_a_journal_of_version_0_1_goes_on(tmp_path):
    path = tmp_path / 'journal.jsonl'
    # As that version wrote it.
    path.write_text(
        '{"settings": {"strategy": "greedy", "start": 0.5, "order": ["a", "b"]}}\n'
        '{"step": "measurer_a", "score": 0.25, "checkpoint": "x.pth", "seconds": 1.5}\n'
        '{"step": "score_a"}\n'
    )
    steps = read_journal(path, SETTINGS)
    assert list(steps) == ['measurer_a', 'score_a']
    assert steps['measurer_a']['score'] == 0.25


def test_other_settings_are_named(tmp_path):
    path = tmp_path / 'journal.jsonl'
    read_journal(path, SETTINGS)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf'{path}.*start.*0\.5.*0\.4.*--overwrite'):
        read_journal(path, dict(SETTINGS, start=0.4))
    assert path.read_bytes() == before


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / 'journal.jsonl'
    read_journal(path, SETTINGS)
    path.write_text(path.read_text() + 'nonsense\n')
    with pytest.raises(ValueError, match=rf'{path}, line 2'):
        read_journal(path, SETTINGS)
