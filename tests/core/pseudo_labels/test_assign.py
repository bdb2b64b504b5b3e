"""Assigned labels: texts without boxes and the detections that they get."""

from collections import Counter

import numpy as np
import pytest

from projects.clip_vg_core.pseudo_labels.assign import AssignOptions, assign_labels
from projects.clip_vg_core.pseudo_labels.detection import GivenText
from projects.clip_vg_core.pseudo_labels.naming import detection_logits
from projects.clip_vg_core.zero_shot.expression import parse_expression
from projects.clip_vg_core.zero_shot.scoring import ground_parsed

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
        ('man next to the dog', MEN[1]),
        ('second person from the right', MEN[0]),
        ('man between the guy on the left and the dog', MEN[1]),
        ('tallest', MEN[1]),
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


@pytest.mark.parametrize(
    ('text', 'plain'),
    [('big man on the grass', 'big man'), ('man near a tree', 'man')],
)
def test_a_relation_to_what_was_not_detected_does_not_count(text, plain):
    (related,), (alone,) = assign(text), assign(plain)
    assert (related.box, related.score) == (alone.box, pytest.approx(alone.score))
    # CLIP may find it in a box of another class.
    scored = assign(
        text, score=lambda _, texts, boxes: np.eye(len(texts), len(boxes)) + 0.1
    )
    assert scored[0].score != pytest.approx(alone.score, abs=1e-3)


def test_a_direction_from_what_was_not_detected_does():
    assert assign('person left of the tree')[0].box == MEN[0].box
    assert assign('person right of the tree')[0].box == MEN[1].box


def test_whole_texts_are_scored_where_words_do_not_count():
    seen = []

    def score(image, texts, boxes):
        seen.append((image.file_name, list(texts), boxes.tolist()))
        return np.array([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]])

    labels = assign('left man', 'x', score=score, use_words=False)
    boxes = [list(item.box) for item in ITEMS]
    assert seen == [('1.jpg', ['left man', 'x'], boxes)]  # once for all texts
    assert [label.box for label in labels] == [DOG.box, MEN[0].box]
    assert [label.score for label in labels] == pytest.approx([0.5, 0.7])


def test_head_phrases_are_scored_and_grounded_by_geometry():
    seen = []
    given = {'man': [0.2, 0.3, 0.5], 'black dog': [0.1, 0.1, 0.8]}

    def score(image, texts, boxes):
        seen.append(list(texts))
        return np.array([given[text] for text in texts])

    text = 'left man next to the black dog'
    labels = assign(text, 'man', 'left', score=score)
    assert seen == [['man', 'black dog']]  # each once; 'left' names nothing
    names = [item.name for item in ITEMS]
    known = detection_logits(list(given), names, np.ones(3), VOCABULARY, 6.0, 0.5)
    logits = {
        head: row + np.log(given[head]) for head, row in zip(given, known, strict=True)
    }
    boxes = np.array([item.box for item in ITEMS])
    for label in labels:
        expected = np.exp(
            ground_parsed(parse_expression(label.text), boxes, SIZE, logits)
        )
        assert label.box == ITEMS[expected.argmax()].box
        assert label.score == pytest.approx(expected.max())


def test_scores_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r'1\.jpg.*\(3, 1\).*\(1, 3\)'):
        assign('man', score=lambda *_: np.ones((3, 1)))


@pytest.mark.parametrize(('least', 'count'), [(0.5, 1), (0.51, 0)])
def test_unsure_texts_are_left_out_and_counted(least, count):
    dropped = Counter()
    labels = assign(
        'x',
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
