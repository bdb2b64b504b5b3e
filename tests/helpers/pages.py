"""The code blocks of the pages that users read, and the commands in them."""

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from . import ROOT

PAGES = [
    ROOT / 'README.md',
    ROOT / 'CONTRIBUTING.md',
    *sorted((ROOT / 'docs').rglob('*.md')),
]
# What a script needs that is no dependency of ours.
EXTRAS = {'demo/app.py': 'gradio_client'}  # it comes with Gradio
_FENCED = re.compile(r'^```([^\n`]*)\n(.*?)^```$', re.MULTILINE | re.DOTALL)
# Said for this folder, seen from another.
_HERE = 'PATH/OF/THIS/REPOSITORY/'
_COMMAND = re.compile(r'(\w+=\S*\s+)*(python|make|bash|torchrun)\s')


class Block(NamedTuple):
    """A fenced block: where it is, what its fence says, and what is in it."""

    place: str
    info: str
    text: str


def blocks(*languages: str) -> Iterator[Block]:
    """The blocks of all pages in one of the languages; '' are those without one."""
    for page in PAGES:
        text = page.read_text().replace(_HERE, '')
        for found in _FENCED.finditer(text):
            language, _, info = found[1].partition(' ')
            if language in languages:
                line = text.count('\n', 0, found.start()) + 1
                yield Block(f'{page.relative_to(ROOT)}:{line}', info, found[2])


def commands() -> Iterator[tuple[str, list[str]]]:
    """Where each command stands, and its words without variables before them."""
    for block in blocks('', 'bash'):
        for line in block.text.replace('\\\n', ' ').splitlines():
            for part in re.split(r'&&|;|\|', line):
                if _COMMAND.match(part.strip() + ' '):
                    words = shlex.split(part, comments=True)
                    while '=' in words[0]:
                        words.pop(0)
                    yield block.place, words


def scripts() -> Iterator[tuple[str, str, list[str]]]:
    """Where each call of a script of ours stands, the script, its arguments."""
    for place, words in commands():
        at = next((i for i, w in enumerate(words) if w.endswith(('.py', '.sh'))), None)
        if words[0] != 'make' and at is not None and not words[at].startswith('$'):
            yield place, words[at], words[at + 1 :]


@cache
def load(script):
    """The module of a script, which finds those beside it."""
    name = 'doc_' + script.removesuffix('.py').replace('/', '_')
    spec = importlib.util.spec_from_file_location(name, ROOT / script)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look themselves up
    sys.path.insert(0, str((ROOT / script).parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module
