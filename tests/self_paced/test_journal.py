"""The journal: whole lines, one writer, the same settings."""

import pytest

from projects.clip_vg.self_paced.journal import Journal

SETTINGS = dict(strategy='greedy', start=0.5)


def test_what_is_done_is_there_again(tmp_path):
    path = tmp_path / 'journal.jsonl'
    first = Journal(path, SETTINGS)
    first.done('a', score=0.5)
    first.close()
    second = Journal(path, SETTINGS)
    assert second.steps == {'a': dict(step='a', score=0.5)}
    second.done('b')
    second.close()
    assert list(Journal(path, SETTINGS).steps) == ['a', 'b']


def test_a_line_cut_by_a_kill_is_as_if_not_written(tmp_path):
    path = tmp_path / 'journal.jsonl'
    journal = Journal(path, SETTINGS)
    journal.done('a', score=0.5)
    journal.close()
    whole = path.read_bytes()
    for length in range(len(whole) - 20, len(whole)):
        path.write_bytes(whole[:length])
        again = Journal(path, SETTINGS)
        assert again.steps == {}
        again.done('a', score=0.5)
        again.close()
        assert path.read_bytes() == whole


def test_two_at_once_are_refused(tmp_path):
    journal = Journal(tmp_path / 'journal.jsonl', SETTINGS)
    with pytest.raises(RuntimeError, match='in use'):
        Journal(tmp_path / 'journal.jsonl', SETTINGS)
    journal.close()


def test_other_settings_are_named(tmp_path):
    Journal(tmp_path / 'journal.jsonl', SETTINGS).close()
    with pytest.raises(ValueError, match=r'start was 0.5, is 0.4.*another --work-dir'):
        Journal(tmp_path / 'journal.jsonl', dict(SETTINGS, start=0.4))


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / 'journal.jsonl'
    Journal(path, SETTINGS).close()
    path.write_text(path.read_text() + 'nonsense\n')
    with pytest.raises(ValueError, match=r'journal.jsonl, line 2 is not valid JSON'):
        Journal(path, SETTINGS)
