"""Choice of a score threshold below which nothing is shown, for a wanted risk."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.readers.common import entry_of, required
from ..data.readers.documents import open_document
from .breakdown import HIT
from .confidence import risk_coverage
from .generalized import pairwise_overlaps
from .results_file import read_results

__all__ = [
    'OperatingPoint',
    'ScoredBoxes',
    'checked_set',
    'choose_threshold',
    'fewest_predictions',
    'read_scored_boxes',
]


@dataclass(frozen=True)
class ScoredBoxes:
    """The predicted boxes of a test run, and which of them are right.

    Args:
        scores (np.ndarray): Of N boxes, in [0, 1].
        hits (np.ndarray): Bool (N, ): whether each is a target.
        owners (np.ndarray): int64 (N, ), the expression of each.
        has_target (np.ndarray): Bool (E, ): whether the E expressions have a target.
        lowest (float): Thresholds below it cannot be measured, as the file has no
            boxes of lower scores, but for the best of an expression.
    """

    scores: np.ndarray
    hits: np.ndarray
    owners: np.ndarray
    has_target: np.ndarray
    lowest: float = 0.0

    def is_answered(self, score_thr: float) -> np.ndarray:
        """Which expressions get a box at a threshold, bool (E, )."""
        answered = np.zeros(len(self.has_target), bool)
        answered[self.owners[self.scores >= score_thr]] = True
        return answered


@dataclass(frozen=True)
class OperatingPoint:
    """What a threshold of scores gives on validation data.

    Args:
        score_thr (float): Boxes of at least this score are shown.
        coverage (float): Share of the boxes that are shown.
        shown (int): How many these are.
        risk (float): Share of the shown boxes that are wrong.
        bound (float): Upper bound of the risk, at the confidence it was chosen with.
    """

    score_thr: float
    coverage: float
    shown: int
    risk: float
    bound: float


def choose_threshold(
    scores: np.ndarray,
    hits: np.ndarray,
    risk: float,
    confidence: float = 0.95,
    lowest: float = 0.0,
) -> tuple[OperatingPoint | None, OperatingPoint]:
    """The lowest threshold at which few enough of the shown boxes are wrong.

    The bound is Clopper and Pearson's, one-sided and exact for a threshold that was
    fixed before. Of the many that are tried here, the chosen one is a little too
    optimistic: test it on other data.

    Args:
        scores (np.ndarray): In [0, 1], of shape (N, ).
        hits (np.ndarray): Whether each box is right, bool (N, ).
        risk (float): Largest share of wrong boxes among the shown ones, in (0, 1).
        confidence (float): Probability with which the bound holds, in [0.5, 1); 0: the
            observed risk itself is compared. Defaults to 0.95.
        lowest (float): Least threshold that may be chosen. Defaults to 0.

    Returns:
        tuple: The point of that threshold, None if there is none; and the one of the
        least bound.

    Raises:
        ValueError: An option, a score, or their number is wrong.
    """
    if not 0 < risk < 1:
        raise ValueError(f'risk={risk}; expected a share between 0 and 1, e.g. 0.1.')
    if confidence and not 0.5 <= confidence < 1:
        raise ValueError(
            f'confidence={confidence}; expected 0, or a probability from 0.5 to below '
            '1, e.g. 0.95.'
        )
    coverage, risks = risk_coverage(scores, hits)
    thresholds = np.unique(scores)[::-1]
    shown = np.rint(coverage * len(scores)).astype(np.int64)
    bounds = risks
    if confidence:
        from scipy.stats import beta  # half a second of imports

        wrong = np.rint(risks * shown)
        # Where all are wrong, the distribution is degenerate and the bound 1.
        with np.errstate(invalid='ignore'):
            bounds = beta.ppf(confidence, wrong + 1, shown - wrong)
        bounds = np.where(wrong == shown, 1.0, bounds)
    allowed = thresholds >= lowest

    def point(place: int) -> OperatingPoint:
        return OperatingPoint(
            float(thresholds[place]),
            float(coverage[place]),
            int(shown[place]),
            float(risks[place]),
            float(bounds[place]),
        )

    best = point(int(np.argmin(np.where(allowed, bounds, np.inf))))
    passing = np.flatnonzero(allowed & (bounds <= risk))
    return point(int(passing[-1])) if len(passing) else None, best


def fewest_predictions(risk: float, confidence: float) -> int:
    """How many predictions, all right, show that the risk is not larger."""
    return math.ceil(math.log(1 - confidence) / math.log(1 - risk))


def read_scored_boxes(path: Path) -> ScoredBoxes:
    """Read the boxes of a test run, and decide which are right (IoU of 0.5).

    Args:
        path (Path): JSON Lines of ``GroundingMetric(out_file=...)``; or of
            ``GeneralizedGroundingMetric(out_file=..., score_thr=0)``, where the boxes
            of an expression find its targets by descending score, as in COCO: each the
            unfound one of the largest IoU.

    Returns:
        ScoredBoxes: Of all expressions.

    Raises:
        ValueError: An entry is wrong, or there is no score; it says where.
    """
    document = open_document(path)
    if not any(isinstance(row, dict) and 'gt_bboxes' in row for row in document.head):
        results = read_results(path)
        given = [_score(r['score'], f'{path}, {r["sample_id"]}') for r in results]
        return ScoredBoxes(
            np.array(given),
            np.array([result['iou'] >= HIT for result in results]),
            np.arange(len(results)),
            np.ones(len(results), bool),
        )
    scores: list[float] = []
    hits: list[bool] = []
    owners: list[int] = []
    has_target: list[bool] = []
    others: list[float] = []
    for _, row, where in document.records():
        boxes, values, targets = checked_set(row, where)
        own = np.array([_score(value, f'{where}, scores') for value in values], float)
        order = np.argsort(-own, kind='stable')
        scores += own[order].tolist()
        hits += _found(boxes[order], targets)
        owners += [len(has_target)] * len(own)
        has_target.append(len(targets) > 0)
        others += own[order][1:].tolist()
    return ScoredBoxes(
        np.array(scores),
        np.array(hits, bool),
        np.array(owners, np.int64),
        np.array(has_target),
        min(others, default=0.0),
    )


def checked_set(
    row: Mapping[str, Any], where: str
) -> tuple[np.ndarray, list[float | None], np.ndarray]:
    """Predicted boxes (P, 4), their P scores and the targets (T, 4) of a row.

    A score is None where the row has null: its model gives none.
    """
    boxes, targets = (
        _boxes(required(row, key, where), f'{where}, {key}')
        for key in ('bboxes', 'gt_bboxes')
    )
    values = entry_of(
        required(row, 'scores', where), list, f'{where}, scores', 'a list of numbers'
    )
    if len(values) != len(boxes):
        raise ValueError(
            f'{where}, scores: {len(values)} scores for {len(boxes)} bboxes; expected '
            'one for each.'
        )
    for value in values:
        if value is not None:
            _score(value, f'{where}, scores')
    return boxes, values, targets


def _score(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(
            f'{where}: the score is {json.dumps(value)}; expected a number in [0, 1]: '
            'test a model with a confidence head (docs/confidence.md).'
        )
    if not 0 <= value <= 1:
        raise ValueError(f'{where}: the score is {value}; expected one in [0, 1].')
    return float(value)


def _boxes(value: Any, where: str) -> np.ndarray:
    entry_of(value, list, where, 'a list of boxes (xyxy)')
    try:
        boxes = np.array(value, np.float64).reshape(-1, 4)
    except (TypeError, ValueError):
        boxes = np.full((1, 4), np.nan)
    if len(boxes) != len(value) or not np.isfinite(boxes).all():
        raise ValueError(
            f'{where}: found {str(value)[:100]}; expected a list of boxes of four '
            'finite numbers each (xyxy).'
        )
    return boxes


def _found(boxes: np.ndarray, targets: np.ndarray) -> list[bool]:
    """Whether each box, by descending score, finds a target that none before has."""
    ious = pairwise_overlaps(boxes, targets).astype(np.float64)
    hits = []
    for own in ious:
        place = int(own.argmax()) if len(own) else -1
        hits.append(place >= 0 and own[place] >= HIT)
        if hits[-1]:
            ious[:, place] = -1
    return hits
