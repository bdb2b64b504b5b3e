"""Generalised grounding: predicted boxes against none, one or several targets.

An expression is right if its F1 is 1: every target is found, and nothing else is
predicted. Where it has no target, nothing may be predicted. All shares are over the
whole set, never averaged over batches, and a group without expressions has none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .accuracy import aligned_gious, aligned_ious, group_masks
from .confidence import auroc

__all__ = [
    'MATCHERS',
    'OVERLAPS',
    'ExpressionCounts',
    'MatchingRule',
    'count_expression',
    'match_boxes',
    'measure_names',
    'pairwise_overlaps',
    'scores_or_ones',
    'summarize_by_group',
    'summarize_sets',
    'written_boxes',
]

OVERLAPS = ('iou', 'giou')
# What each maximises, for people.
MATCHERS = {
    'optimal': 'the most pairs, then the largest overlaps',
    'greedy': 'the pair of the largest overlap first',
}
# As HumanRef's code has them, with its rounding.
_DENSITY_THRS = np.arange(0.5, 1.0, 0.05)
_MATCHED = (
    *('f1_acc', 'instance_f1', 'image_f1', 'density_f1', 'density_f1_mean'),
    'num_matched',
)
_MEASURES = (
    *('f1_acc', 'n_acc', 'rejection', 't_acc', 'instance_f1', 'image_f1'),
    *('density_f1', 'density_f1_mean', 'auroc', 'num_expressions', 'num_no_target'),
    *('num_targets', 'num_predictions', 'num_matched'),
)


@dataclass(frozen=True)
class MatchingRule:
    """Which predicted boxes count, and which of the targets they find.

    Args:
        score_thr (float): A box counts if its score is at least this. Defaults to
            0.7, as in the code of gRefCOCO, RefDrone and MMDetection.
        overlap (str): 'iou' or 'giou', which the code of gRefCOCO has. Defaults to
            'iou'.
        overlap_thr (float): A box can find a target if they overlap at least so
            much. Defaults to 0.5.
        matcher (str): 'optimal' finds as many targets as can be found; 'greedy'
            takes the pair of the largest overlap first, as the code of gRefCOCO and
            RefDrone, and finds fewer where boxes are crowded. Defaults to 'optimal'.

    Raises:
        ValueError: An option is unknown, or a threshold no finite number.
    """

    score_thr: float = 0.7
    overlap: str = 'iou'
    overlap_thr: float = 0.5
    matcher: str = 'optimal'

    def __post_init__(self) -> None:
        for name, known in (('overlap', OVERLAPS), ('matcher', tuple(MATCHERS))):
            if getattr(self, name) not in known:
                raise ValueError(
                    f'{name}={getattr(self, name)!r}; expected one of {known}.'
                )
        if not np.isfinite(self.score_thr):
            raise ValueError(f'score_thr={self.score_thr}; expected a finite number.')
        # At 0, boxes far apart would be pairs.
        if not 0 < self.overlap_thr <= 1:
            raise ValueError(
                f'overlap_thr={self.overlap_thr}; expected more than 0, at most 1.'
            )

    def __str__(self) -> str:
        return (
            f'boxes of score >= {self.score_thr:g} are matched one to one with targets '
            f'at {dict(iou="IoU", giou="GIoU")[self.overlap]} >= {self.overlap_thr:g}, '
            f'matcher {self.matcher!r} ({MATCHERS[self.matcher]})'
        )

    @property
    def suffix(self) -> str:
        """What names of metrics end with: '' by default, else as ``_giou_0.5_greedy``.

        So one name is one definition, also where logs have nothing but names.
        """
        default = MatchingRule(score_thr=self.score_thr)
        if self == default:
            return ''
        return f'_{self.overlap}_{self.overlap_thr:g}_{self.matcher}'

    def counting(self, scores: np.ndarray) -> np.ndarray:
        """Which boxes of ``scores`` (M, ) count; bool (M, ), False for NaN."""
        # Models score in float32, where 0.7 is less than 0.7.
        return np.asarray(scores, np.float32) >= np.float32(self.score_thr)


def pairwise_overlaps(
    boxes: np.ndarray, gt_boxes: np.ndarray, overlap: str = 'iou'
) -> np.ndarray:
    """IoU or GIoU of every predicted box with every target box.

    Args:
        boxes (np.ndarray): Predicted, xyxy, of shape (P, 4).
        gt_boxes (np.ndarray): xyxy in the same unit, of shape (T, 4).
        overlap (str): 'iou' or 'giou'. Defaults to 'iou'.

    Returns:
        np.ndarray: float32 (P, T); the least value, 0 or -1, where a box is not finite.
    """
    shape = len(boxes), len(gt_boxes)
    rows = np.repeat(np.asarray(boxes, np.float32).reshape(-1, 4), shape[1], axis=0)
    columns = np.tile(np.asarray(gt_boxes, np.float32).reshape(-1, 4), (shape[0], 1))
    aligned = aligned_gious if overlap == 'giou' else aligned_ious
    return aligned(rows, columns).reshape(shape)


def match_boxes(
    overlaps: np.ndarray, threshold: float = 0.5, matcher: str = 'optimal'
) -> tuple[np.ndarray, np.ndarray]:
    """Match predicted boxes one to one with the targets of an expression.

    Args:
        overlaps (np.ndarray): Of shape (P, T), of :func:`pairwise_overlaps`.
        threshold (float): Pairs overlap at least so much. Defaults to 0.5.
        matcher (str): One of :data:`MATCHERS`. Defaults to 'optimal'.

    Returns:
        tuple[np.ndarray, np.ndarray]: Predicted box and target of each pair, both
        int64 (M, ).
    """
    # A float32 compared with 0.9 would be compared with the nearest float32.
    overlaps = np.asarray(overlaps, np.float64)
    allowed = overlaps >= threshold
    rows, columns = np.nonzero(allowed)
    if len({*rows.tolist()}) == len({*columns.tolist()}) == len(rows):
        return rows, columns  # no two pairs share a box: the usual case
    if matcher == 'greedy':
        left, pairs = overlaps.copy(), []
        while left.max() >= threshold:
            row, column = np.unravel_index(left.argmax(), left.shape)
            left[row] = left[:, column] = -np.inf
            pairs.append((row, column))
        rows, columns = np.array(pairs, np.int64).T
        return rows, columns
    from scipy.optimize import linear_sum_assignment  # a third of a second of imports

    # One pair more outweighs whatever the overlaps of the others are.
    weights = np.where(allowed, overlaps + min(overlaps.shape) + 1, 0)
    rows, columns = linear_sum_assignment(weights, maximize=True)
    kept = allowed[rows, columns]
    return rows[kept], columns[kept]


@dataclass(frozen=True)
class ExpressionCounts:
    """What is predicted for an expression, counted.

    Args:
        targets (int): Target boxes, T.
        predictions (int): Predicted boxes that count, P.
        matched (tuple[int, ...]): Targets found: at the overlap of the rule, and at
            0.5, 0.55, ..., 0.95.
        score (float): The highest score of all its boxes, counting or not; -inf
            without any.
    """

    targets: int
    predictions: int
    matched: tuple[int, ...]
    score: float

    @property
    def f1(self) -> float:
        """F1 in [0, 1]; without targets 1 if nothing is predicted, else 0."""
        total = self.targets + self.predictions
        return 2 * self.matched[0] / total if total else 1.0


def count_expression(
    boxes: np.ndarray, scores: np.ndarray, gt_boxes: np.ndarray, rule: MatchingRule
) -> ExpressionCounts:
    """Compare the boxes predicted for an expression with its targets.

    Args:
        boxes (np.ndarray): All predicted boxes, xyxy, of shape (M, 4).
        scores (np.ndarray): Of shape (M, ); a box whose score is NaN is none.
        gt_boxes (np.ndarray): The targets, xyxy, of shape (T, 4); one that is not
            finite is never found.
        rule (MatchingRule): Which boxes count, and how they are matched.

    Returns:
        ExpressionCounts: Of the expression.
    """
    counting = rule.counting(scores)
    boxes = np.asarray(boxes).reshape(-1, 4)[counting]
    overlaps = pairwise_overlaps(boxes, gt_boxes, rule.overlap)
    best = float(overlaps.max()) if overlaps.size else -1.0
    matched = tuple(
        len(match_boxes(overlaps, threshold, rule.matcher)[0])
        if best >= threshold
        else 0
        for threshold in (rule.overlap_thr, *_DENSITY_THRS.tolist())
    )
    score = max((float(s) for s in scores if not np.isnan(s)), default=-np.inf)
    return ExpressionCounts(len(gt_boxes), int(counting.sum()), matched, score)


def scores_or_ones(scores: np.ndarray) -> np.ndarray:
    """Scores (M, ) of an expression's boxes; 1, so that all count, if all are NaN."""
    return np.ones(len(scores)) if np.isnan(scores).all() else scores


def written_boxes(scores: np.ndarray, rule: MatchingRule) -> np.ndarray:
    """Which predicted boxes a file of results needs for the same measures.

    Args:
        scores (np.ndarray): Of the boxes of an expression, of shape (M, ).
        rule (MatchingRule): Which boxes count.

    Returns:
        np.ndarray: int64 (K, ), by descending score: the boxes that count, and at
        least the one of the highest score.
    """
    scores = np.asarray(scores, np.float64)
    order = np.argsort(-scores, kind='stable')
    order = order[~np.isnan(scores[order])]
    return order[: max(1, int(rule.counting(scores).sum()))]


def summarize_sets(
    counts: Sequence[ExpressionCounts], rule: MatchingRule
) -> dict[str, float]:
    """The measures of generalised grounding over all expressions.

    Args:
        counts (Sequence[ExpressionCounts]): Of the N expressions.
        rule (MatchingRule): By which they were counted; names say it.

    Returns:
        dict[str, float]: What has no expression to be computed from is left out:

        * ``f1_acc``: share of expressions with F1 = 1;
        * ``n_acc``: share of no-target expressions for which nothing is predicted;
          ``rejection`` is HumanRef's name of it;
        * ``t_acc``: share of the other expressions for which something is predicted;
        * ``instance_f1``: F1 over all targets, as in RefDrone: a no-target expression
          with predictions is one false positive, however many they are;
        * ``image_f1``: F1 over expressions, as in RefDrone: a hit is a target
          expression with F1 = 1, a false positive a no-target one with predictions;
        * ``density_f1``: mean of F1 * min(1, T / P) over target expressions, of
          HumanRef; ``density_f1_mean``: its mean over overlaps of 0.5, 0.55, ..., 0.95;
        * ``auroc``: how often an expression with targets has a higher score than one
          without;
        * ``num_expressions``, ``num_no_target``, ``num_targets``,
          ``num_predictions``, ``num_matched``.
    """
    targets = np.array([count.targets for count in counts], np.int64)
    predictions = np.array([count.predictions for count in counts], np.int64)
    every_thr = np.array([count.matched for count in counts], np.int64)
    every_thr = every_thr.reshape(-1, 1 + len(_DENSITY_THRS))
    scores = np.array([count.score for count in counts], np.float64)
    matched = every_thr[:, 0]
    absent = targets == 0
    present = ~absent
    right = (matched == targets) & (matched == predictions)
    spurious = int((predictions[absent] > 0).sum())
    summary: dict[str, float] = {}
    if len(targets):
        summary['f1_acc'] = float(right.mean())
    if absent.any():
        summary['n_acc'] = summary['rejection'] = float(right[absent].mean())
    if present.any():
        summary['t_acc'] = float((predictions[present] > 0).mean())
        boxes = int(targets.sum() + predictions[present].sum()) + spurious
        summary['instance_f1'] = 2 * int(matched.sum()) / boxes
        hits = int(right[present].sum())
        summary['image_f1'] = 2 * hits / (hits + int(present.sum()) + spurious)
        # F1 * min(1, T / P), whose denominators are not 0 where there are targets.
        own, given = targets[present], predictions[present]
        weights = np.minimum(1, own / np.maximum(given, 1)) * 2 / (own + given)
        density = (every_thr[present] * weights[:, None]).mean(0)
        summary['density_f1'] = float(density[0])
        summary['density_f1_mean'] = float(density[1:].mean())
    if absent.any() and present.any():
        summary['auroc'] = auroc(scores, present)
    summary.update(
        num_expressions=len(targets),
        num_no_target=int(absent.sum()),
        num_targets=int(targets.sum()),
        num_predictions=int(predictions.sum()),
        num_matched=int(matched.sum()),
    )
    return {_full_name(name, rule): value for name, value in summary.items()}


def measure_names(rule: MatchingRule) -> tuple[str, ...]:
    """Names that :func:`summarize_sets` gives, where expressions are of all kinds."""
    return tuple(_full_name(name, rule) for name in _MEASURES)


def _full_name(name: str, rule: MatchingRule) -> str:
    return f'{name}{rule.suffix}' if name in _MATCHED else name


def summarize_by_group(
    counts: Sequence[ExpressionCounts],
    splits: Sequence[str],
    sources: Sequence[str],
    rule: MatchingRule,
) -> dict[str, dict[str, float]]:
    """:func:`summarize_sets` of all, and of each group of :func:`group_masks`.

    Args:
        counts (Sequence[ExpressionCounts]): Of the N expressions.
        splits (Sequence[str]): The N splits.
        sources (Sequence[str]): The N sources.
        rule (MatchingRule): By which they were counted.

    Returns:
        dict[str, dict[str, float]]: Under '' for all, then under the groups' names.
    """
    return {
        name: summarize_sets([counts[i] for i in np.flatnonzero(mask).tolist()], rule)
        for name, mask in group_masks(splits, sources).items()
    }
