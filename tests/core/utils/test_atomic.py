"""A file is replaced as a whole, or stays as it was."""

import pytest

from projects.clip_vg_core.utils.atomic import replacing


def test_the_file_is_there_when_all_is_written(tmp_path):
    path = tmp_path / 'a.json'
    path.write_text('old')
    with replacing(path) as partial:
        partial.write_text('new')
        assert path.read_text() == 'old'
        assert partial.suffix == '.json'
    assert path.read_text() == 'new'
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_it_as_it_was(tmp_path):
    path = tmp_path / 'a.json'
    path.write_text('old')
    with pytest.raises(KeyboardInterrupt), replacing(path) as partial:
        partial.write_text('ne')
        raise KeyboardInterrupt
    assert path.read_text() == 'old'
