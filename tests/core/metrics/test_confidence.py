"""Measures of confidence, against their definitions."""

import json
import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from benchmarks import confidence as benchmark
from projects.clip_vg.evaluation.grounding_metric import top_scores
from projects.clip_vg_core.metrics.confidence import (
    auroc,
    expected_calibration_error,
    reliability_bins,
    risk_coverage,
    roc_curve,
)
from projects.clip_vg_core.metrics.results_file import read_results

from ...helpers.results import evaluate, random_boxes, sample


def drawn(count=500, seed=0, levels=40):
    """Scores, some of them equal, and what is reached: higher for higher scores."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels + 1, count) / levels
    return scores, np.clip(0.8 * scores + rng.normal(0, 0.1, count), 0, 1)


def slow_error(scores, values, number):
    bins = [[] for _ in range(number)]
    for score, value in zip(scores, values, strict=True):
        bins[min(int(score * number), number - 1)].append((score, value))
    gaps = [abs(sum(s for s, _ in found) - sum(v for _, v in found)) for found in bins]
    return sum(gaps) / len(scores)


@pytest.mark.parametrize('number', [1, 7, 10])
def test_calibration_error_equals_the_definition(number):
    scores, values = drawn()
    found = expected_calibration_error(scores, values, number)
    assert found == pytest.approx(slow_error(scores, values, number))
    bins = reliability_bins(scores, values, number)
    assert bins.counts.sum() == 500 and len(bins.edges) == number + 1


def test_a_calibrated_score_has_no_error_and_a_constant_one_its_bias():
    scores = np.repeat([0.2, 0.6], [50, 50])
    hits = np.r_[np.arange(50) < 10, np.arange(50) < 30]
    assert expected_calibration_error(scores, hits) == pytest.approx(0, abs=1e-12)
    # A model without a head scores these predictions 1, of 40 % hits.
    assert expected_calibration_error(np.ones(100), hits) == pytest.approx(0.6)


def test_an_empty_bin_is_nan_and_counts_nothing():
    bins = reliability_bins(np.array([0.05, 1.0]), np.array([0.0, 1.0]), 10)
    assert bins.counts.tolist() == [1] + 8 * [0] + [1]
    assert np.isnan(bins.values[1:9]).all() and bins.scores[9] == 1.0


def test_roc_equals_counting_at_every_threshold_and_its_area_is_auroc():
    scores, values = drawn()
    positive = values > 0.5
    alarms, hits = roc_curve(scores, positive)
    thresholds = [math.inf, *sorted(set(scores), reverse=True)]
    assert len(alarms) == len(thresholds)
    for threshold, alarm, hit in zip(thresholds, alarms, hits, strict=True):
        above = scores >= threshold
        assert alarm == pytest.approx(above[~positive].mean())
        assert hit == pytest.approx(above[positive].mean())
    area = (np.diff(alarms) * (hits[1:] + hits[:-1]) / 2).sum()
    assert area == pytest.approx(auroc(scores, positive))


@pytest.mark.parametrize('levels', [3, 1000])  # many ties, few ties
def test_auroc_equals_the_slow_reference_over_all_pairs(levels):
    rng = np.random.default_rng(8)
    scores = rng.integers(0, levels, 120) / levels
    scores[rng.random(120) < 0.2] = np.nan
    positive = rng.random(120) < 0.3 + 0.4 * np.nan_to_num(scores)
    pairs = [
        1.0 if high > low else 0.5 if high == low else 0.0
        for high in scores[positive & ~np.isnan(scores)]
        for low in scores[~positive & ~np.isnan(scores)]
    ]
    assert auroc(scores, positive) == pytest.approx(np.mean(pairs))
    assert auroc(-scores, positive) == pytest.approx(1 - np.mean(pairs))


def test_auroc_of_one_side_is_unknown():
    assert np.isnan(auroc(np.array([0.1, 0.2]), np.array([True, True])))
    assert np.isnan(auroc(np.array([0.1, np.nan]), np.array([True, False])))


def test_risk_equals_keeping_what_is_above_every_threshold():
    scores, values = drawn()
    coverage, risk = risk_coverage(scores, values)
    thresholds = sorted(set(scores), reverse=True)
    for threshold, share, lost in zip(thresholds, coverage, risk, strict=True):
        kept = scores >= threshold
        assert share == pytest.approx(kept.mean())
        assert lost == pytest.approx(1 - values[kept].mean())
    assert coverage[-1] == 1.0


def test_measures_do_not_depend_on_the_order():
    scores, values = drawn()
    order = np.random.default_rng(1).permutation(500)
    for measure in (expected_calibration_error, risk_coverage):
        one, other = measure(scores, values), measure(scores[order], values[order])
        np.testing.assert_allclose(one, other)


@pytest.mark.parametrize(
    ('scores', 'values', 'message'),
    [
        ([0.5, 0.5], [0.5], 'one of each'),
        ([[0.5], [0.5]], [0.5, 0.5], 'one of each'),
        ([], [], 'one of each'),
        ([1.5], [0.5], r'A score of 1\.5'),
        ([0.5], [math.nan], 'A value of nan'),
    ],
)
def test_what_would_give_a_wrong_number_is_an_error(scores, values, message):
    for measure in (expected_calibration_error, roc_curve, risk_coverage):
        with pytest.raises(ValueError, match=message):
            measure(np.array(scores), np.array(values))


def test_a_roc_of_one_kind_is_an_error():
    with pytest.raises(ValueError, match='2 of 2 are positive'):
        roc_curve(np.array([0.1, 0.2]), np.array([True, True]))


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_scores_are_written_as_null_where_a_detector_gives_none(tmp_path):
    true, ones = random_boxes(2, 0).tolist(), dict(scores=torch.ones(2))
    for given, expected in (
        (dict(scores=torch.tensor([0.25, 1.0])), [0.25, 1.0]),
        (ones, [1.0, 1.0]),  # of a detector that is sure
        (dict(ones, scored=False), [None, None]),
        ({}, [None, None]),
    ):
        path = tmp_path / 'results.jsonl'
        found = evaluate([sample(0, true, true, **given)], out_file=str(path))
        assert set(found) == set(evaluate([sample(0, true, true)]))
        assert [line['score'] for line in read_lines(path)] == expected
        assert [result['score'] for result in read_results(path)] == expected


def test_of_many_boxes_the_score_is_that_of_the_box():
    many = dict(bboxes=torch.zeros(3, 4), scores=torch.tensor([0.2, 0.9, 0.4]))
    assert top_scores(many, 1).tolist() == [pytest.approx(0.9)]
    assert top_scores(many, 3).tolist() == pytest.approx([0.2, 0.9, 0.4])
    nothing = dict(bboxes=torch.zeros(0, 4), scores=torch.zeros(0))
    assert top_scores(nothing, 1).tolist() == [0.0]
    assert top_scores(dict(bboxes=torch.zeros(2, 4)), 2).tolist() == [1.0, 1.0]


class Oracle:
    """Predicts the true boxes; scores 0.75, or 0.25 where there is no referent."""

    def __init__(self, pictures):
        self.pictures = pictures

    def __call__(self, paths, texts):
        assert paths == [picture.path for picture in self.pictures]
        predictions = []
        for picture, asked in zip(self.pictures, texts, strict=True):
            none = len(asked) - len(picture.boxes)
            predictions.append(
                dict(
                    bboxes=[list(box) for box in picture.boxes] + none * [[0, 0, 1, 1]],
                    scores=len(picture.boxes) * [0.75] + none * [0.25],
                )
            )
        return dict(predictions=predictions)


# Equal scores correlate with nothing.
@pytest.mark.filterwarnings('ignore:invalid value:RuntimeWarning')
def test_the_benchmark_of_an_oracle(shapes):
    pictures = benchmark.read_images(Path(shapes), 'val')
    assert len(pictures) == 6 and all(p.path.is_file() for p in pictures)
    benchmark.add_negatives(pictures, np.random.default_rng(0))
    kinds, named, scores, ious = (
        np.array(column)
        for column in zip(*benchmark.predict(pictures, Oracle(pictures)), strict=True)
    )
    label = kinds == 'label'
    assert label.sum() == sum(len(p.texts) for p in pictures)
    assert np.allclose(ious[label], 1) and (ious[~label] == 0).all()
    assert (scores[label] == 0.75).all() and (scores[~label] == 0.25).all()
    # Each that names something has its two counterparts.
    for kind in (benchmark.ONE_WORD, benchmark.OTHER_IMAGE):
        assert (kinds == kind).sum() == (label & named).sum() > 0
    absent = {kind: scores[kinds == kind] for kind in (benchmark.ONE_WORD,)}
    figures = benchmark.table(scores[label], ious[label], scores[label & named], absent)
    assert '| AUROC, they or one word changed | 1.000 |' in figures
    assert '| ECE of the score as an IoU, 10 bins | 0.250 |' in figures
    figure = benchmark.draw_confidence(
        scores[label], ious[label], scores[label & named], absent
    )
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) == 3 and 'ECE 0.250' in titles[0]
    plt.close(figure)
