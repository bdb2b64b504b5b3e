"""Docs name what there is: configs, tools, links."""

import re

import pytest

from .helpers import ROOT

PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page):
    text = page.read_text()
    folders = 'configs|tools|projects|docs|demo|benchmarks'
    named = set(
        re.findall(
            rf'(?<![\w./-])((?:{folders})/[\w./+-]+\.\w+)',
            re.sub(r'\]\([^)]*\)', ']', text),  # links are relative to the page
        )
    )
    named |= {f'configs/{name}' for name in re.findall(r'`(clip_vg_[\w-]+\.py)`', text)}
    linked = re.findall(r'\]\((?!http)([\w./-]+)\)', text)
    missing = {name for name in named if not (ROOT / name).exists()}
    missing |= {link for link in linked if not (page.parent / link).exists()}
    assert missing == set()


def test_files_that_commands_of_ours_name_exist():
    for place in ('Makefile', '.ci/oldest', '.ci/run', 'pyproject.toml'):
        text = (ROOT / place).read_text()
        named = set(
            re.findall(r'(?<![\w./-])((?:tests|tools|docs)/[\w./-]+\.\w+)', text)
        )
        assert {name for name in named if not (ROOT / name).exists()} == set(), place


def test_every_config_is_documented():
    text = (ROOT / 'docs/configs.md').read_text()
    configs = {path.name for path in (ROOT / 'configs').glob('*.py')}
    assert {name for name in configs if f'`{name}`' not in text} == set()


def test_no_path_of_a_machine_is_in_the_repository():
    suspicious = re.compile(r'/(?:home|root|work|Users)/\w')
    folders = ('projects', 'configs', 'tools', 'docs', 'tests', 'demo', 'benchmarks')
    files = [path for path in ROOT.iterdir() if path.is_file()]
    files += [path for folder in folders for path in (ROOT / folder).rglob('*')]
    texts = {'.py', '.md', '.yml', '.toml', '.sh', '.txt', ''}
    for path in files:
        if path.is_file() and path.suffix in texts and path.name != 'test_docs.py':
            assert not suspicious.search(path.read_text()), path
