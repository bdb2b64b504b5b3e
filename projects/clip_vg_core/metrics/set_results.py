"""Results with any number of boxes, as ``GeneralizedGroundingMetric`` writes them."""

from pathlib import Path
from typing import Any

import numpy as np

from ..data.readers.common import entry_of, required
from ..data.readers.documents import open_document
from .generalized import (
    MatchingRule,
    count_expression,
    match_boxes,
    pairwise_overlaps,
    scores_or_ones,
)
from .score_threshold import checked_set

__all__ = ['has_sets', 'read_set_results']


def has_sets(path: Path) -> bool:
    """Whether the first results of a file have sets of boxes."""
    head = open_document(path).head
    return any(isinstance(row, dict) and 'gt_bboxes' in row for row in head)


def read_set_results(path: Path, rule: MatchingRule) -> list[dict[str, Any]]:
    """Read results, and count again which boxes are right.

    Args:
        path (Path): JSON Lines of ``GeneralizedGroundingMetric(out_file=...)``.
        rule (MatchingRule): Which predicted boxes count, and how they are matched.

    Returns:
        list[dict]: In the file's order, with ``image``, ``text``, ``gt_bboxes``;
        ``bboxes`` and ``scores`` (None where there are none) of the boxes that count,
        the best first, ``found``, whether each of these finds a target, and ``f1``.

    Raises:
        ValueError: An entry is wrong; it says where.
    """
    results = []
    for _, row, where in open_document(path).records():
        boxes, given, targets = checked_set(row, where)
        scores = scores_or_ones(np.array(given, float))
        text, image = (
            entry_of(required(row, key, where), str, f'{where}, {key}', 'a text')
            for key in ('text', 'image')
        )
        f1 = count_expression(boxes, scores, targets, rule).f1
        order = np.argsort(-scores, kind='stable')
        order = order[rule.counting(scores[order])]
        overlaps = pairwise_overlaps(boxes[order], targets, rule.overlap)
        pairs = match_boxes(overlaps, rule.overlap_thr, rule.matcher)
        found = np.isin(np.arange(len(order)), pairs[0])
        results.append(
            dict(
                image=image,
                text=text,
                bboxes=boxes[order].tolist(),
                scores=[given[place] for place in order],
                found=found.tolist(),
                gt_bboxes=targets.tolist(),
                f1=f1,
            )
        )
    return results
