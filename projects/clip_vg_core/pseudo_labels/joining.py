"""Predictions that models wrote for shards of images, as one file."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..utils.atomic import replacing

__all__ = ['join_captions', 'join_detections']

# An entry on a line of its own, and what follows it: another, or the end of the list.
_ENTRY = re.compile(r'(\{.*\})(?:,|\],|\]\})\n?')
_LISTS = ('"images": [', '"annotations": [')


def join_detections(parts: Sequence[Path], out: Path) -> None:
    """Put files of ``--detector`` together, to the bytes of one for all images.

    Line by line, so that no file is in memory.

    Args:
        parts (Sequence[Path]): COCO files of shards, in order.
        out (Path): The file to write.

    Raises:
        ValueError: A part is of another detector than the first, or not of ours.
    """
    heads = [_head(part) for part in parts]
    for part, head in zip(parts, heads, strict=True):
        if head != heads[0]:
            raise ValueError(
                f'{part} begins with other categories than {parts[0]}: they are of '
                'different detectors. Make the shard again.'
            )
    with replacing(out) as partial, partial.open('w', encoding='utf-8') as file:
        file.write(heads[0])
        for name, end in zip(_LISTS, ('],\n', ']}\n'), strict=True):
            file.write(name)
            comma = '\n'
            for part in parts:
                for entry in _entries(part, name):
                    file.write(comma + entry)
                    comma = ',\n'
            file.write(end)


def _head(path: Path) -> str:
    with path.open(encoding='utf-8') as file:
        return file.readline()


def _entries(path: Path, name: str) -> Iterator[str]:
    """The entries of a list of a file, as they are written."""
    inside = False
    with path.open(encoding='utf-8') as file:
        file.readline()
        for line in file:
            if line.startswith(_LISTS):
                inside = line.startswith(name)
            elif inside and (entry := _ENTRY.fullmatch(line)):
                yield entry[1]
            elif inside and line not in ('],\n', ']}\n'):
                raise ValueError(
                    f'{path}: found the line {line[:100]!r}; expected an entry of '
                    f'{name[:-3]}, as --detector writes it. Make the shard again.'
                )


def join_captions(parts: Sequence[Path], out: Path) -> None:
    """Put files of ``--captioner`` together, to the bytes of one for all images.

    Args:
        parts (Sequence[Path]): COCO caption results of shards, in order.
        out (Path): The file to write.
    """
    with replacing(out) as partial, partial.open('w', encoding='utf-8') as file:
        comma = '[\n'
        for part in parts:
            entries = part.read_text(encoding='utf-8')[2:-2]
            if entries:
                file.write(comma + entries)
                comma = ',\n'
        file.write('[]' if comma == '[\n' else '\n]')
