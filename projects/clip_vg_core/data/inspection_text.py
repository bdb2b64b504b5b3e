"""An inspected annotation file, for a terminal."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from .inspection import Inspection
from .label_checks import Problem

__all__ = [
    'by_weight',
    'facts_of',
    'format_inspection',
    'format_problems',
    'split_table',
]

_WIDTH = 88
_COLUMNS = ('labels', 'images', 'expressions', 'objects', 'none', 'one', 'several')


def format_inspection(found: Inspection) -> str:
    """All that was found in a file, but for its problems."""
    if found.table is None:
        return found.name
    heads, rows = split_table(found)
    wide = max(len(name) for name, *_ in [heads, *rows])
    table = [
        f'  {name:<{wide}}' + ''.join(f'{cell:>11}' for cell in cells)
        for name, *cells in [heads, *rows]
    ]
    facts = [f'  {name}: {text}' for name, text in facts_of(found)]
    return '\n'.join([found.name, *table, *map(_wrapped, facts)])


def facts_of(found: Inspection) -> list[tuple[str, str]]:
    """Names and words of what was found, but for the numbers of splits."""
    facts = [('layout', f'{found.layout}, {found.title}')]
    if published := _describe_published(found):
        facts.append(('published set', published))
    sources = ', '.join(f'{name} {n:,}' for name, n in found.sources.items())
    facts.append(('sources', sources))
    if found.manifest:
        facts += _manifest_facts(found.manifest)
    facts += [('words', _length_fact(found)), *_box_facts(found)]
    if found.images:
        facts.append(('images', _image_fact(found)))
    return facts


def _wrapped(line: str) -> str:
    return textwrap.fill(
        line,
        _WIDTH,
        subsequent_indent='      ',
        break_long_words=False,
        break_on_hyphens=False,
    )


def split_table(found: Inspection) -> tuple[list[str], list[list[str]]]:
    """Numbers of each split and of all: heads of columns, and rows."""
    parts = dict(found.splits)
    if len(parts) > 1:
        parts['total'] = found.total
    heads = ['labels', 'images', 'texts', 'objects', 'no target', 'one', 'several']
    rows = [
        [name, *(f'{part[column]:,}' for column in _COLUMNS)]
        for name, part in parts.items()
    ]
    return ['split', *heads], rows


def _length_fact(found: Inspection) -> str:
    """How long the expressions are."""
    lengths = found.lengths
    return (
        f'mean {lengths["mean"]}, half up to {lengths["p50"]:g}, 95 % up to '
        f'{lengths["p95"]:g}, 99 % up to {lengths["p99"]:g}, longest '
        f'{lengths["longest"]}; {lengths["cut"]:,} expressions '
        f"({lengths['cut'] / found.total['labels']:.1%}) are longer than CLIP's 77 "
        'tokens (estimated)'
    )


def _box_facts(found: Inspection) -> list[tuple[str, str]]:
    """What the boxes are, why, and what speaks against each reading."""
    boxes = found.boxes
    what = 'not settled, see the errors'
    if boxes['format']:
        what = f'{boxes["format"]}, unit {boxes["unit"]}: {boxes["why"]}'
    largest = 'none' if boxes['largest'] is None else f'{boxes["largest"]:g}'
    units: dict[str, list[str]] = {}
    for reading in boxes['readings']:
        count = f'{reading["format"]} {reading["contradicted"]:,}'
        units.setdefault(reading['unit'], []).append(count)
    counts = '; '.join(
        f'{f"0 to {unit}" if unit.isdigit() else unit} {", ".join(numbers)}'
        for unit, numbers in units.items()
    )
    return [
        ('boxes', what),
        (
            'boxes that would be empty or pass the border',
            f'{counts} (of {boxes["total"]:,}, {boxes["sized"]:,} of images of known '
            f'size; largest number {largest})',
        ),
    ]


def _image_fact(found: Inspection) -> str:
    """Whether the images are there."""
    images = found.images
    parts = [f'{images["missing"]:,} missing', f'{images["renamed"]:,} by another name']
    if 'looked' in images:
        parts.append(
            f'of {images["looked"]:,} looked into, {images["turned"]:,} turned by EXIF '
            f'and {images["other_size"]:,} of another size than the file says'
        )
    return ', '.join(parts)


def _manifest_facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How pseudo-labels were made."""
    facts = [
        (
            'pseudo-labels',
            f'{manifest["generator"]}, version {manifest["generator_version"]}, '
            f'source {manifest["source"]}',
        )
    ]
    for name, key in (('rules', 'rules'), ('left out', 'left_out')):
        if manifest[key]:
            numbers = (f'{rule} {count:,}' for rule, count in manifest[key].items())
            facts.append((name, ', '.join(numbers)))
    return facts


def _describe_published(found: Inspection) -> str:
    """Which published set it is, and what of it."""
    match = found.published
    if match is None:
        return ''
    if match.complete and not match.others and not match.absent:
        return f'{match.name}, complete'
    parts = []
    if match.complete:
        parts.append(f'{", ".join(match.complete)} complete')
    parts += [
        f'{split} {n:,} of {known:,}' for split, (n, known) in match.others.items()
    ]
    if match.absent:
        parts.append(f'no {", ".join(match.absent)}')
    return f'{match.name}: {"; ".join(parts)}'


def by_weight(problems: Sequence[Problem]) -> list[Problem]:
    """Problems in their order, those that spoil training first."""
    return sorted(problems, key=lambda problem: not problem.spoils_training)


def format_problems(problems: Sequence[Problem]) -> str:
    """One paragraph for each problem, those that spoil training first."""
    if not problems:
        return 'no problems found'
    lines = []
    for problem in by_weight(problems):
        level = 'ERROR' if problem.spoils_training else 'warning'
        lines.append(_wrapped(f'{level}, {problem.kind}: {problem.text}'))
    return '\n'.join(lines)
