"""The site builds without a warning, and pages say what the code says."""

import argparse
import ast
import importlib
import importlib.util
import re
import sys
from functools import cache
from pathlib import Path

import pytest

from .helpers import ROOT
from .helpers.commands import run
from .helpers.pages import EXTRAS, blocks, load

MESSAGES = list(blocks('text'))
OPTIONS = [
    str(path.relative_to(ROOT))
    for folder in ('tools', 'demo')
    for path in sorted((ROOT / folder).rglob('*.py'))
]
ROOMS = ('apis', 'datasets', 'engine', 'evaluation', 'models')


@cache
def literals(files):
    """The strings of files, what an f-string fills in as a NUL."""
    found = []
    for file in files:
        tree = ast.parse(Path(file).read_text())
        inner = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                inner.update(node.values)
                parts = (getattr(part, 'value', None) for part in node.values)
                found.append(''.join(p if isinstance(p, str) else '\0' for p in parts))
            elif isinstance(node, ast.Constant) and node not in inner:
                found.append(node.value if isinstance(node.value, str) else '')
    return [' '.join(text.split()) for text in found]


OURS = tuple(
    sorted(
        path
        for folder in ('projects', 'tools', 'demo')
        for path in (ROOT / folder).rglob('*.py')
    )
)


def fragments(message):
    """What is fixed in a quoted message, in order."""
    text = re.sub(r'^\w*(?:Error|Exception): [\'"]?', '', ' '.join(message.split()))
    return [part for part in re.split(r'\s*\.\.\.\s*', text) if re.search(r'\w', part)]


def says(literal, parts):
    """Whether a string has the parts, one after another."""
    at = 0
    for part in parts:
        at = literal.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True


@pytest.mark.parametrize('block', MESSAGES, ids=[b.place for b in MESSAGES])
def test_a_quoted_message_is_one_that_is_printed(block):
    parts = fragments(block.text)
    assert max(map(len, parts)) >= 15, 'too short to be found by'
    module = re.search(r'title="(.+)"', block.info)
    if module is None:
        files = OURS
    elif module[1] == 'Python':  # its own, or a package's that nobody has here
        return
    else:
        files = (importlib.util.find_spec(module[1]).origin,)
    assert any(says(literal, parts) for literal in literals(files)), parts


def test_a_message_that_was_changed_is_noticed():
    quoted = fragments('ValueError: ... is gone (...). Set `data_root` or `b`.')
    assert quoted == ['is gone (', '). Set `data_root` or `b`.']
    assert says('\0 is gone (\0). Set `data_root` or `b`.', quoted)
    assert not says('\0 has gone (\0). Set `data_root` or `b`.', quoted)


class _Captured(Exception):
    pass


def actions(parser):
    """The options of a parser and of its commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from actions(command)
        elif not isinstance(action, argparse._HelpAction):
            yield parser, action


@pytest.mark.parametrize('script', OPTIONS)
def test_every_option_says_what_it_is_and_its_default(script, monkeypatch):
    if script in EXTRAS:
        pytest.importorskip(EXTRAS[script])

    def capture(parser, *_):
        raise _Captured(parser)

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', capture)
    monkeypatch.setattr('sys.argv', [script])
    with pytest.raises(_Captured) as caught:
        load(script).parse_args()
    for parser, action in actions(caught.value.args[0]):
        name = '/'.join(action.option_strings) or action.dest
        assert action.help, f'{script}: {name}'
        if action.default not in (None, False, argparse.SUPPRESS):
            said = action.help == argparse.SUPPRESS or 'default' in action.help.lower()
            shown = parser.formatter_class is argparse.ArgumentDefaultsHelpFormatter
            assert said or shown, f'{script}: {name} is {action.default}'


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    for name in ('mkdocs', 'material', 'mkdocstrings_handlers.python'):
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp('site')
    # Without the theme's news of its own future.
    done = run(
        *(sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', folder),
        NO_MKDOCS_2_WARNING='1',
    )
    assert 'WARNING' not in done.stdout + done.stderr
    return folder


def test_the_site_builds_and_needs_nothing_from_elsewhere(site):
    pages = list(site.rglob('*.html'))
    assert len(pages) > 30
    for page in pages:
        text = page.read_text()
        fetched = re.findall(r'<(?:script|img|iframe)[^>]*\bsrc="?(http[^" >]+)', text)
        fetched += re.findall(r'<link[^>]*\bhref="?(http[^" >]+)', text)
        assert fetched == [], page.name
    assert not list(site.rglob('*.py'))


def test_the_api_pages_have_all_that_is_exported(site):
    from mkdocstrings import Inventory

    with (site / 'objects.inv').open('rb') as file:
        known = set(Inventory.parse_sphinx(file))
    exported = {
        f'projects.clip_vg.{room}.{name}'
        for room in ROOMS
        for name in importlib.import_module(f'projects.clip_vg.{room}').__all__
    }
    shown = {name.rpartition('.')[2] for name in known}
    assert {name for name in exported if name.rpartition('.')[2] not in shown} == set()


def test_roles_of_docstrings_are_not_shown(site):
    for page in (site / 'api').glob('*.html'):
        assert not re.search(r':(?:obj|func|class|meth):', page.read_text()), page.name
