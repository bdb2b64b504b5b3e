"""One page that shows where a run is wrong, or what two runs do differently."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from projects.clip_vg_core.metrics.breakdown import (
    HIT,
    Grouping,
    breakdown,
    by_box_size,
    by_crowd,
    by_length,
    by_value,
    by_word_category,
    calibration,
    summary,
    weak_groups,
)
from projects.clip_vg_core.metrics.comparison import compare, compare_groups
from projects.clip_vg_core.visualization.page import png, write_page

from .error_figures import draw_calibration, draw_groups, draw_ious
from .error_page import PAGE, number, percent, points
from .example_cards import UNREADABLE, draw_card, find_picture, picture_sizes

__all__ = ['write_error_report']

# Draws a figure into a page: to base64.
_Figures = Callable[[Figure], str]
_LOOSE = 0.25  # a miss of at least this IoU is rather near
_THRESHOLDS = (_LOOSE, 0.75, 0.9)  # beside that of a hit
_WEAK = 8
_NOTES = {
    'Kinds of words': 'By lists of words; an expression may have words of several '
    'kinds, and is counted for each.',
    'Size of the true box': 'In %: its share of the picture. In px (if most pictures '
    'cannot be read): the square root of its area.',
    'Expressions of the same picture': 'How many expressions of the picture were '
    'tested.',
}


@dataclass
class _Run:
    """The answers of a run.

    Args:
        name (str): On the page.
        results (list[dict]): Of ``read_results``.
    """

    name: str
    results: Sequence[Mapping[str, Any]]
    ious: np.ndarray = field(init=False)
    scores: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.ious = np.array([result['iou'] for result in self.results])
        self.scores = np.array([result['score'] for result in self.results])


def write_error_report(
    out: Path,
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    images: Path | None = None,
    examples: int = 12,
    seed: int = 0,
) -> Path:
    """Show where a run is wrong.

    Args:
        out (Path): The HTML page.
        runs (Mapping[str, Sequence[Mapping]]): Answers (``read_results``) by the name
            of the run; one, or two of the same samples in the same order.
        images (Path, optional): Where the pictures moved to. Defaults to None.
        examples (int): Of each kind. Defaults to 12.
        seed (int): Which of equally good or bad ones are shown. Defaults to 0.

    Returns:
        Path: ``out``, a page that needs no other file.
    """
    every = [_Run(name, results) for name, results in runs.items()]
    results = every[0].results
    sizes = picture_sizes((r['image'] for r in results), images)
    groupings = _groupings(results, sizes)
    pictures = sorted(image for image in sizes if image is not None)
    with TemporaryDirectory() as folder:
        figures = partial(png, path=Path(folder, 'figure.png'))
        return write_page(
            out,
            PAGE,
            title='Errors: ' + ' and '.join(run.name for run in every),
            runs=[_overview(run) for run in every],
            picture_count=len(pictures),
            missing=[image for image in pictures if np.isnan(sizes[image][0])],
            paired=_paired(every),
            ious=figures(draw_ious({run.name: run.ious for run in every})),
            weak=[group for run in every for group in _weak(run, groupings)],
            sections=[
                _section(title, grouping, every, figures)
                for title, grouping in groupings.items()
            ],
            calibration=_calibrations(every, figures),
            examples=_examples(every, examples, np.random.default_rng(seed), images),
            percent=percent,
            number=number,
            points=points,
        )


def _groupings(
    results: Sequence[Mapping[str, Any]],
    sizes: Mapping[str | None, tuple[float, float]],
) -> dict[str, Grouping]:
    """The ways to part the answers that give several groups."""
    texts = [result['text'] for result in results]
    images = [result['image'] for result in results]
    boxes = np.array([result['gt_bbox'] for result in results], dtype=float)
    of_boxes = np.array([sizes[image] for image in images], dtype=float)
    found = {
        'Words of the expression': by_length(texts),
        'Kinds of words': by_word_category(texts),
        'Size of the true box': by_box_size(boxes, of_boxes),
        'Expressions of the same picture': by_crowd(images),
        'Split': by_value([result['split'] for result in results]),
        'Source': by_value([result['source'] for result in results]),
    }
    return {title: grouping for title, grouping in found.items() if len(grouping) > 1}


def _overview(run: _Run) -> dict[str, Any]:
    misses = run.ious[run.ious < HIT]
    return dict(
        summary(run.ious),
        name=run.name,
        reached={t: float((run.ious >= t).mean()) for t in _THRESHOLDS},
        misses=len(misses),
        apart=int((misses == 0).sum()),
        loose=int((misses >= _LOOSE).sum()),
    )


def _paired(runs: Sequence[_Run]) -> dict[str, Any] | None:
    return compare(runs[0].ious, runs[1].ious) if len(runs) > 1 else None


def _weak(run: _Run, groupings: Mapping[str, Grouping]) -> list[dict[str, Any]]:
    parts = {title: breakdown(run.ious, g) for title, g in groupings.items()}
    found = weak_groups(parts, summary(run.ious)['accuracy'])
    return [dict(group, run=run.name) for group in found[:_WEAK]]


def _section(
    title: str, grouping: Grouping, runs: Sequence[_Run], figures: _Figures
) -> dict[str, Any]:
    """A chart of a grouping, and its table."""
    parts = {run.name: breakdown(run.ious, grouping) for run in runs}
    paired = (
        compare_groups(runs[0].ious, runs[1].ious, grouping) if len(runs) > 1 else {}
    )
    whole = [summary(run.ious)['accuracy'] for run in runs]
    return dict(
        title=title,
        note=_NOTES.get(title),
        image=figures(draw_groups(parts, whole)),
        rows=[
            dict(
                name=name,
                parts=[found[name] for found in parts.values()],
                paired=paired.get(name),
            )
            for name in grouping
        ],
    )


def _calibrations(runs: Sequence[_Run], figures: _Figures) -> dict[str, Any] | None:
    """Of the runs whose scores say something; None without one."""
    found = {run.name: calibration(run.ious, run.scores) for run in runs}
    known = {name: value for name, value in found.items() if value is not None}
    if not known:
        return None
    return dict(image=figures(draw_calibration(known)), runs=known)


def _examples(
    runs: Sequence[_Run], count: int, rng: np.random.Generator, images: Path | None
) -> list[dict[str, Any]]:
    """What is gained and lost, and the worst and best of each run."""
    chance = rng.random(len(runs[0].ious))
    kinds = _changes(runs[0], runs[1], chance) if len(runs) > 1 else []
    for run in runs:
        kinds += _extremes(run, f' of {run.name}' if len(runs) > 1 else '', chance)
    return [
        dict(
            title=kind.title,
            note=kind.note,
            total=len(kind.order),
            paired=len(kind.runs) > 1,
            cards=[_card(int(i), kind.runs, images) for i in kind.order[:count]],
        )
        for kind in kinds
    ]


class _Kind(NamedTuple):
    """A kind of examples: which answers, the most telling first, of which runs."""

    title: str
    note: str
    order: np.ndarray
    runs: Sequence[_Run]


def _changes(one: _Run, other: _Run, chance: np.ndarray) -> list[_Kind]:
    """What the second run gains and loses."""
    kinds = []
    for title, better, worse in (('Gained', other, one), ('Lost', one, other)):
        change = better.ious - worse.ious
        order = np.lexsort((chance, -change))
        order = order[((better.ious >= HIT) & (worse.ious < HIT))[order]]
        who = f'“{better.name}” hits, “{worse.name}” misses'
        note = f'{who}; the largest changes first'
        kinds.append(_Kind(title, note, order, (one, other)))
    return kinds


def _extremes(run: _Run, of: str, chance: np.ndarray) -> list[_Kind]:
    """The worst misses and the best hits."""
    surest = '' if np.isnan(run.scores).all() else 'the surest, then '
    worst = np.lexsort((chance, -np.nan_to_num(run.scores), run.ious))
    worst = worst[run.ious[worst] < HIT]
    best = np.lexsort((chance, -run.ious))
    best = best[run.ious[best] >= HIT]
    note = f'the lowest IoU; of equals, {surest}by chance'
    return [
        _Kind(f'Worst{of}', note, worst, (run,)),
        _Kind(f'Best{of}', 'the highest IoU', best, (run,)),
    ]


def _card(index: int, runs: Sequence[_Run], images: Path | None) -> dict[str, Any]:
    """A picture, or None where it cannot be read, and what is said below it."""
    results = [run.results[index] for run in runs]
    first = results[0]
    return dict(
        text=first['text'],
        sample_id=first['sample_id'],
        image=first['image'],
        file=Path(first['image'] or 'no picture').name,
        picture=_picture(find_picture(first['image'], images), results),
        answers=[
            dict(
                name=run.name,
                iou=result['iou'],
                score=None if np.isnan(result['score']) else result['score'],
            )
            for run, result in zip(runs, results, strict=True)
        ],
    )


def _picture(path: Path | None, results: Sequence[Mapping[str, Any]]) -> str | None:
    try:
        return None if path is None else draw_card(path, results)
    except UNREADABLE:
        return None
