"""Results of a test run, as ``GroundingMetric(out_file=...)`` writes them."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.readers.common import entry_of, required
from ..utils.atomic import replacing

__all__ = ['common_results', 'read_results', 'write_results']

_TEXTS = ('text', 'split', 'source')


def write_results(path: Path, results: Iterable[Mapping[str, Any]]) -> None:
    """Write the results of a run, whole.

    Args:
        path (Path): JSON Lines; its folder is created if it does not exist.
        results (Iterable[Mapping]): As :func:`read_results` gives them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, partial.open('w', encoding='utf-8') as file:
        for result in results:
            # JSON has no NaN, which is what a diverged model scores.
            if isinstance(score := result.get('score'), float) and math.isnan(score):
                result = {**result, 'score': None}
            file.write(json.dumps(result, ensure_ascii=False, allow_nan=False) + '\n')


def read_results(path: Path) -> list[dict[str, Any]]:
    """Read and check the results of a run.

    Args:
        path (Path): JSON Lines.

    Returns:
        list[dict]: In the file's order, with ``sample_id``, ``image`` (str or None),
        ``text``, ``iou`` in [0, 1], ``bbox`` and ``gt_bbox`` (xyxy in pixels of the
        image), ``split``, ``source``, and ``score`` (None where the run has none).

    Raises:
        ValueError: The file is empty, or a line has a wrong entry; it names
            line and entry.
    """
    results: dict[str, dict[str, Any]] = {}
    for number, line in _lines(path):
        where = f'{path}, line {number}'
        result = _checked(_parsed(line, where), where)
        name = result['sample_id']
        if name in results:
            raise ValueError(
                f'{where}: sample_id {name!r} is there already; every result needs '
                'its own. Were two runs put into one file?'
            )
        results[name] = result
    if not results:
        raise ValueError(
            f'{path} is empty: it has no results. Test with '
            '`--cfg-options test_evaluator.out_file=FILE` to make them.'
        )
    return list(results.values())


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbers and texts of the lines that are not blank."""
    number = 0
    # Editors on Windows put a byte-order mark before the text.
    with path.open(encoding='utf-8-sig') as file:
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
        except UnicodeDecodeError as error:
            raise ValueError(
                f'{path}, after line {number}: not in UTF-8: {error}.'
            ) from error


def _parsed(line: str, where: str) -> dict[str, Any]:
    try:
        result = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f'{where} is not valid JSON: {error}. Expected one result a line, as '
            'GroundingMetric(out_file=...) writes them; a file cut short must be '
            'written again.'
        ) from error
    return entry_of(result, dict, where, 'a JSON object')


def _checked(result: dict[str, Any], where: str) -> dict[str, Any]:
    """The result with ``score``, after checks of every entry."""
    if 'gt_bboxes' in result:
        raise ValueError(
            f'{where}, gt_bboxes: sets of boxes, of GeneralizedGroundingMetric; '
            'expected one box (`bbox`, `gt_bbox`), of GroundingMetric. '
            'tools/evaluate_predictions.py scores sets, tools/draw_results.py draws '
            'them.'
        )
    for key in ('sample_id', *_TEXTS):
        entry_of(required(result, key, where), str, f'{where}, {key}', 'a text')
    image = required(result, 'image', where)
    entry_of(image, (str, type(None)), f'{where}, image', 'a text or null')
    iou = _finite(required(result, 'iou', where), f'{where}, iou')
    # A float32 quotient may pass 1 by its last digit.
    if not 0 <= iou <= 1 + 1e-6:
        raise ValueError(f'{where}, iou: expected a number in [0, 1], found {iou}.')
    for key in ('bbox', 'gt_bbox'):
        box = entry_of(
            required(result, key, where), list, f'{where}, {key}', 'a list (xyxy)'
        )
        if len(box) != 4:
            raise ValueError(
                f'{where}, {key}: expected 4 numbers (xyxy), found {len(box)}.'
            )
        for value in box:
            _finite(value, f'{where}, {key}')
    score = result.get('score')
    # Any finite number: other models' scores need not lie in [0, 1].
    if score is not None:
        score = _finite(score, f'{where}, score')
    return dict(result, iou=min(iou, 1.0), score=score)


def _finite(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f'{where}: expected a number, found {value!r}.')
    if not math.isfinite(value):
        raise ValueError(f'{where}: {value} is no finite number; was the run broken?')
    return float(value)


def common_results(
    one: Sequence[dict], other: Sequence[dict], allow_missing: bool = False
) -> tuple[list[dict], list[dict]]:
    """Bring the results of two runs into one order.

    Args:
        one (Sequence[dict]): Of :func:`read_results`.
        other (Sequence[dict]): Of the same samples.
        allow_missing (bool): Leave out what only one run has. Defaults to False.

    Returns:
        tuple[list[dict], list[dict]]: The results of the samples of both, in the
        order of ``one``.

    Raises:
        ValueError: The runs have other samples, none in common, or one
            ``sample_id`` means two expressions.
    """
    by_id = {result['sample_id']: result for result in other}
    left = [result for result in one if result['sample_id'] in by_id]
    right = [by_id[result['sample_id']] for result in left]
    only = len(one) - len(left), len(other) - len(left)
    if not left or (any(only) and not allow_missing):
        raise ValueError(
            f'The runs have different samples: {only[0]:,} only in the first, '
            f'{only[1]:,} only in the second, {len(left):,} in both. Test both on the '
            'same data'
            + (', or compare those in both by --allow-missing.' if left else '.')
        )
    for mine, theirs in zip(left, right, strict=True):
        if mine['text'] != theirs['text']:
            raise ValueError(
                f'sample_id {mine["sample_id"]!r} is {mine["text"]!r} in the first run '
                f'and {theirs["text"]!r} in the second: they were not tested on the '
                'same data, and cannot be compared.'
            )
    return left, right
