"""The threshold of scores: as slow references choose it, and what files must have."""

import json

import numpy as np
import pytest
from scipy.stats import binom

from projects.clip_vg_core.metrics.score_threshold import (
    choose_threshold,
    fewest_predictions,
    read_scored_boxes,
)


def slow_bound(wrong, shown, confidence):
    """The risk at which so few wrong ones are just as unlikely, by bisection."""
    low, high = wrong / shown, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if binom.cdf(wrong, shown, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return low


def slow_choice(scores, hits, risk, confidence):
    """Every score as a threshold, the lowest that passes."""
    for score_thr in sorted(set(scores)):
        kept = hits[scores >= score_thr]
        wrong, shown = int((~kept).sum()), len(kept)
        bound = wrong / shown
        if confidence:
            bound = slow_bound(wrong, shown, confidence)
        if bound <= risk:
            return score_thr, shown, wrong / shown, bound
    return None


@pytest.mark.parametrize('confidence', [0, 0.5, 0.95])
@pytest.mark.parametrize('seed', range(4))
def test_the_choice_equals_the_slow_reference(seed, confidence):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 40, 200) / 40  # many are equal
    hits = rng.random(200) < 0.5 + scores / 2
    chosen = []
    for risk in (0.02, 0.1, 0.2, 0.4):
        point, best = choose_threshold(scores, hits, risk, confidence)
        expected = slow_choice(scores, hits, risk, confidence)
        chosen.append(expected is not None)
        if expected is None:
            assert point is None and best.bound > risk
            continue
        found = (point.score_thr, point.shown, point.risk, point.bound)
        assert found == pytest.approx(expected, abs=1e-9)
        assert point.coverage == pytest.approx(point.shown / 200)
        assert best.bound <= point.bound
    assert any(chosen)


def test_the_bound_holds_as_often_as_it_says():
    """Of fresh data at one threshold: the true risk is above it in 5 % at most."""
    rng = np.random.default_rng(0)
    above = 0
    for _ in range(400):
        hits = rng.random(60) < 0.8
        _, best = choose_threshold(np.ones(60), hits, 0.5)
        above += best.bound < 0.2
    assert above / 400 < 0.08


def test_few_predictions_show_little():
    for risk in (0.1, 0.02):
        count = fewest_predictions(risk, 0.95)
        enough, _ = choose_threshold(np.full(count, 0.7), np.ones(count, bool), risk)
        assert enough.score_thr == 0.7 and enough.coverage == 1
        less = np.full(count - 1, 0.7), np.ones(count - 1, bool)
        assert choose_threshold(*less, risk)[0] is None
        assert choose_threshold(*less, risk, confidence=0)[0].risk == 0


def test_all_wrong_is_a_risk_of_one():
    point, best = choose_threshold(np.array([0.2, 0.9]), np.zeros(2, bool), 0.5)
    assert point is None and best.risk == best.bound == 1


@pytest.mark.parametrize(('risk', 'confidence'), [(0, 0.9), (1, 0.9), (0.1, 1)])
def test_options_that_make_no_sense_are_named(risk, confidence):
    with pytest.raises(ValueError, match=f'{confidence if 0 < risk < 1 else risk}'):
        choose_threshold(np.ones(3), np.ones(3, bool), risk, confidence)


def write(path, rows):
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return path


A, B, OFF = [0, 0, 10, 10], [20, 0, 30, 10], [40, 40, 50, 50]
SETS = [
    # Two boxes on one target: the surer one is right.
    dict(bboxes=[A, [0, 0, 10, 9], B], scores=[0.6, 0.9, 0.2], gt_bboxes=[A, B]),
    dict(bboxes=[OFF, A], scores=[0.4, 0.5], gt_bboxes=[]),
    dict(bboxes=[OFF], scores=[0.3], gt_bboxes=[A]),
    dict(bboxes=[], scores=[], gt_bboxes=[]),
]


def test_sets_of_boxes_find_targets_by_descending_score(tmp_path):
    found = read_scored_boxes(write(tmp_path / 'a.jsonl', SETS))
    assert found.scores.tolist() == [0.9, 0.6, 0.2, 0.5, 0.4, 0.3]
    assert found.hits.tolist() == [True, False, True, False, False, False]
    assert found.owners.tolist() == [0, 0, 0, 1, 1, 2]
    assert found.has_target.tolist() == [True, False, True, False]
    assert found.lowest == 0.2
    answered = [found.is_answered(t).tolist() for t in (0.3, 0.45, 0.95)]
    assert answered == [
        [True, True, True, False],
        [True, True, False, False],
        [False] * 4,
    ]


@pytest.mark.parametrize(
    ('change', 'value'),
    [
        (dict(scores=[0.6, 0.9]), '2 scores for 3'),
        (dict(scores=[0.6, 0.9, 1.5]), '1.5'),
        (dict(scores=[0.6, 0.9, None]), 'null.*confidence head'),
        (dict(bboxes=[A, A, [1, 2]]), r'\[1, 2\]'),
        (dict(gt_bboxes=[[1, 2, 3, float('inf')]]), 'inf'),
        (dict(gt_bboxes=['abcd']), 'abcd'),
    ],
)
def test_a_wrong_entry_is_named_with_its_line(tmp_path, change, value):
    path = write(tmp_path / 'a.jsonl', [SETS[1], dict(SETS[0], **change)])
    with pytest.raises(ValueError, match=rf'a\.jsonl, line 2.*{value}'):
        read_scored_boxes(path)


def test_results_of_one_box_are_read(tmp_path):
    rows = [
        dict(
            sample_id=f's{i}',
            image='a.jpg',
            text='t',
            iou=iou,
            bbox=A,
            gt_bbox=B,
            split='val',
            source='human',
            score=score,
        )
        for i, (iou, score) in enumerate([(0.5, 0.3), (0.49, 0.8)])
    ]
    found = read_scored_boxes(write(tmp_path / 'a.jsonl', rows))
    assert found.scores.tolist() == [0.3, 0.8] and found.hits.tolist() == [True, False]
    assert found.has_target.all() and found.lowest == 0
    rows[1]['score'] = None
    with pytest.raises(ValueError, match=r's1.*null.*confidence head'):
        read_scored_boxes(write(tmp_path / 'b.jsonl', rows))
