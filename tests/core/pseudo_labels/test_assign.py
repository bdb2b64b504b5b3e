"""Assigned labels: texts without boxes and the detections that they get."""

from collections import Counter

import numpy as np
import pytest

from projects.clip_vg_core.pseudo_labels.assign import (
    AssignOptions,
    assign_labels,
    word_logits,
)
from projects.clip_vg_core.pseudo_labels.detection import GivenText

from ...helpers.scenes import SIZE, VOCABULARY, at, scene

MEN = [at(x, 240, 'person', (80, height)) for x, height in ((100, 200), (300, 300))]
DOG = at(500, 300, 'dog', (100, 100))
ITEMS = (*MEN, DOG)


def assign(*texts, items=ITEMS, score=None, dropped=None, **options):
    texts = tuple(t if isinstance(t, GivenText) else GivenText(t) for t in texts)
    return assign_labels(
        scene(*items, texts=texts), VOCABULARY, AssignOptions(**options), score, dropped
    )


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('the dog', DOG),
        ('puppy', DOG),  # a synonym
        ('dogs', DOG),
        ('dog next to a man', DOG),  # what is named first
        ('left man', MEN[0]),
        ('guy on the right', MEN[1]),  # not the dog, which is further right
        ('biggest person', MEN[1]),
        ('small person', MEN[0]),
        ('left', MEN[0]),  # nothing is named: all are compared
        ('Right.', DOG),
        ('in the middle', MEN[1]),
    ],
)
def test_words_alone_tell_which_detection_is_meant(text, expected):
    (label,) = assign(text)
    assert (label.text, label.box, label.rule) == (text, expected.box, 'assigned')
    assert label.score > 1 / 3


def test_a_place_before_of_is_a_relation():
    plain, relation = (
        word_logits(text, MEN, SIZE, VOCABULARY)
        for text in ('man on the left', 'man left of the dog')
    )
    assert plain[0] > plain[1]
    assert relation[0] == relation[1]


@pytest.mark.parametrize('use_words', [True, False])
def test_a_score_is_multiplied_with_the_words(use_words):
    seen = []

    def score(image, texts, boxes):
        seen.append((image.file_name, list(texts), boxes.tolist()))
        return np.array([[0.2, 0.3, 0.5]] * len(texts))

    labels = assign('man', 'x', score=score, use_words=use_words)
    boxes = [list(item.box) for item in ITEMS]
    assert seen == [('1.jpg', ['man', 'x'], boxes)]  # once for all texts
    expected = [MEN[1] if use_words else DOG, DOG]
    assert [label.box for label in labels] == [item.box for item in expected]
    assert labels[1].score == pytest.approx(0.5)
    factors = np.exp(word_logits('man', ITEMS, SIZE, VOCABULARY)) * [0.2, 0.3, 0.5]
    best = factors.max() / factors.sum() if use_words else 0.5
    assert labels[0].score == pytest.approx(best)


def test_scores_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r'1\.jpg.*\(3, 1\).*\(1, 3\)'):
        assign('man', score=lambda *_: np.ones((3, 1)))


@pytest.mark.parametrize(('least', 'count'), [(0.5, 1), (0.51, 0)])
def test_unsure_texts_are_left_out_and_counted(least, count):
    dropped = Counter()
    labels = assign(
        'thing',
        score=lambda *_: np.array([[0.2, 0.3, 0.5]]),
        min_probability=least,
        dropped=dropped,
    )
    assert len(labels) == count
    assert dropped['below --min-probability'] == 1 - count


def test_given_boxes_regions_and_negatives_are_taken_as_they_are():
    numbered = [at(60 * i, 100, 'cup', (50, 50), region=i) for i in (1, 2, 3)]
    labels = assign(
        GivenText('a', box=(-5.0, 0.0, 30.0, 40.0)),
        GivenText('b', region=2),
        GivenText('a  red\nbus', negative=True),
        'cup',
        items=(*ITEMS, *numbered),
    )
    assert [(x.text, x.box, x.rule, x.score) for x in labels[:3]] == [
        ('a', (0.0, 0.0, 30.0, 40.0), 'given box', 1.0),  # cut at the border
        ('b', numbered[1].box, 'given region', 1.0),  # though it is small
        ('a red bus', None, 'negative', 1.0),
    ]
    assert labels[3].rule == 'assigned'


def test_texts_for_which_there_is_no_box_are_counted():
    dropped = Counter()
    texts = ('dog', ' ', GivenText('x', region=7), GivenText('y', box=(9, 9, 9.5, 30)))
    assert assign(*texts, items=(), dropped=dropped) == []
    assert +dropped == {
        'text without a detection': 1,
        'empty text': 1,
        'region below --min-score': 1,
        'box below a pixel': 1,
    }


def test_the_order_of_the_texts_does_not_matter():
    texts = ['left man', 'dog', 'right man', 'the big one']
    one = {x.text: (x.box, x.score) for x in assign(*texts)}
    other = {x.text: (x.box, x.score) for x in assign(*texts[::-1])}
    single = {x.text: (x.box, x.score) for t in texts for x in assign(t)}
    assert one == other == single
