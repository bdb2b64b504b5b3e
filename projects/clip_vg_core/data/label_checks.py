"""What is wrong with labels whatever their boxes are: expressions and doubles."""

import os
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .label_keys import content_keys
from .label_table import LabelTable, PackedStrings

__all__ = [
    'Problem',
    'count_words',
    'find_duplicates',
    'look_at_expressions',
    'name_labels',
    'part_keys',
]

_NAMED = 3  # examples of a problem
_TEXTS, _ENOUGH = 2000, 20  # expressions that are compared, and what tells something
_SPACE = np.frombuffer(b' \t\n\r\v\f', np.uint8)
_CONTEXT = 77  # tokens of CLIP, of which two are its start and its end
# What CLIP's tokenizer cuts a text into before it cuts rare words further.
_PIECES = re.compile(r"'(?:s|t|re|ve|m|ll|d)\b|[^\W\d_]+|\d|(?:[^\s\w]|_)+")


@dataclass(frozen=True)
class Problem:
    """Something wrong with a file.

    Args:
        kind (str): E.g. 'missing images'.
        text (str): A sentence with number, examples and what to do.
        count (int): How many labels, boxes or images it is about.
        spoils_training (bool): Whether labels should not be trained on before it is
            mended. Defaults to False.
    """

    kind: str
    text: str
    count: int
    spoils_training: bool = False


def name_labels(table: LabelTable, labels: Sequence[int] | np.ndarray) -> str:
    """The first of some labels, in words."""
    shown = []
    for index in list(labels)[:_NAMED]:
        label = table[int(index)]
        boxes = table.targets(int(index)).tolist()
        numbers = [', '.join(f'{edge:g}' for edge in box) for box in boxes[:2]]
        more = f' and {len(boxes) - 2} more' if len(boxes) > 2 else ''
        where = ', '.join(f'[{box}]' for box in numbers) + more or 'no box'
        text = textwrap.shorten(label['text'], 60, placeholder='...')
        shown.append(f'{text!r} in {label["image"]}, {where}')
    return '; '.join(shown)


def part_keys(
    table: LabelTable, image: bool = True, text: bool = True, box: bool = True
) -> np.ndarray:
    """64 bits of each of N labels, equal where its parts are.

    Args:
        table (LabelTable): The labels.
        image (bool): Whether the image counts; without it boxes do not either.
            Defaults to True.
        text (bool): Whether the expression counts. Defaults to True.
        box (bool): Whether the targets count, in any order. Defaults to True.

    Returns:
        np.ndarray: uint64 (N, ).
    """
    count = len(table)
    nothing = PackedStrings(np.empty(0, np.uint8), np.zeros(count, np.int64))
    parts: dict[str, Any] = dict(sample_ids=nothing)
    if not image:
        parts['image_index'] = np.zeros(count, np.int32)
    if not text:
        parts['texts'] = nothing
    if not (box and image):
        parts['boxes'] = np.empty((0, 4), np.float32)
        parts['offsets'] = np.zeros(count + 1, np.int64)
    return content_keys(replace(table, **parts))


def count_words(texts: PackedStrings) -> np.ndarray:
    """Words of each of N strings, between white space, of shape (N, )."""
    if not len(texts.data):
        return np.zeros(len(texts), np.int64)
    word = ~np.isin(texts.data, _SPACE)
    starts = np.concatenate([[0], texts.ends[:-1]])
    begins = word & np.concatenate([[True], ~word[:-1]])
    first = starts[starts < len(word)]
    begins[first] = word[first]
    total = np.concatenate([[0], begins.cumsum()])
    return total[texts.ends] - total[starts]


def look_at_expressions(table: LabelTable) -> tuple[dict[str, Any], list[Problem]]:
    """How long expressions are, and what is wrong with them.

    Args:
        table (LabelTable): At least one label.

    Returns:
        tuple[dict, list[Problem]]: Words: ``mean``, ``p50``, ``p95``, ``p99``,
        ``longest``, ``longest_text``; ``cut``, expressions over CLIP's 77 tokens by an
        estimate. And problems.
    """
    words = count_words(table.texts)
    ends = table.texts.ends
    sizes = np.diff(np.concatenate([[0], ends]))
    # A token has a byte at least.
    long = np.flatnonzero(sizes > _CONTEXT - 2)
    cut = [
        i for i in long.tolist() if len(_PIECES.findall(table.texts[i])) > _CONTEXT - 2
    ]
    p50, p95, p99 = np.percentile(words, [50, 95, 99]).round(1).tolist()
    longest = int(words.argmax())
    lengths = dict(
        mean=round(float(words.mean()), 2),
        p50=p50,
        p95=p95,
        p99=p99,
        longest=int(words[longest]),
        longest_text=table.texts[longest][:300],
        cut=len(cut),
    )
    problems = []
    empty = np.flatnonzero(words == 0)
    if len(empty):
        text = (
            f'{len(empty):,} labels have an empty expression: '
            f'{name_labels(table, empty)}.'
        )
        problems.append(Problem('empty expressions', text, len(empty)))
    if len(cut) > 0.01 * len(table):
        text = (
            f'{len(cut):,} of {len(table):,} expressions are longer than the '
            f'{_CONTEXT} tokens of CLIP and would be cut: {name_labels(table, cut)}.'
        )
        problems.append(Problem('long expressions', text, len(cut)))
    begin = _common_beginning(table.texts)
    if begin:
        text = (
            f'All expressions begin with {begin!r}: this looks like an instruction, '
            'not a part of them. Say --instruction or --fields.'
        )
        problems.append(Problem('instruction', text, len(table), True))
    return lengths, problems


def _common_beginning(texts: PackedStrings) -> str:
    """Three words or more that all of many different expressions begin with; or ''."""
    places = np.linspace(0, len(texts) - 1, min(len(texts), _TEXTS)).astype(int)
    different = {texts[int(place)] for place in places}
    if len(different) < _ENOUGH:
        return ''
    words = os.path.commonprefix([text.split() for text in different])
    return ' '.join(words) if len(words) >= 3 else ''


def find_duplicates(table: LabelTable) -> list[Problem]:
    """Labels that come again, and expressions of one image with different targets."""
    pairs, labels = part_keys(table, box=False), part_keys(table)
    _, first_of_pair, pair = np.unique(pairs, return_index=True, return_inverse=True)
    _, first_of_label = np.unique(labels, return_index=True)
    again = np.ones(len(table), bool)
    again[first_of_label] = False
    other = ~again & (labels != labels[first_of_pair[pair]])
    problems = []
    if again.any():
        text = (
            f'{int(again.sum()):,} of {len(table):,} labels come again with the same '
            f'image, expression and boxes: {name_labels(table, np.flatnonzero(again))}.'
        )
        problems.append(Problem('duplicates', text, int(again.sum())))
    if other.any():
        text = (
            f'{int(other.sum()):,} of {len(table):,} labels have the image and the '
            'expression of an earlier label, but other boxes: '
            f'{name_labels(table, np.flatnonzero(other))}.'
        )
        problems.append(Problem('ambiguous expressions', text, int(other.sum())))
    return problems
