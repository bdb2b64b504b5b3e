"""Public measures of generalised grounding against ours, on the same predictions.

    python benchmarks/generalized_metrics.py
    python benchmarks/generalized_metrics.py RESULTS.jsonl

RESULTS.jsonl is what GeneralizedGroundingMetric(out_file=...) or
`tools/evaluate_predictions.py --out` writes. Without it expressions with 0 to 4
targets and predictions with some misses, doubles and false boxes are drawn.
"""

import argparse
import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.evaluation import gRefCOCOMetric

from projects.clip_vg_core.metrics.generalized import (
    ExpressionCounts,
    MatchingRule,
    count_expression,
    summarize_sets,
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'results',
        type=Path,
        nargs='?',
        help='results of sets of boxes (default: drawn at random)',
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.7,
        help='boxes of at least this score count (default: %(default)s)',
    )
    parser.add_argument(
        '--expressions',
        type=int,
        default=4000,
        help='how many are drawn (default: %(default)s)',
    )
    parser.add_argument(
        '--perfect',
        action='store_true',
        help='draw perfect predictions (default: with errors)',
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='of the drawing (default: %(default)s)'
    )
    return parser.parse_args()


def drawn_results(number: int, perfect: bool, seed: int) -> list[dict[str, Any]]:
    """Expressions and their predictions, as rows of a file of results."""
    rng = np.random.default_rng(seed)

    def boxes(count: int) -> np.ndarray:
        corners = rng.uniform(0, 400, (count, 2))
        return np.concatenate([corners, corners + rng.uniform(40, 160, (count, 2))], 1)

    results = []
    for _ in range(number):
        targets = boxes(rng.choice(5, p=[0.3, 0.4, 0.15, 0.1, 0.05]))
        found = targets
        if not perfect:
            found = targets[rng.uniform(size=len(targets)) < 0.85]
            found = found + rng.normal(0, 8, found.shape)
            # A false box where there is no target is the usual error.
            likely = 0.1 if len(targets) else 0.3
            found = np.concatenate([found, boxes(int(rng.uniform() < likely))])
        scores = rng.uniform(0.7, 1, len(found)).tolist()
        results.append(
            dict(bboxes=found.tolist(), scores=scores, gt_bboxes=targets.tolist())
        )
    return results


def counted(result: dict[str, Any], rule: MatchingRule) -> ExpressionCounts:
    """A row of a file of results, as the metric counts it."""
    boxes, targets = (
        np.array(result[key], float).reshape(-1, 4) for key in ('bboxes', 'gt_bboxes')
    )
    return count_expression(boxes, np.array(result['scores'], float), targets, rule)


def of_mmdetection(results: list[dict[str, Any]], score_thr: float) -> dict[str, float]:
    """MMDetection's gRefCOCOMetric, on a file as MDETR writes them."""
    coco: dict[str, list] = dict(images=[], annotations=[], categories=[])
    for number, result in enumerate(results):
        coco['images'].append(dict(id=number))
        none = dict(image_id=number, bbox=[0, 0, 0, 0], category_id=-1)
        coco['annotations'] += [
            dict(image_id=number, bbox=[x1, y1, x2 - x1, y2 - y1], category_id=1)
            for x1, y1, x2, y2 in result['gt_bboxes']
        ] or [none]
    for number, annotation in enumerate(coco['annotations']):
        annotation['id'] = number
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'grefcoco.json')
        path.write_text(json.dumps(coco))
        metric = gRefCOCOMetric(str(path), thresh_score=score_thr)
    for number, result in enumerate(results):
        pred = dict(
            bboxes=torch.tensor(result['bboxes']).reshape(-1, 4),
            scores=torch.tensor(result['scores']),
        )
        metric.process({}, [dict(img_id=number, pred_instances=pred)])
    return metric.evaluate(len(results))


def n_acc_of_batches(
    results: list[dict[str, Any]], score_thr: float, size: int
) -> float:
    """N-acc averaged over batches, 0 for one without a no-target expression."""
    shares = []
    for begin in range(0, len(results), size):
        right = [
            not any(score >= score_thr for score in result['scores'])
            for result in results[begin : begin + size]
            if not result['gt_bboxes']
        ]
        shares.append(float(np.mean(right)) if right else 0.0)
    return float(np.mean(shares))


def main() -> None:
    """Compute all of them and print them side by side."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    if args.results is None:
        results = drawn_results(args.expressions, args.perfect, args.seed)
    else:
        lines = args.results.read_text(encoding='utf-8').splitlines()
        results = [json.loads(line) for line in lines]
    rows: list[tuple[Any, ...]] = []
    official = MatchingRule(args.score_thr, 'giou', matcher='greedy')
    for rule in (MatchingRule(args.score_thr), official):
        counts = [counted(result, rule) for result in results]
        own = summarize_sets(counts, rule)
        name = f'whole set, {rule.overlap}, {rule.matcher}'
        f1_acc = own[f'f1_acc{rule.suffix}']
        rows.append((name, f1_acc, own.get('n_acc'), own.get('t_acc')))
    theirs = of_mmdetection(results, args.score_thr)
    rows.append(
        (
            'gRefCOCOMetric of MMDetection',
            *(theirs[f'grefcoco/{key}'] for key in ('F1_score', 'N_acc', 'T_acc')),
        )
    )
    rows += [
        (
            f'N-acc averaged over batches of {size}',
            None,
            n_acc_of_batches(results, args.score_thr, size),
            None,
        )
        for size in (8, 4, 2, 1)
    ]
    logging.info(
        '%-36s %8s %8s %8s', f'{len(results):,} expressions', 'F1 = 1', 'N-acc', 'T-acc'
    )
    for name, *values in rows:
        cells = ['-' if value is None else f'{value:.4f}' for value in values]
        logging.info('%-36s %8s %8s %8s', name, *cells)


if __name__ == '__main__':
    main()
