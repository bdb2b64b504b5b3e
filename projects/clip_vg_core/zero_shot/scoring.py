"""Which of an image's boxes an expression means: models' scores, and geometry.

Boxes are xyxy in pixels, of shape (K, 4).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .expression import ParsedExpression

__all__ = [
    'DIRECTIONS',
    'GeometryWeights',
    'between_scores',
    'ground_parsed',
    'overlaps',
    'rank_scores',
    'relation_scores',
]

# Pairs of anchors grow with its square; those beyond are hardly meant.
_MOST_ANCHORS = 32
_LEAST = 1e-6  # a factor of 0 would let no other evidence count
# The axis of the centres, and where the first one is: -1 low, 1 high.
_AXES = {'left': (0, -1), 'right': (0, 1), 'top': (1, -1), 'bottom': (1, 1)}
_AXIS_OF = {'middle': 0, **{word: axis for word, (axis, _) in _AXES.items()}}
DIRECTIONS = {
    **{'left of': (0, -1), 'right of': (0, 1), 'above': (1, -1), 'below': (1, 1)}
}


@dataclass(frozen=True)
class GeometryWeights:
    """How much geometry counts beside a model's scores; none of it is official.

    Args:
        place (float): Of places; 0 switches them off. Defaults to 1.
        size (float): Of sizes. Defaults to 1.
        relation (float): Of relations. Defaults to 1.
        margin (float): Logits below the best box at which a box is as likely to be
            what the head phrase names as not. Only for expressions that say more
            than the head, whose head alone may then fit several boxes. Defaults to 3.
        softness (float): Difference of positions, as a share of the image's long side,
            at which an order is fairly sure (0.73). Defaults to 0.02.
    """

    place: float = 1.0
    size: float = 1.0
    relation: float = 1.0
    margin: float = 3.0
    softness: float = 0.02


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(values, -60, 60)))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def overlaps(boxes: np.ndarray) -> np.ndarray:
    """IoU of all pairs of boxes, of shape (K, K)."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    areas = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(-1)
    union = areas[:, None] + areas[None] - shared
    return shared / np.maximum(union, np.finfo(float).tiny)


def rank_scores(
    values: np.ndarray,
    fits: np.ndarray,
    softness: float,
    rank: int = 1,
    same: np.ndarray | None = None,
) -> np.ndarray:
    """Probability of each box to be the ``rank``-th that fits, by ascending value.

    Boxes fit independently of each other, so that the number of those before a box is
    of a Poisson binomial distribution.

    Args:
        values (np.ndarray): Of shape (K, ).
        fits (np.ndarray): Probability that a box is of the kind that is counted, of
            shape (K, ).
        softness (float): Difference of values at which an order is fairly sure.
        rank (int): From 1. Defaults to 1: the first.
        same (np.ndarray, optional): Which boxes are of one object and do not count
            as before each other, bool of shape (K, K). Defaults to None: only a box
            and itself.

    Returns:
        np.ndarray: Of shape (K, ), without the probability that the box itself fits.
    """
    if same is None:
        same = np.eye(len(values), dtype=bool)
    # before[i, j]: j fits and comes before i.
    before = fits[None] * _sigmoid((values[:, None] - values[None]) / softness) * ~same
    # counted[:, n]: exactly n are before, of those looked at so far.
    counted = np.zeros((len(values), rank))
    counted[:, 0] = 1
    for column in before.T:
        moved = np.pad(counted[:, :-1], ((0, 0), (1, 0)))
        counted = counted * (1 - column[:, None]) + moved * column[:, None]
    return counted[:, -1]


def _shared(boxes: np.ndarray, axis: int) -> np.ndarray:
    """Overlap of all pairs of boxes along an axis, in pixels; negative: a gap."""
    low = np.maximum(boxes[:, None, axis], boxes[None, :, axis])
    return np.minimum(boxes[:, None, axis + 2], boxes[None, :, axis + 2]) - low


def relation_scores(relation: str, boxes: np.ndarray, softness: float) -> np.ndarray:
    """How well a relation holds for all pairs of boxes.

    Args:
        relation (str): Of :class:`ParsedExpression`.
        boxes (np.ndarray): xyxy in pixels, of shape (K, 4).
        softness (float): Pixels at which a direction is fairly sure.

    Returns:
        np.ndarray: In [0, 1], of shape (K, K): row the subject, column the anchor;
        1 everywhere for a relation without a rule.
    """
    sizes = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    areas = sizes.prod(-1)
    gap = np.hypot(*(np.clip(-_shared(boxes, axis), 0, None) for axis in (0, 1)))
    # A gap of half the mean side is still near.
    mean = np.sqrt(np.sqrt(areas[:, None] * areas[None]))
    near = np.exp(-np.log(2) * 2 * gap / mean)
    if relation in DIRECTIONS:
        axis, sign = DIRECTIONS[relation]
        ahead = sign * (centers[:, None, axis] - centers[None, :, axis])
        return _sigmoid(ahead / softness)
    if relation == 'next to':
        return near
    inside = np.clip(_shared(boxes, 0), 0, None) * np.clip(_shared(boxes, 1), 0, None)
    if relation == 'inside':
        return inside / areas[:, None]
    if relation == 'on':
        across = np.clip(_shared(boxes, 0), 0, None) / sizes[:, None, 0]
        higher = centers[None, :, 1] - centers[:, None, 1]
        return near * across * _sigmoid(higher / softness)
    if relation in ('in front of', 'behind'):
        # What is nearer stands lower in the image.
        lower = boxes[:, None, 3] - boxes[None, :, 3]
        sign = 1 if relation == 'in front of' else -1
        return near * _sigmoid(sign * lower / softness)
    return np.ones((len(boxes), len(boxes)))


def between_scores(
    boxes: np.ndarray, anchors: np.ndarray, others: np.ndarray, same: np.ndarray
) -> np.ndarray:
    """How well each box lies between two anchors.

    The angle at its centre between the directions to theirs counts: 1 where they are
    opposite, 0.5 at 120 degrees, 0 from a right angle on.

    Args:
        boxes (np.ndarray): xyxy in pixels, of shape (K, 4).
        anchors (np.ndarray): Probability of each box to be the first anchor, of shape
            (K, ).
        others (np.ndarray): Likewise of the second, which is another object.
        same (np.ndarray): Which boxes are of one object, bool of shape (K, K).

    Returns:
        np.ndarray: In [0, 1], of shape (K, ): the mean over pairs of anchors.
    """
    firsts = np.argsort(-anchors, kind='stable')[:_MOST_ANCHORS]
    seconds = np.argsort(-others, kind='stable')[:_MOST_ANCHORS]
    pairs = anchors[firsts, None] * others[seconds] * ~same[np.ix_(firsts, seconds)]
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    ways = centers[None] - centers[:, None]
    ways /= np.maximum(np.linalg.norm(ways, axis=-1, keepdims=True), 1e-6)
    # opposite[i, j, k] of box i and anchors j, k.
    opposite = -np.einsum('ijx,ikx->ijk', ways[:, firsts], ways[:, seconds])
    apart = ~same[:, firsts, None] & ~same[:, None, seconds]
    holds = (np.clip(opposite, 0, 1) * apart * pairs).sum((1, 2))
    return holds / max(pairs.sum(), np.finfo(float).tiny)


def _order(
    word: str, boxes: np.ndarray, size: tuple[float, float]
) -> tuple[np.ndarray, float]:
    """What is ascending from the box that a place or size means, and its unit."""
    long = max(size)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    sides = boxes[:, 2:] - boxes[:, :2]
    if word in _AXES:
        axis, sign = _AXES[word]
        return -sign * centers[:, axis], long
    if word == 'middle':
        return abs(centers[:, 0] - size[0] / 2), long
    if word in ('tallest', 'shortest'):
        return (-1 if word == 'tallest' else 1) * sides[:, 1], long
    # Near things are large; the side of a square of the same area.
    mean = np.sqrt(np.clip(sides.prod(-1), 0, None))
    return (-1 if word in ('largest', 'front') else 1) * mean, long


def _orders(
    parsed: ParsedExpression,
    boxes: np.ndarray,
    size: tuple[float, float],
    weights: GeometryWeights,
) -> list[tuple[np.ndarray, float, int, float]]:
    """Orders of the boxes that an expression names: values, softness, rank, weight."""
    words = [([word], weights.place) for word in parsed.places]
    sides = {word: axis for word, axis in _AXIS_OF.items() if word in parsed.places}
    if len(sides) == len(set(sides.values())) == 2 and parsed.rank == 1:
        # "Top left": near that corner, be others further to the left or the top.
        others = [word for word in parsed.places if word not in sides]
        words = [(group, weights.place) for group in ([*sides], *([w] for w in others))]
    words += [([parsed.size], weights.size)] if parsed.size else []
    orders: list[tuple[np.ndarray, float, int, float]] = []
    for number, (group, weight) in enumerate(words):
        values, units = zip(*(_order(word, boxes, size) for word in group), strict=True)
        rank = parsed.rank if number == 0 and parsed.places else 1
        orders.append((np.sum(values, 0), weights.softness * units[0], rank, weight))
    return [order for order in orders if order[-1]]


def ground_parsed(
    parsed: ParsedExpression,
    boxes: np.ndarray,
    size: tuple[float, float],
    scores: Mapping[str, np.ndarray],
    weights: GeometryWeights | None = None,
) -> np.ndarray:
    """Log probability of each box to be what an expression means.

    A place or size is the first box of the order that fits the head phrase; a relation
    is to an anchor drawn by its own probability, as in ReCLIP (arXiv 2204.05991).

    Args:
        parsed (ParsedExpression): The expression.
        boxes (np.ndarray): xyxy in pixels, of shape (K, 4).
        size (tuple[float, float]): Width and height of the image in pixels.
        scores (Mapping[str, np.ndarray]): A model's logits (K, ) for each of
            ``parsed.heads``.
        weights (GeometryWeights, optional): Defaults to None: all defaults.

    Returns:
        np.ndarray: Of shape (K, ).
    """
    weights = weights or GeometryWeights()
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    logits = np.zeros(len(boxes))
    if parsed.head:
        logits = np.asarray(scores[parsed.head], np.float64)
    orders = _orders(parsed, boxes, size, weights)
    related = parsed.anchor is not None and weights.relation > 0
    if not orders and not related:
        return _log_softmax(logits)
    fits = _sigmoid(logits - logits.max() + weights.margin)
    total = np.log(fits)
    same = overlaps(boxes) > 0.5
    for values, softness, rank, weight in orders:
        first = rank_scores(values, fits, softness, rank, same)
        total = total + weight * np.log(np.maximum(first, _LEAST))
    if related:
        assert parsed.anchor is not None and parsed.relation is not None
        anchors = np.exp(ground_parsed(parsed.anchor, boxes, size, scores, weights))
        if parsed.other is not None:
            others = np.exp(ground_parsed(parsed.other, boxes, size, scores, weights))
            holds = between_scores(boxes, anchors, others, same)
        else:
            softness = weights.softness * max(size)
            pairs = relation_scores(parsed.relation, boxes, softness) * ~same
            holds = pairs @ anchors
        total = total + weights.relation * np.log(np.maximum(holds, _LEAST))
    return _log_softmax(total)
