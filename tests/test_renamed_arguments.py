"""Arguments and options that were renamed: scripts take them, the docs list them."""

import re

import pytest

from projects.clip_vg.checkpoints.renamed_options import RENAMED_OPTIONS
from projects.clip_vg_core.utils.command_line import RENAMED_ARGUMENTS

from .helpers import ROOT
from .helpers.pages import load

PAGE = ROOT / 'docs' / 'configs.md'


@pytest.mark.parametrize('key', RENAMED_ARGUMENTS)
def test_a_script_has_the_names_of_today_and_accepts_the_old(key, monkeypatch):
    script, _, command = key.partition(' ')
    captured = []
    module = load(script)
    monkeypatch.setattr(
        module, 'parse_command', lambda *args: captured.append(args) or exit()
    )
    with pytest.raises(SystemExit):
        module.parse_args()
    ((parser, name, *_),) = captured
    assert name == script
    if command:
        parser = parser._subparsers._group_actions[0].choices[command]
    options = parser._option_string_actions
    for old, new in RENAMED_ARGUMENTS[key].items():
        assert new in options
        assert old not in options
        positional = not old.startswith('--')
        assert options[new].required is False or not positional


def rows(heading):
    """The cells of the table under a heading, of code alone."""
    section = PAGE.read_text().split(f'\n## {heading}\n')[1].split('\n## ')[0]
    for line in section.splitlines():
        if line.startswith('| `'):
            yield tuple(re.findall(r'`([^`]+)`', line))


def test_the_docs_list_what_was_renamed():
    arguments = {
        (key, old, new)
        for key, renamed in RENAMED_ARGUMENTS.items()
        for old, new in renamed.items()
    }
    options = {
        (kind, old, new)
        for kind, renamed in RENAMED_OPTIONS.items()
        for old, new in renamed.items()
    }
    listed = list(rows('Options that were renamed'))
    assert len(listed) == len(set(listed))
    assert set(listed) == arguments | options
