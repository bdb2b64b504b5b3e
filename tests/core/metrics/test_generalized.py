"""Sets of boxes against 0..n targets: equal to trying everything, and to public code.

The references are written from the definitions of gRefCOCO's, RefDrone's and HumanRef's
evaluation, in plain Python, expression by expression.
"""

from itertools import permutations

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import bbox_overlaps

from projects.clip_vg_core.metrics.generalized import (
    MatchingRule,
    count_expression,
    match_boxes,
    measure_names,
    pairwise_overlaps,
    summarize_by_group,
    summarize_sets,
    written_boxes,
)

LEFT, RIGHT, FAR = [0, 0, 10, 10], [20, 0, 30, 10], [60, 60, 70, 70]
NOWHERE = [np.nan] * 4


def counted(boxes, targets, rule=None, scores=None):
    boxes = np.array(boxes, float).reshape(-1, 4)
    scores = np.ones(len(boxes)) if scores is None else np.array(scores, float)
    targets = np.array(targets, float).reshape(-1, 4)
    return count_expression(boxes, scores, targets, rule or MatchingRule())


def measured(pairs, rule=None):
    rule = rule or MatchingRule()
    return summarize_sets([counted(*pair, rule) for pair in pairs], rule)


def crowded(rng, most=5):
    """Predicted boxes, scores and targets of an expression, near each other."""

    def boxes():
        corners = rng.uniform(0, 8, (rng.integers(0, most + 1), 2))
        return np.concatenate([corners, corners + rng.uniform(8, 16, corners.shape)], 1)

    predicted = boxes()
    return predicted, rng.uniform(0, 1, len(predicted)).round(2), boxes()


def pair_overlap(a, b, kind):
    """IoU or GIoU of two boxes, by their definitions."""
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    union = sum(areas) - width * height
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    iou = width * height / union
    return iou if kind == 'iou' else iou - (hull - union) / hull


def most_pairs(overlaps, threshold):
    """By trying every assignment."""
    if len(overlaps) > len(overlaps.T):
        overlaps = overlaps.T
    rows, columns = overlaps.shape
    return max(
        sum(overlaps[i, j] >= threshold for i, j in enumerate(chosen))
        for chosen in permutations(range(columns), rows)
    )


def greedy_pairs(overlaps, threshold):
    """As gRefCOCO's and RefDrone's code: the largest of what is left."""
    left = {
        (i, j): overlaps[i, j]
        for i in range(len(overlaps))
        for j in range(len(overlaps.T))
    }
    pairs = 0
    while left and max(left.values()) >= threshold:
        i, j = max(left, key=left.get)
        left = {k: v for k, v in left.items() if k[0] != i and k[1] != j}
        pairs += 1
    return pairs


def reference(expressions, rule):
    """Each measure by its own definition, one expression after another."""
    find = dict(optimal=most_pairs, greedy=greedy_pairs)[rule.matcher]
    right = 0
    nothing = dict(right=0, total=0)
    answered = dict(right=0, total=0)
    instance = dict(tp=0, fp=0, fn=0)
    image = dict(tp=0, fp=0, fn=0)
    density = []
    for boxes, scores, targets in expressions:
        kept = [
            b for b, s in zip(boxes, scores, strict=True) if s >= rule.score_thr - 1e-6
        ]
        overlaps = np.array(
            [[pair_overlap(b, t, rule.overlap) for t in targets] for b in kept]
        ).reshape(len(kept), len(targets))
        if not len(targets):
            nothing['total'] += 1
            nothing['right'] += not kept
            right += not kept
            image['fp'] += bool(kept)
            instance['fp'] += bool(kept)  # one, as in RefDrone's code
            continue
        answered['total'] += 1
        answered['right'] += bool(kept)
        pairs = find(overlaps, rule.overlap_thr)
        instance['tp'] += pairs
        instance['fp'] += len(kept) - pairs
        instance['fn'] += len(targets) - pairs
        whole = pairs == len(kept) == len(targets)
        right += whole
        image['tp' if whole else 'fn'] += 1
        row = []
        for threshold in (rule.overlap_thr, *np.arange(0.5, 1.0, 0.05)):
            pairs = find(overlaps, threshold)
            recall, precision = pairs / len(targets), pairs / max(1, len(kept))
            f1 = 2 * recall * precision / (recall + precision) if pairs else 0
            row.append(f1 * min(1, len(targets) / len(kept)) if kept else 0)
        density.append(row)

    def f1(counts):
        return 2 * counts['tp'] / (2 * counts['tp'] + counts['fp'] + counts['fn'])

    density = np.mean(density, 0)
    return dict(
        f1_acc=right / len(expressions),
        n_acc=nothing['right'] / nothing['total'],
        rejection=nothing['right'] / nothing['total'],
        t_acc=answered['right'] / answered['total'],
        instance_f1=f1(instance),
        image_f1=f1(image),
        density_f1=density[0],
        density_f1_mean=density[1:].mean(),
        num_matched=instance['tp'],
    )


@pytest.mark.parametrize('matcher', ['optimal', 'greedy'])
@pytest.mark.parametrize('overlap', ['iou', 'giou'])
def test_all_measures_equal_their_definitions(overlap, matcher):
    rng = np.random.default_rng(0)
    rule = MatchingRule(0.3, overlap, 0.5, matcher)
    expressions = [crowded(rng) for _ in range(300)]
    measures = summarize_sets([count_expression(*e, rule) for e in expressions], rule)
    for name, value in reference(expressions, rule).items():
        own = measures.get(name, measures.get(name + rule.suffix))
        assert own == pytest.approx(value), name
    assert set(measures) == set(measure_names(rule))
    assert measures['num_expressions'] == 300
    assert measures['num_no_target'] == sum(not len(t) for *_, t in expressions)
    assert measures['num_targets'] == sum(len(t) for *_, t in expressions)


def test_crowds_were_among_them_and_matchers_differ():
    """Else the test above would hold for any matcher."""
    rng = np.random.default_rng(0)
    counts = []
    for _ in range(300):
        boxes, _, targets = crowded(rng)
        overlaps = pairwise_overlaps(boxes, targets)
        counts.append(
            [len(match_boxes(overlaps, 0.5, m)[0]) for m in ('optimal', 'greedy')]
        )
    optimal, greedy = np.array(counts).T
    assert (optimal >= greedy).all()
    assert (optimal > greedy).sum() > 5


@pytest.mark.parametrize('threshold', [0.3, 0.5, 0.9])
def test_pairs_are_one_to_one_and_overlap(threshold):
    rng = np.random.default_rng(1)
    for _ in range(200):
        overlaps = rng.uniform(0, 1, (rng.integers(0, 6), rng.integers(0, 6)))
        for matcher in ('optimal', 'greedy'):
            rows, columns = match_boxes(overlaps, threshold, matcher)
            assert len(set(rows.tolist())) == len(set(columns.tolist())) == len(rows)
            assert (overlaps[rows, columns] >= threshold).all()
        if overlaps.size:
            rows, _ = match_boxes(overlaps, threshold)
            assert len(rows) == most_pairs(overlaps, threshold)


def test_of_matchings_with_as_many_pairs_the_closest_is_taken():
    overlaps = np.array([[0.6, 0.9], [0.9, 0.6]])
    rows, columns = match_boxes(overlaps)
    assert overlaps[rows, columns].tolist() == [0.9, 0.9]


def test_overlaps_are_those_of_mmdetection():
    rng = np.random.default_rng(0)
    boxes, targets = (rng.uniform(0, 60, (n, 4)).astype(np.float32) for n in (40, 30))
    for array in (boxes, targets):
        array[:, 2:] += array[:, :2]
    for overlap in ('iou', 'giou'):
        expected = bbox_overlaps(
            torch.from_numpy(boxes), torch.from_numpy(targets), mode=overlap
        )
        np.testing.assert_allclose(
            pairwise_overlaps(boxes, targets, overlap), expected.numpy(), atol=1e-6
        )
    assert pairwise_overlaps([LEFT, NOWHERE], [LEFT], 'giou').tolist() == [[1], [-1]]
    assert pairwise_overlaps([LEFT, NOWHERE], [LEFT]).tolist() == [[1], [0]]
    assert pairwise_overlaps(np.zeros((0, 4)), [LEFT]).shape == (0, 1)


def test_a_threshold_is_reached_by_equality():
    half = [[0, 0, 10, 5]]
    for overlap in ('iou', 'giou'):  # the hull of both is their union
        assert counted(half, [LEFT], MatchingRule(overlap=overlap)).f1 == 1
    scores = np.array([0.7], np.float32).astype(float)
    assert scores[0] < 0.7
    assert counted([LEFT], [LEFT], scores=scores).predictions == 1


def test_a_perfect_prediction_of_two_targets_and_of_none_is_right():
    """MMDetection's metric, which reads one target of each expression, says half."""
    measures = measured([([RIGHT, LEFT], [LEFT, RIGHT]), ([], [])])
    shares = {k: v for k, v in measures.items() if not k.startswith('num_')}
    assert shares == dict.fromkeys(shares, 1.0)
    assert set(shares) > {'f1_acc', 'n_acc', 't_acc', 'auroc', 'density_f1'}


@pytest.mark.parametrize('found', [LEFT, RIGHT])
def test_one_of_two_targets_is_not_right(found):
    """MMDetection's metric calls the first of both right."""
    measures = measured([([found], [LEFT, RIGHT])])
    assert measures['f1_acc'] == measures['image_f1'] == 0
    assert measures['t_acc'] == 1
    assert measures['instance_f1'] == measures['density_f1'] == pytest.approx(2 / 3)


def test_a_target_is_found_once():
    twice = measured([([LEFT, LEFT], [LEFT])])
    assert twice['f1_acc'] == 0 and twice['num_matched'] == 1
    # HumanRef divides by twice as many boxes as there should be, once more.
    assert twice['density_f1'] == pytest.approx(2 / 3 / 2)


def test_boxes_for_what_has_no_target_are_one_false_positive():
    measures = measured([([LEFT], [LEFT]), ([LEFT, RIGHT, FAR], [])])
    assert measures['instance_f1'] == measures['image_f1'] == pytest.approx(2 / 3)
    assert measures['n_acc'] == measures['rejection'] == 0


def test_empty_groups_are_absent():
    count = {'num_expressions', 'num_no_target', 'num_targets', 'num_predictions'}
    count |= {'num_matched'}
    assert set(measured([([], [])])) == count | {'f1_acc', 'n_acc', 'rejection'}
    with_targets = {'f1_acc', 't_acc', 'instance_f1', 'image_f1', 'density_f1'}
    with_targets |= {'density_f1_mean'}
    assert set(measured([([], [LEFT])])) == count | with_targets
    assert measured([]) == dict.fromkeys(count, 0)
    everything = count | with_targets | {'n_acc', 'rejection', 'auroc'}
    assert set(measured([([], [LEFT]), ([], [])])) == everything


def test_whether_there_is_one_is_ranked_by_scores_below_the_threshold_too():
    rule = MatchingRule()
    low = [0.6, 0.1, 0.4]
    counts = [counted([FAR], [LEFT], rule, [s]) for s in low[:2]]
    counts += [counted([FAR], [], rule, low[2:]), counted([], [], rule)]
    assert summarize_sets(counts, rule)['auroc'] == 3 / 4
    assert summarize_sets(counts, rule)['num_predictions'] == 0


def test_what_is_not_a_number_is_no_prediction():
    counts = counted([LEFT, LEFT], [LEFT], scores=[np.nan, 0.9])
    assert (counts.predictions, counts.f1, counts.score) == (1, 1.0, 0.9)
    assert counted([LEFT], [], scores=[np.nan]).score == -np.inf
    # A target that is invalid is never found, whatever is predicted.
    assert counted([LEFT, NOWHERE], [LEFT, NOWHERE]).f1 == 0.5


def test_the_boxes_of_a_file_have_the_same_counts():
    rng = np.random.default_rng(2)
    rule = MatchingRule(0.6)
    kept = 0
    for _ in range(100):
        boxes, scores, targets = crowded(rng)
        own = written_boxes(scores, rule)
        kept += len(own)
        assert (np.diff(scores[own]) <= 0).all()
        assert count_expression(
            boxes[own], scores[own], targets, rule
        ) == count_expression(boxes, scores, targets, rule)
    assert kept < 200  # of 250


def test_groups_are_counted_by_themselves():
    rule = MatchingRule()
    counts = [counted(*p) for p in (([LEFT], [LEFT]), ([], [RIGHT]), ([], []))]
    groups = summarize_by_group(counts, ['val', 'val', 'testA'], ['x'] * 3, rule)
    assert groups == {
        '': summarize_sets(counts, rule),
        'testA': summarize_sets(counts[2:], rule),
        'val': summarize_sets(counts[:2], rule),
    }
    assert groups['']['f1_acc'] == pytest.approx(2 / 3)
    assert 'n_acc' not in groups['val']


def test_numbers_of_another_matching_have_another_name():
    pairs = [([LEFT], [LEFT]), ([], [])]
    official = measured(pairs, MatchingRule(0.9, 'giou', 0.5, 'greedy'))
    names = set(measured(pairs, MatchingRule(score_thr=0.9)))
    assert names == set(measured(pairs))
    assert official['f1_acc_giou_0.5_greedy'] == 1
    # What depends on no matching has one name.
    assert names - set(official) == {
        *('f1_acc', 'instance_f1', 'image_f1', 'density_f1', 'density_f1_mean'),
        'num_matched',
    }
    text = str(MatchingRule(0.9, 'giou', 0.5, 'greedy'))
    assert all(part in text for part in ('0.9', 'GIoU >= 0.5', "'greedy'"))


@pytest.mark.parametrize(
    ('options', 'found'),
    [
        (dict(overlap='diou'), 'diou'),
        (dict(matcher='hungarian'), 'hungarian'),
        (dict(overlap_thr=0), 'overlap_thr=0'),
        (dict(overlap_thr=50), 'overlap_thr=50'),
        (dict(score_thr=float('nan')), 'nan'),
    ],
)
def test_a_rule_that_means_nothing_is_refused(options, found):
    with pytest.raises(ValueError, match=found):
        MatchingRule(**options)
