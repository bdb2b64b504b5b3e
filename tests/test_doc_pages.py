"""The site builds without a warning, and pages say what the code says."""

import argparse
import ast
import importlib
import importlib.util
import re
import subprocess
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
    for folder in ('tools', 'demo', 'benchmarks')
    for path in sorted((ROOT / folder).rglob('*.py'))
    if 'def parse_args' in path.read_text()
]
ROOMS = ('apis', 'datasets', 'engine', 'evaluation', 'models')


@cache
def literals(files):
    """The sentences in files, what an f-string fills in as a NUL."""
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
            elif isinstance(node, ast.Expr):  # a docstring is no message
                inner.add(node.value)
    return [' '.join(text.split()) for text in found if ' ' in text]


OURS = tuple(
    sorted(
        path
        for folder in ('projects', 'tools', 'demo')
        for path in (ROOT / folder).rglob('*.py')
    )
)


# Names in a message: `code`, --options, dotted and snake_case, CamelCase, name=.
NAMES = re.compile(
    r'`[^`]+`|--[a-z-]+|\b\w+(?:[._]\w+)+|\b[A-Z]+[a-z]+[A-Z]\w*|\b\w+=(?=\0)'
)


def fragments(message):
    """What must be found of a quoted message, in order: names, else its words."""
    text = re.sub(r'^\w*(?:Error|Exception): [\'"]?', '', ' '.join(message.split()))
    text = re.sub(r'\s*\.\.\.\s*', '\0', text)
    words = [part for part in text.split('\0') if re.search(r'\w', part)]
    return NAMES.findall(text) or words


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
    assert max(map(len, parts)) >= 5, 'too short to be found by'
    module = re.search(r'title="(.+)"', block.info)
    if module is None:
        files = OURS
    elif module[1] == 'Python':  # its own, or a package's that nobody has here
        return
    else:
        files = (importlib.util.find_spec(module[1]).origin,)
    assert any(says(literal, parts) for literal in literals(files)), parts


def test_names_are_looked_for_and_words_where_there_are_none():
    quoted = fragments('ValueError: ... is gone (...). Set `data_root` or a.b.')
    assert quoted == ['`data_root`', 'a.b']
    assert says('\0 has left (\0): give `data_root` or a.b.', quoted)
    assert not says('\0 is gone (\0). Set `root` or a.b.', quoted)
    quoted = fragments('ValueError: ... is gone from ...')
    assert quoted == ['is gone from']
    assert fragments('clip=... of SlimCheckpointHook') == [
        'clip=',
        'SlimCheckpointHook',
    ]


class _Captured(Exception):
    pass


def actions(parser):
    """The options of a parser and of its commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from actions(command)
        elif not isinstance(action, argparse._HelpAction):
            yield action


@pytest.mark.parametrize('script', OPTIONS)
def test_every_help_has_an_example_and_every_option_its_default(script, monkeypatch):
    if script in EXTRAS:
        pytest.importorskip(EXTRAS[script])

    def capture(parser, *_):
        raise _Captured(parser)

    # Which parse_args calls, and so does parse_command.
    monkeypatch.setattr(argparse.ArgumentParser, 'parse_known_args', capture)
    monkeypatch.setattr('sys.argv', [script])
    with pytest.raises(_Captured) as caught:
        load(script).parse_args()
    parser = caught.value.args[0]
    assert re.search(rf'^    python {script}\b', parser.description, re.M)
    for action in actions(parser):
        name = '/'.join(action.option_strings) or action.dest
        assert action.help, f'{script}: {name}'
        if action.help == argparse.SUPPRESS:
            continue
        assert len(action.help.split()) > 1, f'{script}: {name}'
        if action.option_strings and not action.required:
            said = re.search(r'default|\(required\)', action.help.lower())
            assert said, f'{script}: {name} is {action.default}'


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


@pytest.mark.parametrize(
    'origin, link',
    [
        ('https://example.org/us/repo.git', 'https://example.org/us/repo'),
        ('git@example.org:us/repo.git', None),
        ('https://user:word@example.org/us/repo', None),  # nobody's password
        ('', None),
    ],
)
def test_the_site_links_to_where_it_was_cloned_from(origin, link, monkeypatch):
    path = ROOT / 'docs/site_hooks.py'
    spec = importlib.util.spec_from_file_location('site_hooks', path)
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    done = subprocess.CompletedProcess([], 0, f'{origin}\n')
    monkeypatch.setattr(hooks.subprocess, 'run', lambda *_, **__: done)
    assert hooks.on_config({}).get('repo_url') == link


def test_roles_of_docstrings_are_not_shown(site):
    for page in (site / 'api').glob('*.html'):
        assert not re.search(r':(?:obj|func|class|meth):', page.read_text()), page.name
